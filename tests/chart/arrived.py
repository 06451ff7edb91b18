"""Rules and dashboards of a chart's folder are all in what was rendered of it, unchanged.

  arrived.py CHART FILE
"""
import json
import pathlib
import sys

import yaml

chart, rendered = pathlib.Path(sys.argv[1]), sys.argv[2]
with open(rendered) as file:
    documents = [document for document in yaml.safe_load_all(file) if document]

rules = [yaml.safe_load(path.read_text())["groups"] for path in sorted(chart.glob("rules/*.yaml"))]
arrived = [document["spec"]["groups"] for document in documents if document["kind"] == "PrometheusRule"]
in_order = lambda files: sorted(json.dumps(groups, sort_keys=True) for groups in files)
if in_order(rules) != in_order(arrived):
    sys.exit(f"{chart}: the rules differ from what was rendered of them")

boards = {f"livepatch-{path.name}": json.loads(path.read_text()) for path in chart.glob("dashboards/*.json")}
found = {}
for document in documents:
    if document["kind"] == "ConfigMap" and "grafana_dashboard" in document["metadata"]["labels"]:
        found.update({name: json.loads(text) for name, text in document["data"].items()})
if boards != found:
    sys.exit(f"{chart}: the dashboards {sorted(boards)} differ from what was rendered of them, {sorted(found)}")
print(f"{len(rules)} files of rules, {len(boards)} dashboards")
