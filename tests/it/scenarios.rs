//! Scenarios of the engine: `tests/scenarios/NAME.yaml` says what is given, `NAME.transcript` what must come of it, line by line.
//! `UPDATE_SCENARIOS=1` writes the transcripts anew; read what changed before it is committed.

use livepatch_onprem::domain::policy::{Policy, Share, Span, Zone};
use livepatch_onprem::rollout::simulate::{Outcome, Scenario, simulate};
use livepatch_onprem::wire::admin::PolicySpec;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Given {
    policy: Option<PolicySpec>,
    machines: u32,
    #[serde(default)]
    interval: Option<String>,
    #[serde(default)]
    fault: Option<String>,
    #[serde(default)]
    start: Option<String>,
    #[serde(default)]
    limit: Option<String>,
}

fn scenario(given: &Given) -> Scenario {
    let span = |text: &Option<String>, otherwise: &str| -> Span {
        text.as_deref().unwrap_or(otherwise).parse().unwrap()
    };
    let start = given.start.as_deref().unwrap_or("2026-11-27T08:00:00Z");
    let policy: Option<Policy> = given.policy.as_ref().map(|spec| spec.read().unwrap());
    let scenario = Scenario {
        policy,
        machines: given.machines,
        interval: span(&given.interval, "1h"),
        version: "107.1".parse().unwrap(),
        fault: given.fault.as_deref().map(|text| text.parse().unwrap()),
        start: start.parse().unwrap(),
        limit: span(&given.limit, "30d"),
        noticed_after: span(&None, "90m"),
    };
    if let Some(policy) = &scenario.policy {
        assert_eq!(policy.problems(scenario.start, scenario.interval), []);
    }
    scenario
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn run(path: &Path) -> (Outcome, String) {
    let text = std::fs::read_to_string(path).unwrap();
    let given: Given = serde_saphyr::from_str(&text).unwrap();
    let scenario = scenario(&given);
    let zone = scenario
        .policy
        .as_ref()
        .map_or_else(Zone::default, |policy| policy.schedule.zone.clone());
    let outcome = simulate(&scenario);
    let transcript = outcome.transcript(&zone);
    (outcome, transcript)
}

#[test]
fn scenarios_go_as_their_transcripts_say() {
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let (_, transcript) = run(&path);
        let golden = path.with_extension("transcript");
        if update {
            std::fs::write(&golden, &transcript).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if transcript != expected {
            wrong.push(format!(
                "{}:\n{transcript}\nexpected:\n{expected}",
                path.display()
            ));
        }
    }
    assert!(seen >= 10, "only {seen} scenarios");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What the documents promise: a patch that fails on 2% of 100,000 machines reaches less than a hundredth of them.
#[test]
fn a_bad_patch_reaches_less_than_a_hundredth() {
    for name in ["bad-patch", "silent-machines"] {
        let (outcome, transcript) = run(&folder().join(format!("{name}.yaml")));
        assert!(outcome.halted, "{transcript}");
        assert!(
            !Share::percent(1).exceeded(outcome.offered, outcome.machines),
            "{transcript}"
        );
    }
    let (by_hand, _) = run(&folder().join("bad-patch-by-hand.yaml"));
    assert_eq!(by_hand.offered, by_hand.machines);
}
