//! What is given to operators for monitoring holds together: rules, dashboards and pages speak only of metrics that exist, and each alert has
//! a page and tests. That the queries find something is shown by `tests/monitoring.sh`.

use livepatch_onprem::telemetry::Metrics;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CHART: &str = "charts/livepatch-onprem";
const PAGES: &str = "docs/how-to/runbooks";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files of a folder, relative to the root.
fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(root().join(dir))
        .unwrap()
        .map(|entry| Path::new(dir).join(entry.unwrap().file_name()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "nothing in {dir}");
    found
}

/// Rules of a file of rules.
fn rules(name: &str) -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&read(format!("{CHART}/rules/{name}"))).unwrap();
    let groups = file["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Alerts with the page that each names.
fn alerts() -> BTreeMap<String, String> {
    let mut alerts = BTreeMap::new();
    for rule in rules("livepatch.alerts.yaml") {
        let name = text(&rule, "alert").to_owned();
        let severity = text(&rule["labels"], "severity");
        assert!(["page", "ticket"].contains(&severity), "{name}: {severity}");
        let summary = text(&rule["annotations"], "summary");
        assert!(summary.ends_with('.') && summary.len() > 20, "{name}");
        let page = text(&rule["annotations"], "runbook").to_owned();
        let before = alerts.insert(name.clone(), page.clone());
        assert!(before.is_none_or(|before| before == page), "{name}");
    }
    assert!(alerts.len() > 15, "only {} alerts", alerts.len());
    alerts
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let alerts = alerts();
    let mut pages = BTreeSet::new();
    for (alert, page) in &alerts {
        let page_text = read(page);
        assert!(page_text.starts_with(&format!("# {alert}\n")), "{page}");
        for heading in [
            "## What it means",
            "## What to look at",
            "## When to stop worrying",
        ] {
            assert!(page_text.contains(heading), "{page} has no `{heading}`");
        }
        pages.insert(PathBuf::from(page));
    }
    let there: BTreeSet<PathBuf> = files(PAGES, "md").into_iter().collect();
    assert_eq!(pages, there);
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire() {
    let mut tested: BTreeMap<String, BTreeSet<bool>> = BTreeMap::new();
    for file in files("tests/rules", "yaml") {
        let file: Value = serde_saphyr::from_str(&read(file)).unwrap();
        for test in file["tests"].as_array().unwrap() {
            for case in test["alert_rule_test"].as_array().unwrap() {
                let fires = !case["exp_alerts"].as_array().unwrap().is_empty();
                let alert = text(case, "alertname").to_owned();
                tested.entry(alert).or_default().insert(fires);
            }
        }
    }
    for alert in alerts().keys() {
        let seen = tested.get(alert).map_or(0, BTreeSet::len);
        assert_eq!(seen, 2, "{alert}: {:?}", tested.get(alert));
    }
    assert_eq!(tested.len(), alerts().len());
}

/// Words that could be names of metrics or of recorded series.
fn names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .map(|word| word.trim_matches(':'))
        .filter(|word| word.starts_with("livepatch_") || word.contains(":livepatch_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn only_metrics_that_exist_are_spoken_of() {
    let mut known = BTreeSet::new();
    for metric in Metrics::new().described() {
        if metric.kind == "histogram" {
            for part in ["_bucket", "_sum", "_count"] {
                known.insert(format!("{}{part}", metric.name));
            }
        }
        known.insert(metric.name);
    }
    let recorded: BTreeSet<String> = rules("livepatch.rules.yaml")
        .iter()
        .map(|rule| text(rule, "record").to_owned())
        .collect();
    assert!(recorded.len() > 5);
    known.extend(recorded.iter().cloned());

    let mut spoken: Vec<PathBuf> = files(&format!("{CHART}/rules"), "yaml");
    spoken.extend(files(&format!("{CHART}/dashboards"), "json"));
    spoken.extend(files(PAGES, "md"));
    spoken.extend(files("docs/how-to", "md"));
    spoken.extend(files("docs/explanation", "md"));
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for path in spoken {
        for name in names(&read(&path)) {
            // The program's own name, in log filters.
            let is_program = name.starts_with("livepatch_onprem");
            if !is_program && !known.contains(&name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
            seen.insert(name);
        }
    }
    assert!(
        wrong.is_empty(),
        "there are no such metrics:\n{}",
        wrong.join("\n")
    );
    assert!(seen.len() > 60, "only {} names found", seen.len());
    let unused: Vec<_> = recorded.difference(&seen).collect();
    assert!(unused.is_empty(), "recorded, and never used: {unused:?}");
}

#[test]
fn dashboards_are_complete() {
    let mut uids = BTreeSet::new();
    for path in files(&format!("{CHART}/dashboards"), "json") {
        let board: Value = serde_json::from_str(&read(&path)).unwrap();
        let at = path.display();
        assert!(uids.insert(text(&board, "uid").to_owned()), "{at}");
        let variables: Vec<&str> = board["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| text(variable, "name"))
            .collect();
        assert_eq!(variables, ["datasource", "job"], "{at}");
        let (mut ids, mut queries) = (BTreeSet::new(), 0);
        for panel in board["panels"].as_array().unwrap() {
            let title = text(panel, "title");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{at}: {title}");
            if text(panel, "type") == "row" {
                continue;
            }
            assert!(text(panel, "description").ends_with('.'), "{at}: {title}");
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(!text(defaults, "unit").is_empty(), "{at}: {title}");
            for target in panel["targets"].as_array().unwrap() {
                queries += 1;
                // Whoever imports it chooses the source.
                assert_eq!(text(&target["datasource"], "uid"), "${datasource}");
                assert!(
                    text(target, "expr").contains(r#"job=~"$job""#),
                    "{at}: {title}"
                );
            }
        }
        assert!(queries >= 10, "{at}: only {queries} queries");
    }
    assert_eq!(uids.len(), 3);
}
