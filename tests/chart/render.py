"""What tests/chart.sh asks of a rendered chart.

  render.py native FILE OUT    writes the objects whose kinds Kubernetes' own schemas know
  render.py whole FILE VALUES  objects refer only to what is there, and pods have no more rights than they need
"""
import sys

import yaml

# Kinds of others: Kubernetes' schemas do not have them. Anything else without a schema is a mistake.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "HTTPRoute"}


def load(path):
    with open(path) as file:
        return [document for document in yaml.safe_load_all(file) if document]


def strings(tree):
    """Every text in a tree."""
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list):
        yield str(tree)
        return
    for child in tree:
        yield from strings(child)


def pod_of(document):
    """Labels and spec of the pods that an object makes, if it makes any."""
    if document["kind"] == "Pod":
        return document["metadata"]["labels"], document["spec"]
    template = document.get("spec", {}).get("template")
    return (template["metadata"]["labels"], template["spec"]) if template else None


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def hook(document):
    """(events, weight) of a hook, or None."""
    annotations = document["metadata"].get("annotations") or {}
    if "helm.sh/hook" not in annotations:
        return None
    return set(annotations["helm.sh/hook"].split(",")), int(annotations.get("helm.sh/hook-weight", 0))


class Whole:
    def __init__(self, documents, values):
        self.documents = documents
        self.values = values
        self.given = set(strings(values))
        self.wrong = []
        self.looked = 0

    def expect(self, holds, where, message):
        self.looked += 1
        if not holds:
            self.wrong.append(f"{where['kind']}/{where['metadata']['name']}: {message}")

    def of(self, kind):
        return [document for document in self.documents if document["kind"] == kind]

    def run(self):
        names = [(document["kind"], document["metadata"]["name"]) for document in self.documents]
        for document in self.documents:
            key = (document["kind"], document["metadata"]["name"])
            self.expect(names.count(key) == 1, document, "is there twice")
            labels = document["metadata"]["labels"]
            self.expect(labels["app.kubernetes.io/part-of"] == "livepatch-onprem", document, "has no label of the chart")
            pod = pod_of(document)
            if pod:
                self.rights(document, pod[1])
                self.references(document, pod[1])
                selector = document["spec"].get("selector")
                if selector:
                    self.expect(matches(selector["matchLabels"], pod[0]), document, "does not select its own pods")
        self.network()
        password = self.values.get("developmentPostgresql", {}).get("password")
        for document in self.documents:
            told = password and document["kind"] != "Secret" and any(password in text for text in strings(document))
            self.expect(not told, document, "holds the password of the development PostgreSQL")
        return self.wrong

    def rights(self, owner, spec):
        """The restricted Pod Security Standard, and more."""
        context = spec["securityContext"]
        self.expect(context.get("runAsNonRoot") is True, owner, "may run as root")
        self.expect(context.get("runAsUser") != 0, owner, "runs as root")
        self.expect(context.get("seccompProfile") == {"type": "RuntimeDefault"}, owner, "has no seccomp profile")
        self.expect(spec.get("automountServiceAccountToken") is False, owner, "has a token of the cluster")
        self.expect(spec.get("enableServiceLinks") is False, owner, "gets variables of services")
        for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
            self.expect(not spec.get(forbidden), owner, f"has {forbidden}")
        allowed = {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim"}
        for volume in spec.get("volumes", []):
            self.expect(set(volume) - {"name"} <= allowed, owner, f"volume {volume['name']} is of another kind")
        for container in containers(spec):
            own = container["securityContext"]
            name = container["name"]
            self.expect(own.get("allowPrivilegeEscalation") is False, owner, f"{name} may get more rights")
            self.expect(own.get("readOnlyRootFilesystem") is True, owner, f"{name} may write to its image")
            self.expect(own.get("capabilities") == {"drop": ["ALL"]}, owner, f"{name} has capabilities")
            self.expect("limits" in container.get("resources", {}), owner, f"{name} has no limits")
            self.expect(":" in container["image"].rsplit("/", 1)[-1], owner, f"{name} has an image without tag or digest")
            ports = [port["name"] for port in container.get("ports", [])]
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                http = container.get(probe, {}).get("httpGet")
                if http:
                    self.expect(http["port"] in ports, owner, f"{probe} asks on a port that is not there")
                    self.expect(http["path"] in ("/livez", "/readyz"), owner, f"{probe} asks for {http['path']}")

    def references(self, owner, spec):
        volumes = [volume["name"] for volume in spec.get("volumes", [])]
        volumes += [claim["metadata"]["name"] for claim in owner["spec"].get("volumeClaimTemplates", [])]
        mounted = {mount["name"] for container in containers(spec) for mount in container.get("volumeMounts", [])}
        self.expect(len(volumes) == len(set(volumes)), owner, "has a volume twice")
        self.expect(set(volumes) == mounted, owner, f"volumes {sorted(volumes)} and mounts {sorted(mounted)} differ")
        for container in containers(spec):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            self.expect(len(paths) == len(set(paths)), owner, "mounts two volumes in one place")
        if "serviceAccountName" in spec:
            self.there(owner, "ServiceAccount", spec["serviceAccountName"])
        for volume in spec.get("volumes", []):
            for source in volume.get("projected", {}).get("sources", [volume]):
                if "configMap" in source:
                    data = self.there(owner, "ConfigMap", source["configMap"]["name"])
                    for item in source["configMap"].get("items", []):
                        self.expect(data is None or item["key"] in data["data"], owner, f"{item['key']} is not in the ConfigMap")
                if "secret" in source:
                    self.there(owner, "Secret", source["secret"].get("name") or source["secret"]["secretName"])
            if "persistentVolumeClaim" in volume:
                self.there(owner, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])

    def there(self, owner, kind, name):
        """What an object needs is of the chart and there in time, or named in the values."""
        found = [document for document in self.of(kind) if document["metadata"]["name"] == name]
        if not found:
            named = name in self.given or (kind, name) == ("ServiceAccount", "default")
            self.expect(named, owner, f"{kind} {name} is neither of the chart nor in the values")
            return None
        before, mine = hook(found[0]), hook(owner)
        if mine and "test" not in mine[0]:
            in_time = before and mine[0] <= before[0] and before[1] < mine[1]
            self.expect(in_time, owner, f"{kind} {name} is not there yet when this hook runs")
        else:
            self.expect(before is None, owner, f"{kind} {name} is a hook's and goes with it")
        return found[0]

    def network(self):
        pods = [(document, *pod_of(document)) for document in self.documents if pod_of(document)]
        ports = lambda spec: {port["name"]: port["containerPort"] for container in containers(spec) for port in container.get("ports", [])}
        served = {}
        for service in self.of("Service"):
            chosen = [spec for _, labels, spec in pods if matches(service["spec"]["selector"], labels)]
            self.expect(len(chosen) == 1, service, f"selects the pods of {len(chosen)} objects")
            for port in service["spec"]["ports"]:
                self.expect(all(port["targetPort"] in ports(spec) for spec in chosen), service, f"port {port['name']} leads nowhere")
                served[service["metadata"]["name"], port["name"]] = served[service["metadata"]["name"], port["port"]] = service
        for ingress in self.of("Ingress"):
            for rule in ingress["spec"]["rules"]:
                for path in rule["http"]["paths"]:
                    backend = path["backend"]["service"]
                    self.expect((backend["name"], backend["port"]["name"]) in served, ingress, f"{backend} is not there")
        for route in self.of("HTTPRoute"):
            for backend in route["spec"]["rules"][0]["backendRefs"]:
                self.expect((backend["name"], backend["port"]) in served, route, f"{backend} is not there")
        for monitor in self.of("ServiceMonitor"):
            chosen = [s for s in self.of("Service") if matches(monitor["spec"]["selector"]["matchLabels"], s["metadata"]["labels"])]
            self.expect(len(chosen) == 1, monitor, f"selects {len(chosen)} services")
            for endpoint in monitor["spec"]["endpoints"]:
                self.expect((chosen[0]["metadata"]["name"], endpoint["port"]) in served, monitor, f"{endpoint['port']} is not there")
        for budget in self.of("PodDisruptionBudget"):
            chosen = [1 for _, labels, _ in pods if matches(budget["spec"]["selector"]["matchLabels"], labels)]
            self.expect(len(chosen) == 1, budget, f"selects the pods of {len(chosen)} objects")
        for scaler in self.of("HorizontalPodAutoscaler"):
            target = scaler["spec"]["scaleTargetRef"]
            found = [d for d in self.of(target["kind"]) if d["metadata"]["name"] == target["name"]]
            self.expect(len(found) == 1 and "replicas" not in found[0]["spec"], scaler, "its target is not there, or has a fixed number")
        policies = self.of("NetworkPolicy")
        for policy in policies:
            self.expect(policy["spec"]["policyTypes"] == ["Ingress", "Egress"], policy, "leaves a direction open")
        if policies:
            for owner, labels, spec in pods:
                mine = [p for p in policies if matches(p["spec"]["podSelector"]["matchLabels"], labels)]
                self.expect(len(mine) == 1, owner, f"is selected by {len(mine)} network policies")
                let_in = {port["port"] for rule in mine[0]["spec"].get("ingress", []) for port in rule["ports"]}
                self.expect(let_in == set(ports(spec)), owner, f"has ports {sorted(ports(spec))}, and {sorted(let_in)} are let in")


def matches(selector, labels):
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def main():
    what, path, other = sys.argv[1:]
    documents = load(path)
    if what == "native":
        with open(other, "w") as file:
            yaml.safe_dump_all([d for d in documents if d["kind"] not in FOREIGN], file)
        return
    whole = Whole(documents, load(other)[0])
    for wrong in whole.run():
        print(f"{path}: {wrong}", file=sys.stderr)
    if whole.wrong or whole.looked < 50:
        sys.exit(f"{path}: {len(whole.wrong)} of {whole.looked} expectations do not hold")


main()
