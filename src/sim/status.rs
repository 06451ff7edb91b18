//! What the client says of its machine: as a document for servers and programs, and as lines for people.

use super::facts::Facts;
use super::state::ClientState;
use crate::domain::{KernelSupport, MachineState};
use crate::wire::{LivepatchStatus, StatusDocument, StatusEntry, StatusFix};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write;

/// How `status` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Human,
    /// The JSON document of Canonical's client 11.
    Json,
    /// The older YAML document.
    Yaml,
}

/// The status document of an enabled machine.
pub fn document(state: &ClientState, facts: &Facts) -> StatusDocument {
    let applied = state.patch_state() == MachineState::Applied;
    let patch = state.patch.as_ref();
    let fixes = patch.map(|patch| {
        let fix = |fix: &crate::domain::Fix| StatusFix {
            name: fix.name.clone(),
            description: fix.description.clone(),
            bug: fix.bug.clone(),
            patched: applied,
        };
        patch.fixes.iter().map(fix).collect()
    });
    StatusDocument {
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine_id: facts.machine_id,
        architecture: facts.architecture,
        cpu_model: facts.cpu_model.clone(),
        last_check: state.last_check,
        boot_time: facts.boot_time,
        uptime: facts.uptime.to_string(),
        status: vec![StatusEntry {
            kernel: facts.kernel.to_string(),
            running: true,
            livepatch: LivepatchStatus {
                check_state: state.check_state().to_owned(),
                state: state.patch_state().to_string(),
                version: patch.map(|p| p.version.to_string()).unwrap_or_default(),
                fixes: fixes.unwrap_or_default(),
            },
            supported: state.supported,
            upgrade_required_date: state.upgrade_required_date,
        }],
        tier: Some(state.tier.clone()),
        auth_token: None,
        kernel_build_date: facts.build_date,
    }
}

/// The document of a machine that is about to register: nothing is known of patches yet.
pub fn first_document(facts: &Facts) -> StatusDocument {
    StatusDocument {
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        machine_id: facts.machine_id,
        architecture: facts.architecture,
        cpu_model: facts.cpu_model.clone(),
        last_check: None,
        boot_time: facts.boot_time,
        uptime: facts.uptime.to_string(),
        status: vec![StatusEntry {
            kernel: facts.kernel.to_string(),
            running: true,
            livepatch: LivepatchStatus {
                check_state: "needs-check".to_owned(),
                state: MachineState::NeedsCheck.to_string(),
                version: String::new(),
                fixes: Vec::new(),
            },
            supported: None,
            upgrade_required_date: None,
        }],
        tier: None,
        auth_token: None,
        kernel_build_date: facts.build_date,
    }
}

/// Whether `after` tells a server something that `before` did not: another patch or state, or a check that failed.
pub fn is_news(before: &StatusDocument, after: &StatusDocument) -> bool {
    let facts = |document: &StatusDocument| -> Vec<(String, String, bool)> {
        let entry = |e: &StatusEntry| {
            let patch = &e.livepatch;
            (
                patch.state.clone(),
                patch.version.clone(),
                patch.check_state == "check-failed",
            )
        };
        document.status.iter().map(entry).collect()
    };
    let quiet = |state: &str| {
        matches!(
            state,
            "needs-check" | "nothing-to-apply" | "kernel-upgrade-required"
        )
    };
    let idle = |document: &StatusDocument| {
        document
            .status
            .iter()
            .all(|e| quiet(&e.livepatch.state) && e.livepatch.check_state != "check-failed")
    };
    facts(before) != facts(after) && !(idle(before) && idle(after))
}

/// The document as JSON.
pub fn json(document: &StatusDocument) -> Result<String, String> {
    serde_json::to_string_pretty(document).map_err(|e| e.to_string())
}

/// The older document, whose keys are public. Its `machine-token` is left out: a status is made to be shown.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct OldDocument<'a> {
    client_version: &'a str,
    machine_id: String,
    architecture: &'a str,
    cpu_model: &'a str,
    last_check: Option<Timestamp>,
    boot_time: Option<Timestamp>,
    uptime: &'a str,
    status: Vec<OldEntry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'a str>,
}

#[derive(Serialize)]
struct OldEntry<'a> {
    kernel: &'a str,
    running: bool,
    livepatch: OldLivepatch<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OldLivepatch<'a> {
    check_state: &'a str,
    patch_state: &'a str,
    version: &'a str,
    fixes: String,
}

/// The older document as YAML.
pub fn yaml(document: &StatusDocument) -> Result<String, String> {
    let fixes = |e: &StatusEntry| {
        e.livepatch
            .fixes
            .iter()
            .fold(String::new(), |mut text, fix| {
                let _ = writeln!(text, "* {}", fix.name);
                text
            })
    };
    let old = OldDocument {
        client_version: &document.client_version,
        machine_id: document.machine_id.to_string(),
        architecture: document.architecture.as_str(),
        cpu_model: &document.cpu_model,
        last_check: document.last_check,
        boot_time: document.boot_time,
        uptime: &document.uptime,
        status: document
            .status
            .iter()
            .map(|e| OldEntry {
                kernel: &e.kernel,
                running: e.running,
                livepatch: OldLivepatch {
                    check_state: &e.livepatch.check_state,
                    patch_state: &e.livepatch.state,
                    version: &e.livepatch.version,
                    fixes: fixes(e),
                },
            })
            .collect(),
        tier: document.tier.as_ref().map(crate::domain::TierName::as_str),
    };
    serde_saphyr::to_string(&old).map_err(|e| e.to_string())
}

/// The state as lines for people. `document` is that of `state`.
pub fn human(state: &ClientState, document: &StatusDocument) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", format!("{name:<16} {value}").trim_end());
    };
    line("server", &state.server);
    line(
        "machine",
        &format!("{} ({})", document.machine_id, document.architecture),
    );
    line("tier", state.tier.as_str());
    for entry in &document.status {
        line("kernel", &entry.kernel);
        let until = entry
            .upgrade_required_date
            .map(|day| format!(", upgrade it by {day}"))
            .unwrap_or_default();
        let support = entry
            .supported
            .map_or("not known yet", KernelSupport::as_str);
        line("kernel support", &format!("{support}{until}"));
        let patch = &entry.livepatch;
        let mut words = patch.state.clone();
        if let Some(held) = &state.patch {
            let _ = write!(words, " ({})", held.version);
            if held.assumed {
                words.push_str(", assumed for a simulated machine: nothing was inserted");
            }
        }
        line("patch state", &words);
        if let Some(held) = &state.patch {
            line(
                "module",
                &format!("{} in {}", held.module_name, held.module_file),
            );
            line(
                "signed by",
                held.signer
                    .as_deref()
                    .unwrap_or("NOT CHECKED (--insecure-skip-signature)"),
            );
        }
        for fix in &patch.fixes {
            line(
                if fix.patched { "fixed" } else { "would fix" },
                &format!("{} {}", fix.name, fix.description),
            );
        }
    }
    let last = state
        .last_check
        .map_or_else(|| "never".to_owned(), |time| time.to_string());
    line(
        "last check",
        &format!("{last}, every {} minutes", state.check_interval),
    );
    if let Some(error) = &state.check_error {
        line("check failed", error);
    }
    for (at, reason) in state.reasons.iter().enumerate() {
        line(if at == 0 { "because" } else { "" }, &reason.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_news() {
        let facts = Facts::gather(&crate::sim::facts::Given {
            machine_id: Some(crate::domain::MachineId([1; 16])),
            kernel: Some("5.15.0-107.117-generic".parse().unwrap()),
            architecture: Some(crate::domain::Architecture::Amd64),
            build_date: None,
        })
        .unwrap();
        let of = |state: &str, version: &str, check: &str| {
            let mut document = first_document(&facts);
            let patch = &mut document.status[0].livepatch;
            patch.state = state.to_owned();
            patch.version = version.to_owned();
            patch.check_state = check.to_owned();
            document
        };
        let first = of("needs-check", "", "needs-check");
        let nothing = of("nothing-to-apply", "", "checked");
        let applied = of("applied", "107.1", "checked");
        assert!(!is_news(&first, &nothing));
        assert!(is_news(&nothing, &applied));
        assert!(is_news(&first, &of("needs-check", "", "check-failed")));
        assert!(is_news(&applied, &of("applied", "108.1", "checked")));
        assert!(!is_news(&applied, &applied));
    }
}
