"""Lays out the files of each pod of the server in a rendered chart as Kubernetes would, and has the server look at them.

  pods.py FILE SERVER WORK    WORK holds tls.crt and tls.key, and takes the files

The pods' paths are moved below WORK, in the configuration and in the environment alike. Secrets and ConfigMaps that are
not of the chart get made-up contents by the name of the file. Each pod is also looked at without its database's secret,
which has to be noticed.
"""
import os
import pathlib
import subprocess
import sys

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


def main():
    file, server, work = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
    with open(file) as text:
        documents = [document for document in yaml.safe_load_all(text) if document]
    looked = 0
    for document in documents:
        spec = document.get("spec", {}).get("template", {}).get("spec")
        for container in (spec or {}).get("initContainers", []) + (spec or {}).get("containers", []):
            if container.get("command") != ["/usr/bin/livepatch-server"]:
                continue
            root = work / f"{file.name}-{document['kind']}-{container['name']}"
            environment = lay_out(spec, container, documents, work, root)
            check = lambda: subprocess.run([server, "config", "check"], env=environment, capture_output=True, text=True)
            answer = check()
            if answer.returncode != 0:
                sys.exit(f"{file}: the server refuses what {document['kind']} {container['name']} gives it:\n{answer.stderr}{answer.stdout}")
            (root / "etc/livepatch/secrets/database.connection-string").unlink()
            answer = check()
            if answer.returncode == 0 or "LP_DATABASE_CONNECTION_STRING_FILE" not in answer.stderr + answer.stdout:
                sys.exit(f"{file}: the server did not miss the secret of its database:\n{answer.stderr}{answer.stdout}")
            looked += 1
    if not looked:
        sys.exit(f"{file}: there is no pod of the server in it")


main()
