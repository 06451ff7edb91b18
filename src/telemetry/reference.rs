//! The page of all metrics, made from the registry.

use super::family::Described;
use super::metrics::Metrics;
use std::fmt::Write;

/// Names that stand in Canonical's published dashboards and alert rules. Everything else is ours.
pub const PUBLIC: [&str; 20] = [
    "livepatch_client_updates_with_unknown_kernel_total",
    "livepatch_client_updates_without_build_date_total",
    "livepatch_logging_kernels_error_total",
    "livepatch_patch_ping_events",
    "livepatch_server_contracts_error_count",
    "livepatch_server_contracts_error_reported_count",
    "livepatch_server_contracts_server_error_count",
    "livepatch_server_contracts_token_error_count",
    "livepatch_server_database_error_count",
    "livepatch_server_database_query_duration_seconds",
    "livepatch_server_http_auth_duration_seconds",
    "livepatch_server_http_authorizer_count",
    "livepatch_server_http_cutoff_date_count",
    "livepatch_server_http_patch_delay_count",
    "livepatch_server_http_request_duration_seconds",
    "livepatch_server_httpgovernor_request_overload",
    "livepatch_server_patch_cache_evictions",
    "livepatch_server_patch_cache_hits",
    "livepatch_server_patch_cache_length",
    "livepatch_server_patch_cache_misses",
];

const INTRO: &str = "\
# Metrics

Generated from the registry of metrics itself. `GET /metrics` at the operations address gives them in Prometheus' text format, to whoever may
reach that address. How to scrape them, and what to be woken by, is described in [monitoring](../how-to/monitoring.md).

Label values are closed sets or names from the catalog: tiers, patch versions, kernels that have a patch. What a client makes up counts as
`other`. No machine is a label. Series that can be known are there from the start of a server, at zero. Of requests
those are the check-ins; other routes appear with their first request, and pings with the first of their kind.
";

const THEIRS: &str = "
## Public names

These stand in Canonical's published dashboards and alert rules, and have exactly these names so that those go on working. Some break
Prometheus' conventions: a counter that ends in `_count`, or in nothing. `promtool check metrics` says so; it has nothing to say of the others.
";

const OURS: &str = "
## Ours

With several replicas, counters and histograms are summed. Gauges of what all replicas share (coverage, the audit log, quarantine, webhooks,
tiers) have the same value on each: take the maximum. What only the leader shows or counts is said so.
";

/// The page in Markdown.
pub fn markdown() -> String {
    let all = Metrics::new().described();
    let (theirs, ours): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|metric| PUBLIC.contains(&metric.name.as_str()));
    format!("{INTRO}{THEIRS}{}{OURS}{}", table(&theirs), table(&ours))
}

fn table(metrics: &[&Described]) -> String {
    let mut text = "\n| name | kind | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for metric in metrics {
        let labels: Vec<String> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
        let help = metric.help.replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {help} |",
            metric.name,
            metric.kind,
            labels.join(", ")
        );
    }
    text
}
