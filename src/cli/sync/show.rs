//! What is printed of sync: runs, reports, status, filters, and what waits.

use crate::cli::output::{
    Row, Show, View, blocks, bytes, count, flag, properties, rows, some, text, titled, word,
};
use crate::domain::TierName;
use crate::wire::admin::{
    FilterChange, FilterSide, SyncFilter, SyncFilters, SyncItem, SyncPending, SyncReport, SyncRun,
    SyncSkipped, SyncStatus,
};
use std::time::Duration;

impl Row for SyncRun {
    const HEADER: &'static [&'static str] = &[
        "id",
        "cause",
        "state",
        "added",
        "quarantined",
        "fetched",
        "by",
        "started",
        "finished",
        "why",
    ];
    const NONE: &'static str = "Nothing was fetched yet.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.cause.clone(),
            word(&self.state),
            self.added.to_string(),
            self.quarantined.to_string(),
            bytes(self.progress.bytes),
            self.actor.clone(),
            view.some_time(self.started_at),
            view.some_time(self.finished_at),
            some(self.code.as_ref()),
        ]
    }
}

impl Show for SyncRun {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Run", self.id.to_string()),
                ("From", self.upstream.clone()),
                ("Cause", self.cause.clone()),
                ("State", word(&self.state)),
                ("Why", some(self.error.as_ref())),
                ("Fetched", bytes(self.progress.bytes)),
                ("By", self.actor.clone()),
                ("Asked for", view.time(self.queued_at)),
                ("Started", view.some_time(self.started_at)),
                ("Finished", view.some_time(self.finished_at)),
            ],
            view,
        )
    }
}

impl Row for SyncItem {
    const HEADER: &'static [&'static str] = &["file", "result", "size", "reason"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.filename.clone(),
            word(&self.result),
            bytes(self.bytes),
            text(&self.reason),
        ]
    }
}

impl Row for SyncSkipped {
    const HEADER: &'static [&'static str] = &["filter", "payloads", "such as"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.filter.clone(),
            self.payloads.to_string(),
            some(self.names.first()),
        ]
    }
}

fn side(title: &str, side: &FilterSide) -> String {
    if side.payloads == 0 {
        return format!("{title}: nothing");
    }
    let mut lines = side.names.join("\n");
    let named = side.names.len() as u64;
    if side.payloads > named {
        lines = format!("{lines}\nand {} more", side.payloads - named);
    }
    let payloads = count(side.payloads, "payload", "payloads");
    let head = format!("{title}: {payloads}, {}", bytes(side.bytes));
    titled(&head, &lines)
}

fn change(change: &FilterChange) -> String {
    blocks([
        side("Adds", &change.adds),
        side("Drops (kept until `storage prune`)", &change.drops),
    ])
}

impl Show for SyncReport {
    fn show(&self, view: &View) -> String {
        let outcome = &self.outcome;
        let number = |n: u64| {
            if n == 0 {
                "-".to_owned()
            } else {
                n.to_string()
            }
        };
        let new: Vec<String> = outcome
            .new_patches
            .iter()
            .map(ToString::to_string)
            .collect();
        let counts = properties(
            [
                ("Upstream has", outcome.offered.to_string()),
                ("Here before", outcome.there.to_string()),
                ("Fetched by an earlier run", number(outcome.resumed)),
                ("Fetched", outcome.fetched.to_string()),
                ("Added", outcome.added.to_string()),
                ("Mended", number(outcome.healed)),
                ("Quarantined", number(outcome.quarantined)),
                (
                    "In quarantine from before",
                    number(outcome.quarantined_before),
                ),
                ("Withdrawn, now held", number(outcome.withdrawn)),
                ("There again, not held", number(outcome.returned)),
                ("Blocks taken over", number(outcome.blocks_placed)),
                ("Blocks lifted", number(outcome.blocks_lifted)),
                ("Kernel table replaced", flag(outcome.kernels_changed)),
                ("Tiers changed", flag(outcome.tiers_changed)),
                ("New patches", text(&new.join(" "))),
                ("Seconds", format!("{:.1}", self.seconds)),
            ],
            view,
        );
        let skipped = if outcome.skipped.is_empty() {
            String::new()
        } else {
            titled("Kept out by filters", &rows(&outcome.skipped, view))
        };
        let changed = outcome
            .filter_change
            .as_ref()
            .map(|c| titled("The filters are others than at the last run", &change(c)));
        let items = if self.items.is_empty() {
            String::new()
        } else {
            rows(&self.items, view)
        };
        let left_out = match self.items_left_out {
            0 => String::new(),
            n => format!("{n} more are not named."),
        };
        blocks([
            self.run.show(view),
            counts,
            skipped,
            changed.unwrap_or_default(),
            outcome
                .pending
                .as_ref()
                .map(|p| p.show(view))
                .unwrap_or_default(),
            items,
            left_out,
        ])
    }
}

impl Show for SyncPending {
    fn show(&self, _: &View) -> String {
        let mut parts = Vec::new();
        if let Some(shrink) = &self.shrink {
            let head = format!(
                "Upstream does not have {} of {} payloads any more (limit {}%); they would be held here:",
                shrink.gone, shrink.before, shrink.limit
            );
            parts.push(titled(&head, &shrink.names.join("\n")));
        }
        if let Some(tiers) = &self.tiers {
            let names: Vec<&str> = tiers.tiers.iter().map(TierName::as_str).collect();
            let mut lines = vec![format!("Tiers afterwards: {}", names.join(" "))];
            for gone in &tiers.removed {
                let (machines, auth) = (gone.machines, gone.auth_tokens);
                lines.push(format!(
                    "goes: {} ({}, {}, {})",
                    gone.name,
                    count(machines, "machine", "machines"),
                    count(auth, "auth token", "auth tokens"),
                    count(gone.sync_tokens, "sync token", "sync tokens")
                ));
                if gone.is_used() {
                    lines.push(format!(
                        "  say where they go: sync confirm --move {}=TIER",
                        gone.name
                    ));
                }
            }
            lines.push(format!(
                "promotions: {} come, {} go",
                tiers.promotions_added, tiers.promotions_removed
            ));
            for gone in &tiers.promotions {
                lines.push(format!("goes: {} in {}", gone.version, gone.tier));
            }
            let head = "Tiers and promotions of upstream would take the place of those here:";
            parts.push(titled(head, &lines.join("\n")));
        }
        if self.confirmed {
            parts.push("It is confirmed; the next run goes on.".to_owned());
        }
        if parts.is_empty() {
            parts.push("Nothing waits.".to_owned());
        }
        blocks(parts)
    }
}

fn filter(filter: &SyncFilter) -> String {
    let list = |list: &[String]| text(&list.join(","));
    let parts = [
        ("architectures", list(&filter.architectures)),
        ("flavors", list(&filter.flavors)),
        (
            "minimum-kernel-version",
            text(&filter.minimum_kernel_version),
        ),
        ("kernel-prefixes", list(&filter.kernel_prefixes)),
        ("our-kernels", some(filter.our_kernels)),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, value)| value != "-")
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(" ")
    }
}

fn age(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

impl Show for SyncStatus {
    fn show(&self, view: &View) -> String {
        let index = self.index.as_ref();
        let keys = index.map(|i| {
            let keys: Vec<String> = i.keys.iter().map(ToString::to_string).collect();
            keys.join(" ")
        });
        let head = properties(
            [
                (
                    "Enabled",
                    if self.enabled { "yes" } else { "no" }.to_owned(),
                ),
                ("Driver", self.driver.clone()),
                ("From", self.upstream.clone()),
                (
                    "Leader",
                    some(
                        self.leader
                            .as_ref()
                            .map(|l| format!("{} (epoch {})", l.holder, l.epoch)),
                    ),
                ),
                ("Last success", view.some_time(self.succeeded_at)),
                ("Age", some(self.age.map(age))),
                (
                    "At work",
                    some(
                        self.running
                            .as_ref()
                            .map(|r| format!("run {} ({})", r.id, word(&r.state))),
                    ),
                ),
                (
                    "Last run",
                    some(
                        self.last
                            .as_ref()
                            .map(|r| format!("run {} ({})", r.id, word(&r.state))),
                    ),
                ),
                (
                    "Error",
                    some(self.last.as_ref().and_then(|r| {
                        let code = r.code.as_ref()?;
                        Some(format!(
                            "{code}: {}",
                            r.error.as_deref().unwrap_or_default()
                        ))
                    })),
                ),
                ("Next run", view.some_time(self.next_run)),
                ("Deployment", some(index.map(|i| i.deployment))),
                ("Tier", some(index.map(|i| &i.tier))),
                ("Index version", some(index.map(|i| i.version))),
                ("Index signed", view.some_time(index.map(|i| i.issued_at))),
                ("Keys", some(keys)),
                ("Tiers are upstream's", flag(self.sync_tiers)),
                ("Filters", filter(&self.filter)),
            ],
            view,
        );
        let pending = self.pending.as_ref().map(|pending| {
            let next = "Next: livepatch-admin sync confirm".to_owned();
            blocks([titled("Waits for a person", &pending.show(view)), next])
        });
        blocks([head, pending.unwrap_or_default()])
    }
}

impl Show for SyncFilters {
    fn show(&self, view: &View) -> String {
        let head = properties(
            [
                ("Configured", filter(&self.current)),
                ("Asked about", filter(&self.proposed)),
                ("Upstream has", self.known.to_string()),
            ],
            view,
        );
        blocks([head, change(&self.change)])
    }
}
