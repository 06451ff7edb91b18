//! Metrics as a scrape sees them: the public names, our conventions, every known series at the start, no free text.

use livepatch_onprem::rollout::Outcome;
use livepatch_onprem::telemetry::logs::{self, LogError, LogFormat};
use livepatch_onprem::telemetry::{
    Described, IngestOutcome, Label, Metrics, NotStored, PUBLIC, PingLabels, TokenKind,
    Verification,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names that stand in published dashboards, what they are, and their labels.
const NAMES: [(&str, &str, &[&str]); 20] = [
    (
        "livepatch_client_updates_with_unknown_kernel_total",
        "counter",
        &[],
    ),
    (
        "livepatch_client_updates_without_build_date_total",
        "counter",
        &[],
    ),
    ("livepatch_logging_kernels_error_total", "counter", &[]),
    (
        "livepatch_patch_ping_events",
        "counter",
        &[
            "ping_type",
            "kernel",
            "patch_version",
            "tier",
            "patch_state",
            "architecture",
        ],
    ),
    ("livepatch_server_contracts_error_count", "counter", &[]),
    (
        "livepatch_server_contracts_error_reported_count",
        "counter",
        &["code"],
    ),
    (
        "livepatch_server_contracts_server_error_count",
        "counter",
        &[],
    ),
    (
        "livepatch_server_contracts_token_error_count",
        "counter",
        &[],
    ),
    ("livepatch_server_database_error_count", "counter", &[]),
    (
        "livepatch_server_database_query_duration_seconds",
        "histogram",
        &["method"],
    ),
    (
        "livepatch_server_http_auth_duration_seconds",
        "histogram",
        &["token_type"],
    ),
    (
        "livepatch_server_http_authorizer_count",
        "counter",
        &["token"],
    ),
    ("livepatch_server_http_cutoff_date_count", "counter", &[]),
    ("livepatch_server_http_patch_delay_count", "counter", &[]),
    (
        "livepatch_server_http_request_duration_seconds",
        "histogram",
        &["handler", "method", "code"],
    ),
    (
        "livepatch_server_httpgovernor_request_overload",
        "counter",
        &[],
    ),
    ("livepatch_server_patch_cache_evictions", "counter", &[]),
    ("livepatch_server_patch_cache_hits", "counter", &[]),
    ("livepatch_server_patch_cache_length", "gauge", &[]),
    ("livepatch_server_patch_cache_misses", "counter", &[]),
];

/// Name to (kind, help).
fn families(text: &str) -> BTreeMap<String, (String, String)> {
    let after = |word: &str, name: &str| {
        let lead = format!("# {word} {name} ");
        text.lines()
            .find_map(|line| line.strip_prefix(&lead))
            .unwrap_or_default()
            .to_owned()
    };
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next());
    names
        .map(|name| (name.to_owned(), (after("TYPE", name), after("HELP", name))))
        .collect()
}

/// Uses what has no series before its first use.
fn touch(metrics: &Metrics) {
    metrics
        .http
        .observe(Some("/v1/client/{id}/updates"), "POST", 200, 0.01);
    metrics
        .database
        .observe("SELECT_X", Duration::from_millis(3), true);
    metrics.pings.inc(PingLabels {
        ping_type: "ping_after",
        kernel: None,
        patch_version: None,
        tier: Some("stable"),
        patch_state: None,
        architecture: None,
    });
}

#[test]
fn public_names_are_exactly_as_published() {
    let metrics = Metrics::new();
    touch(&metrics);
    let text = metrics.encode();
    let families = families(&text);
    let described = metrics.described();
    for (name, kind, labels) in NAMES {
        assert_eq!(
            families.get(name).map(|(kind, _)| kind.as_str()),
            Some(kind),
            "{name}"
        );
        let described = described.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!(described.kind, kind, "{name}");
        assert_eq!(described.labels, labels, "{name}");
    }
    assert_eq!(PUBLIC, NAMES.map(|(name, ..)| name));
    // Everything that is shown is described, and under the same kind and help.
    for (name, (kind, help)) in &families {
        let metric = described.iter().find(|metric| metric.name == *name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not described"));
        assert_eq!((metric.kind, &metric.help), (kind.as_str(), help), "{name}");
    }
    for series in [
        r#"livepatch_server_http_request_duration_seconds_count{code="200",handler="/v1/client/:id/updates",method="POST"} 1"#,
        r#"livepatch_server_database_query_duration_seconds_count{method="SELECT_X"} 1"#,
        r#"livepatch_server_http_auth_duration_seconds_count{token_type="machine-token"} 0"#,
        r#"livepatch_server_http_authorizer_count{token="session"} 0"#,
        r#"livepatch_server_contracts_error_reported_count{code="503"} 0"#,
        "livepatch_server_http_cutoff_date_count 0",
        r#"livepatch_patch_ping_events{architecture="other",kernel="other",patch_state="other",patch_version="other",ping_type="ping_after",tier="stable"} 1"#,
    ] {
        assert!(
            text.lines().any(|line| line == series),
            "{series} not in\n{text}"
        );
    }
}

#[test]
fn ours_follow_the_conventions() {
    let metrics = Metrics::new();
    touch(&metrics);
    let described = metrics.described();
    let ours = described
        .iter()
        .filter(|metric| !PUBLIC.contains(&metric.name.as_str()));
    let mut seen = 0;
    for Described {
        name,
        kind,
        help,
        labels,
    } in ours
    {
        seen += 1;
        for label in labels {
            assert!(
                !["machine", "machine_id", "url", "path", "user"].contains(&label.as_str()),
                "{name} has the label {label}"
            );
        }
        assert!(
            name.starts_with("livepatch_") && !name.starts_with("livepatch_server_"),
            "{name}"
        );
        assert!(help.ends_with('.') && help.len() > 10, "{name}: {help}");
        assert!(
            name.chars().all(|c| c.is_ascii_lowercase() || c == '_'),
            "{name}"
        );
        assert_eq!(
            *kind == "counter",
            name.ends_with("_total"),
            "{name} is a {kind}"
        );
        for word in [
            "_count",
            "_sum",
            "_bucket",
            "_milliseconds",
            "_ms",
            "_kilobytes",
            "_counter",
            "_gauge",
            "_histogram",
        ] {
            assert!(!name.ends_with(word), "{name}");
        }
        if *kind == "histogram" {
            assert!(
                name.ends_with("_seconds") || name.ends_with("_size"),
                "{name}"
            );
        }
    }
    assert!(seen >= 40, "only {seen} of ours");
}

#[test]
fn every_known_series_is_there_at_the_start() {
    let metrics = Metrics::new();
    metrics.database.know(["SELECT_A", "SELECT_B"].into_iter());
    let text = metrics.encode();
    let has = |name: &str, label: &str, value: &str| {
        let series = format!("{name}{{{label}=\"{value}\"");
        assert!(text.contains(&series), "{series} not in\n{text}");
    };
    // The engine's own words: telemetry stands below it and cannot ask.
    for outcome in Outcome::ALL {
        has("livepatch_offers_total", "decision", outcome.as_str());
    }
    for kind in TokenKind::ALL {
        has("livepatch_auth_failures_total", "token_type", kind.word());
    }
    for reason in NotStored::ALL {
        has(
            "livepatch_check_ins_not_stored_total",
            "reason",
            reason.word(),
        );
    }
    for outcome in IngestOutcome::ALL {
        has("livepatch_ingest_bundles_total", "outcome", outcome.word());
    }
    for check in Verification::ALL {
        has(
            "livepatch_verification_failures_total",
            "check",
            check.word(),
        );
    }
    for statement in ["SELECT_A", "SELECT_B"] {
        has(
            "livepatch_server_database_query_duration_seconds_count",
            "method",
            statement,
        );
    }
    has("livepatch_object_store_requests_total", "operation", "get");
}

#[test]
fn counting_counts() {
    let metrics = Metrics::new();
    for outcome in Outcome::ALL {
        metrics.offers.get(outcome.as_str()).inc();
    }
    metrics.offers.get("something new").inc();
    metrics.auth.failures.inc(TokenKind::Password);
    metrics.contracts.failed(true, Some(401));
    metrics.contracts.failed(false, Some(599));
    metrics.contracts.failed(false, None);
    metrics.check_ins.not_stored.add(NotStored::QueueFull, 5);
    metrics.check_ins.group_size.observe(17.0);
    metrics.cache.sample(10, 3, 1, 2, 4096);
    metrics.cache.sample(12, 3, 1, 1, 2048);
    metrics.store_observer()("get", 0.2, false);
    metrics.store_observer()("unheard-of", 0.2, true);
    metrics.database_observer()("INSERT_X", Duration::from_millis(20), false);
    let text = metrics.encode();
    for series in [
        r#"livepatch_offers_total{decision="offer"} 1"#,
        r#"livepatch_offers_total{decision="other"} 1"#,
        r#"livepatch_auth_failures_total{token_type="password"} 1"#,
        r#"livepatch_check_ins_not_stored_total{reason="queue-full"} 5"#,
        "livepatch_server_contracts_error_count 3",
        "livepatch_server_contracts_server_error_count 2",
        "livepatch_server_contracts_token_error_count 1",
        r#"livepatch_server_contracts_error_reported_count{code="401"} 1"#,
        r#"livepatch_server_contracts_error_reported_count{code="other"} 1"#,
        "livepatch_check_in_group_size_count 1",
        "livepatch_server_patch_cache_hits 12",
        "livepatch_server_patch_cache_misses 3",
        "livepatch_patch_cache_bytes 2048",
        r#"livepatch_object_store_requests_total{operation="get",outcome="failure"} 1"#,
        r#"livepatch_object_store_requests_total{operation="other",outcome="success"} 1"#,
        r#"livepatch_object_store_request_duration_seconds_count{operation="get"} 1"#,
        "livepatch_server_database_error_count 1",
    ] {
        assert!(
            text.lines().any(|line| line == series),
            "{series} not in\n{text}"
        );
    }
}

#[test]
fn logs_are_set_up_once_and_not_with_a_wrong_filter() {
    let wrong = logs::init("inof", LogFormat::Json);
    // An operator's RUST_LOG, when the tests run with one, overrides the level.
    if std::env::var_os("RUST_LOG").is_none() {
        assert!(matches!(wrong, Err(LogError::Filter { .. })), "{wrong:?}");
        logs::init("off", LogFormat::Json).unwrap();
    }
    assert!(matches!(
        logs::init("off", LogFormat::Text),
        Err(LogError::Twice)
    ));
}
