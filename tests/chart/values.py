"""The chart's values: their page, and whether everything that lists them lists the same.

  values.py readme CHART         prints README.md, made from the comments in values.yaml
  values.py keys CHART SERVER    compares values.yaml, values.schema.json, templates and the keys of the server
"""
import json
import pathlib
import re
import subprocess
import sys

import yaml

INTRO = """# livepatch-onprem

<!-- Made from values.yaml by tests/chart/values.py. Do not edit; run `UPDATE_GOLDEN=1 tests/chart.sh`. -->

A Helm chart for [livepatch-onprem](../../README.md), an open, on-premises distribution server for Ubuntu kernel live
patches. How to install, secure, upgrade and watch it: [Kubernetes](../../docs/how-to/kubernetes.md).

```
kubectl create namespace livepatch
kubectl -n livepatch create secret generic livepatch-database \\
  --from-literal=database.connection-string='postgresql://livepatch:...@db.example.com/livepatch?sslmode=verify-full'
helm install livepatch charts/livepatch-onprem -n livepatch -f my-values.yaml
```

Unknown values and values that contradict each other are refused, with what to do instead. Kubernetes 1.30 or newer.
"""

# Paths that the chart gives itself, or that lie on volumes of the operator's.
NOT_FILES = {
    "ingest.spool-directory",
    "patch-storage.filesystem-path",
    "patch-sync.directory",
    "patch-sync.downloader-tarballs",
    "server.tls.certificate",
    "server.tls.key",
}


def entries(text):
    """(section, key, default as written, comment) of every value; those with a comment-less default are reported."""
    section, comment, path = "Names and image", [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            comment = []
        elif line.startswith("# --- "):
            section = line[6:].strip()
        elif line.lstrip().startswith("#"):
            comment.append(line.strip().lstrip("# "))
        else:
            found = re.fullmatch(r"( *)([A-Za-z0-9]+):(?: (.*))?", line)
            if not found:
                sys.exit(f"values.yaml:{number}: not `key: value` on one line, which the page is made from")
            path = path[: len(found[1]) // 2] + [found[2]]
            if found[3] is not None:
                if not comment:
                    sys.exit(f"values.yaml:{number}: {'.'.join(path)} has no comment above it")
                yield section, ".".join(path), found[3], " ".join(comment)
            comment = []


def readme(chart):
    print(INTRO, end="")
    last = None
    for section, key, default, comment in entries((chart / "values.yaml").read_text()):
        if section != last:
            print(f"\n## {section}\n\n| value | default | |\n|---|---|---|")
            last = section
        print(f"| `{key}` | `{default}` | {comment.replace('|', chr(92) + '|')} |")


def leaves(tree, schema, prefix=()):
    """Paths of values, as deep as the schema names them."""
    for key, value in tree.items():
        below = schema.get("properties", {}).get(key, {})
        if isinstance(value, dict) and value and below.get("properties"):
            yield from leaves(value, below, (*prefix, key))
        else:
            yield ".".join((*prefix, key))


def schema_leaves(schema, prefix=()):
    for key, below in schema["properties"].items():
        if below.get("properties") and key not in ("secrets", "files", "affinity"):
            yield from schema_leaves(below, (*prefix, key))
        else:
            yield ".".join((*prefix, key))


def open_objects(schema, path=""):
    """Objects in the schema that take unknown keys without saying of what kind."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            yield path
        for key, below in schema.items():
            yield from open_objects(below, f"{path}/{key}")


def same(what, one, other):
    one, other = set(one), set(other)
    if one != other:
        sys.exit(f"{what}: only in the first {sorted(one - other)}, only in the second {sorted(other - one)}")
    if not one:
        sys.exit(f"{what}: nothing was found")


def keys(chart, server):
    text = (chart / "values.yaml").read_text()
    values = yaml.safe_load(text)
    schema = json.loads((chart / "values.schema.json").read_text())
    same("values.yaml and values.schema.json", leaves(values, schema), set(schema_leaves(schema)) - {"global"})
    documented = {key for _, key, _, _ in entries(text)}
    same("values.yaml as read for the page and as YAML", documented, leaves(values, schema))
    for path in open_objects(schema):
        sys.exit(f"values.schema.json: {path} takes unknown keys")

    table = subprocess.run([server, "config", "keys"], capture_output=True, text=True, check=True).stdout
    kinds = {}
    for line in table.splitlines():
        found = re.match(r" (\S+) {2,}(secret|path)\b(?! *of)", line)
        if found:
            used = not re.search(r"\((ignored|refused|not in this version): ", line)
            kinds[found[1]] = (found[2], used)
    secrets = {key for key, (kind, _) in kinds.items() if kind == "secret"}
    helper = (chart / "templates/_config.tpl").read_text()
    block = re.search(r'define "livepatch.secretKeys" -}}\n(.*?){{- end', helper, re.S)[1]
    same("the server's secrets and livepatch.secretKeys", secrets, yaml.safe_load(block))
    used = {key for key in secrets if kinds[key][1]}
    same("the server's secrets in use and the schema's", used, schema["properties"]["secrets"]["properties"])
    files = {key for key, (kind, _) in kinds.items() if kind == "path"} - NOT_FILES
    same("the server's files and the schema's", files, schema["properties"]["files"]["properties"])


def main():
    what, chart = sys.argv[1], pathlib.Path(sys.argv[2])
    if what == "readme":
        readme(chart)
    else:
        keys(chart, sys.argv[3])


main()
