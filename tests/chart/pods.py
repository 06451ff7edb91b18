"""Lays out the files of the server's pods in a rendered chart as Kubernetes would, and lets the server have them.

  pods.py check FILE SERVER WORK    each pod: `livepatch-server config check`
  pods.py run FILE SERVER WORK      the job, then the server, with real services: it is ready where probes ask, and stops

WORK holds tls.crt and tls.key, and takes the files. `run` needs the environment of tests/services.sh.

The pods' paths are moved below WORK, in the configuration and in the environment alike. Secrets and ConfigMaps that are
not of the chart get made-up contents by the name of the file. Each pod is also looked at without its database's secret,
which has to be noticed.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import yaml

MADE_UP = {
    "auth.basic.users": "admin:$2y$05$abcdefghijklmnopqrstuuJ0zvYQ0sOWMfnPqJyWwWeYgIxBe6gq2\n",
    "auth.machine-token-key": "00112233445566778899aabbccddeeff" * 2,
    "contracts.password": "made-up",
    "database.connection-string": "postgresql://livepatch:made-up@db.example.com/livepatch?sslmode=verify-full",
    "patch-storage.postgres-connection-string": "host=payloads.example.com user=livepatch password=made-up dbname=payloads",
    "patch-storage.s3-access-key": "made-up",
    "patch-storage.s3-secret-key": "made-up",
    "patch-sync.token": "made-up",
}
REFERENCES = {"LP_PATCH_SYNC_PROXY_HTTPS": "http://someone:made-up@proxy.example.com:3128"}


def contents(work, path):
    if path in MADE_UP:
        return MADE_UP[path]
    return (work / ("tls.key" if path.endswith((".key", "-key")) else "tls.crt")).read_text()


def lay_out(spec, container, documents, work, root):
    """Makes the files that the container sees below `root`."""
    own = {(d["kind"], d["metadata"]["name"]): d.get("data") or d.get("stringData") for d in documents}
    moved = lambda text: text.replace("/etc/livepatch", f"{root}/etc/livepatch").replace("/var/lib/livepatch", f"{root}/var/lib/livepatch")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in container["volumeMounts"]:
        folder = root / mount["mountPath"].lstrip("/")
        folder.mkdir(parents=True)
        volume = volumes[mount["name"]]
        for source in volume.get("projected", {}).get("sources", [volume]):
            for kind, field in (("ConfigMap", "configMap"), ("Secret", "secret")):
                if field not in source:
                    continue
                name = source[field].get("name") or source[field]["secretName"]
                whole = [{"key": key, "path": key} for key in ("tls.crt", "tls.key", "ca.crt")]
                for item in source[field].get("items", whole):
                    data = own.get((kind, name))
                    text = moved(data[item["key"]]) if data else contents(work, item["path"])
                    (folder / item["path"]).write_text(text)
    environment = {"PATH": os.environ["PATH"]}
    for variable in container["env"]:
        environment[variable["name"]] = moved(variable["value"]) if "value" in variable else REFERENCES[variable["name"]]
    return environment


def load(file):
    with open(file) as text:
        return [document for document in yaml.safe_load_all(text) if document]


def check(file, server, work):
    documents = load(file)
    looked = 0
    for document in documents:
        spec = document.get("spec", {}).get("template", {}).get("spec")
        for container in (spec or {}).get("initContainers", []) + (spec or {}).get("containers", []):
            if container.get("command") != ["/usr/bin/livepatch-server"]:
                continue
            root = work / f"{file.name}-{document['kind']}-{container['name']}"
            environment = lay_out(spec, container, documents, work, root)
            look = lambda: subprocess.run([server, "config", "check"], env=environment, capture_output=True, text=True)
            answer = look()
            if answer.returncode != 0:
                sys.exit(f"{file}: the server refuses what {document['kind']} {container['name']} gives it:\n{answer.stderr}{answer.stdout}")
            (root / "etc/livepatch/secrets/database.connection-string").unlink()
            answer = look()
            if answer.returncode == 0 or "LP_DATABASE_CONNECTION_STRING_FILE" not in answer.stderr + answer.stdout:
                sys.exit(f"{file}: the server did not miss the secret of its database:\n{answer.stderr}{answer.stdout}")
            looked += 1
    if not looked:
        sys.exit(f"{file}: there is no pod of the server in it")


def get(address, path):
    """The status of an answer."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return opener.open(f"http://{address}{path}", timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def serving(log, process):
    """The line by which the server says where it is, once it is there."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"serving"' in line and "admin" in (found := json.loads(line)).get("fields", found):
                return found.get("fields", found)
        time.sleep(0.05)
    sys.exit(f"the server does not come up:\n{log.read_text()}")


def run(file, server, work):
    documents = load(file)
    one = lambda kind: next(document for document in documents if document["kind"] == kind)
    MADE_UP["database.connection-string"] = os.environ["LIVEPATCH_TEST_DATABASE"]
    MADE_UP["patch-storage.s3-access-key"] = os.environ["LIVEPATCH_TEST_S3_KEY"]
    MADE_UP["patch-storage.s3-secret-key"] = os.environ["LIVEPATCH_TEST_S3_SECRET"]
    pathlib.Path(os.environ["LIVEPATCH_TEST_S3_DIR"], "livepatch").mkdir(exist_ok=True)

    def prepare(spec, container, name):
        """The container's environment. Addresses are replaced by those of the real services and free ports."""
        root = work / f"run-{name}"
        environment = lay_out(spec, container, documents, work, root)
        path = root / "etc/livepatch/config/livepatch.yaml"
        text = path.read_text().replace("https://s3.example.com:9000", os.environ["LIVEPATCH_TEST_S3"])
        # Two loopback addresses: the same text would be the same listener.
        for port, host in ((8080, "127.0.0.1"), (8081, "127.0.0.1"), (9090, "127.0.0.2")):
            assert f"-address: :{port}\n" in text, text
            text = text.replace(f"-address: :{port}\n", f"-address: {host}:0\n")
        path.write_text(text)
        return environment

    deployment = one("Deployment")["spec"]["template"]["spec"]
    pod = deployment["containers"][0]
    environment = prepare(deployment, pod, "server")
    command = [server, *pod["args"]]
    early = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if early.returncode == 0 or "run `livepatch-server migrate`" not in early.stderr + early.stdout:
        sys.exit(f"before the job the server should have asked for it:\n{early.stderr}{early.stdout}")

    job = one("Job")["spec"]["template"]["spec"]
    for container in job["initContainers"] + job["containers"]:
        subprocess.run([server, *container["args"]], env=prepare(job, container, container["name"]), check=True, stdout=subprocess.DEVNULL, timeout=60)

    log = work / "run.log"
    with open(log, "w") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        said = serving(log, process)
        addresses = {"clients": said["address"], "admin": said["admin"], "ops": said["operations"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            http = pod[probe]["httpGet"]
            status = get(addresses[http["port"]], http["path"])
            if status != 200:
                sys.exit(f"{probe}: {http['path']} answers {status}")
        for port in ("clients", "admin"):
            for path in ("/readyz", "/metrics"):
                if (status := get(addresses[port], path)) != 404:
                    sys.exit(f"{path} on port {port} answers {status}")
        if (status := get(addresses["ops"], "/metrics")) != 200:
            sys.exit(f"/metrics answers {status}")
        test = next(document for document in documents if document["kind"] == "Pod")["spec"]["containers"][0]
        arguments = [f"--url=http://{addresses['ops']}" if a.startswith("--url=") else a for a in test["args"]]
        subprocess.run([server, *arguments], env={"PATH": os.environ["PATH"]}, check=True, stdout=subprocess.DEVNULL, timeout=90)
        process.send_signal(signal.SIGTERM)
        status = process.wait(timeout=deployment["terminationGracePeriodSeconds"])
        if status != 0:
            sys.exit(f"the server stopped with {status}:\n{log.read_text()}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def main():
    what, file, server, work = sys.argv[1:]
    {"check": check, "run": run}[what](pathlib.Path(file), server, pathlib.Path(work))


main()
