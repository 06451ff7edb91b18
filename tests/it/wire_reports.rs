//! What clients send, read tolerantly: each fixture against what is read from it, and hostile bodies.
//! The fixtures are written by hand from the public key names; none was captured from a real client.

use livepatch_onprem::domain::MachineState;
use livepatch_onprem::wire::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt::Debug;
use std::path::Path;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/client")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is read from each fixture, field by field, kept beside it as `<name>.read`. `UPDATE_GOLDEN=1` writes them.
fn golden(name: &str, read: &impl Debug) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/client")
        .join(format!("{name}.read"));
    let text = format!("{read:#?}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(text, expected, "{} differs", path.display());
}

#[test]
fn every_public_shape_is_read() {
    for name in [
        "status-v11",
        "status-v10",
        "status-old",
        "register-flat",
        "legacy-put",
    ] {
        let body = fixture(&format!("{name}.json"));
        golden(name, &ClientReport::parse(&body).unwrap());
    }
    let body = fixture("ping.json");
    golden("ping", &PingReport::parse(&body).unwrap());
}

#[test]
fn the_facts_that_decide_come_out_of_every_shape() {
    let facts = |name: &str| {
        let body = fixture(name);
        let report = ClientReport::parse(&body).unwrap();
        (
            report.kernel.as_deref().unwrap_or_default().to_owned(),
            report.state(),
            report.version().map(|v| v.to_string()).unwrap_or_default(),
            report.unknown_keys,
            report.odd_values,
        )
    };
    let expect = |kernel: &str, state, version: &str, unknown| {
        (kernel.to_owned(), state, version.to_owned(), unknown, 0)
    };
    assert_eq!(
        facts("status-v11.json"),
        expect("5.15.0-140.150-generic", MachineState::Applied, "112.1", 0)
    );
    assert_eq!(
        facts("status-v10.json"),
        expect("6.8.0-1047.50-aws", MachineState::Unapplied, "108.2", 0)
    );
    assert_eq!(
        facts("status-old.json"),
        expect("4.15.0-173.182-generic", MachineState::Applied, "85.1", 0)
    );
    // 107.10 as a bare number must not become 107.1; the host name is the one unknown key.
    assert_eq!(
        facts("register-flat.json"),
        expect(
            "7.0.0-1013.13~24.04.1-ibm",
            MachineState::ApplyFailed,
            "107.10",
            1
        )
    );
    assert_eq!(
        facts("legacy-put.json"),
        expect("4.4.0-165.193-generic", MachineState::NothingToApply, "", 0)
    );
}

#[test]
fn text_borrows_from_the_body() {
    let body = fixture("status-v11.json");
    let report = ClientReport::parse(&body).unwrap();
    assert!(matches!(report.kernel, Some(Cow::Borrowed(_))));
    assert!(matches!(
        report.fixes[0].description,
        Some(Cow::Borrowed(_))
    ));
    // Only what holds escapes is copied.
    assert!(matches!(report.fixes[1].description, Some(Cow::Owned(_))));
}

#[test]
fn tokens_do_not_show_in_debug_output() {
    let body = br#"{"auth-token":"canary1","machine-token":"canary2","resource-token":"canary3"}"#;
    let report = ClientReport::parse(body).unwrap();
    assert_eq!(report.machine_token.as_ref().unwrap().expose(), "canary2");
    assert!(!format!("{report:?}").contains("canary"));
    let answer = RegisterAnswer {
        machine_token: Token::new("canary4"),
        tier: "edge".parse().unwrap(),
        check_interval: 60,
    };
    assert!(!format!("{answer:?}").contains("canary"));
    assert!(serde_json::to_string(&answer).unwrap().contains("canary4"));
}

#[test]
fn nothing_is_a_valid_report() {
    for body in ["", "  \n", "{}", "null"] {
        assert_eq!(
            ClientReport::parse(body.as_bytes()).unwrap(),
            ClientReport::default(),
            "{body:?}"
        );
    }
    assert_eq!(ClientReport::default().state(), MachineState::Unknown);
}

#[test]
fn what_is_not_an_object_is_refused_without_showing_it() {
    let cases: [(&[u8], &str); 7] = [
        (b"[]", "not a JSON object"),
        (b"\"canary\"", "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b"{\"auth-token\": \"canary", "line 1, column 22"),
        (b"{\"a\": 1} x", "line 1, column 10"),
        (b"{\"kernel\": \"\xff\"}", "not valid JSON"),
        (b"{kernel: 1}", "line 1, column 2"),
    ];
    for (body, expected) in cases {
        let text = ClientReport::parse(body).unwrap_err().to_string();
        assert!(
            text.contains(expected),
            "{}: {text}",
            String::from_utf8_lossy(body)
        );
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn wrong_types_are_skipped_and_counted() {
    let cases = [
        (r#"{"status": 5}"#, 0, 1),
        (r#"{"status": "applied"}"#, 0, 1),
        (r#"{"status": [5, [], {"kernel": ["a"]}]}"#, 0, 3),
        (r#"{"kernel": {"a": {"b": []}}}"#, 0, 1),
        (
            r#"{"uptime": "soon", "boot-time": "yesterday", "kernel-build-date": "May"}"#,
            0,
            3,
        ),
        (
            r#"{"uptime": -4, "boot-time": 1e300, "cloud-enabled": 7, "running": "perhaps"}"#,
            0,
            4,
        ),
        (r#"{"fixes": [{"Bug": "1"}, 5, null]}"#, 0, 2),
        (
            r#"{"Größe": 1, "a-key-that-is-longer-than-all-the-keys-we-know": {"kernel": "x"}}"#,
            2,
            0,
        ),
        (
            r#"{"status": null, "fixes": null, "livepatch": null, "cloud-enabled": null, "uptime": ""}"#,
            0,
            0,
        ),
    ];
    for (body, unknown, odd) in cases {
        let report = ClientReport::parse(body.as_bytes()).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!(
            (report.unknown_keys, report.odd_values),
            (unknown, odd),
            "{body}"
        );
        assert_eq!((report.kernel, report.fixes.len()), (None, 0), "{body}");
    }
}

#[test]
fn scalars_are_tolerated_in_every_form() {
    let report = |body: &'static str| ClientReport::parse(body.as_bytes()).unwrap();
    for body in [
        r#"{"up_time":"1 day"}"#,
        r#"{"Uptime":86400}"#,
        r#"{"UPTIME":"86400.9"}"#,
        r#"{"uptime":"24h0m0s"}"#,
    ] {
        assert_eq!(report(body).uptime, Some(86_400), "{body}");
    }
    for body in [
        r#"{"last-check":"2024-05-01T10:00:00Z"}"#,
        r#"{"last_check":"2024-05-01T12:00:00.0+02:00"}"#,
        r#"{"LastCheck":1714557600}"#,
        r#"{"lastcheck":"1714557600"}"#,
    ] {
        assert_eq!(
            report(body).last_check.unwrap().to_string(),
            "2024-05-01T10:00:00Z",
            "{body}"
        );
    }
    assert_eq!(
        report(r#"{"client-version": 11}"#)
            .client_version
            .as_deref(),
        Some("11")
    );
    assert_eq!(
        report(r#"{"client-version": true}"#)
            .client_version
            .as_deref(),
        Some("true")
    );
    assert_eq!(
        report(r#"{"tier": "  beta "}"#).tier.as_deref(),
        Some("beta")
    );
    assert_eq!(
        report(r#"{"version": "v107.1"}"#)
            .version()
            .unwrap()
            .to_string(),
        "107.1"
    );
    assert_eq!(
        report(r#"{"KERNEL_BUILD_DATE": "unknown"}"#),
        ClientReport::default()
    );
    assert_eq!(
        report(r#"{"check-state": "check-failed"}"#).state(),
        MachineState::CheckFailed
    );
}

#[test]
fn the_running_kernel_counts_else_the_first() {
    let kernel = |body: &'static str| {
        ClientReport::parse(body.as_bytes())
            .unwrap()
            .kernel
            .map(Cow::into_owned)
    };
    let of = |text: &str| Some(text.to_owned());
    assert_eq!(
        kernel(
            r#"{"status":[{"kernel":"a"},{"kernel":"b","running":true},{"kernel":"c","running":1}]}"#
        ),
        of("b")
    );
    assert_eq!(
        kernel(r#"{"status":[{"kernel":"a"},{"kernel":"b","running":false}]}"#),
        of("a")
    );
    assert_eq!(kernel(r#"{"status":{"kernel":"a"}}"#), of("a"));
    assert_eq!(kernel(r#"{"kernel":"top","status":[]}"#), of("top"));
    assert_eq!(
        kernel(r#"{"kernel":"top","status":[{"kernel":"in"}]}"#),
        of("in")
    );
}

#[test]
fn hostile_size_and_depth_are_bounded() {
    let deep = |key: &str| {
        format!(
            "{}{}",
            format!("{{\"{key}\":").repeat(100_000),
            "}".repeat(100_000)
        )
    };
    // Under a known key the depth is limited, under an unknown one it is skipped without recursion.
    assert!(ClientReport::parse(deep("livepatch").as_bytes()).is_err());
    let skipped = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(
        ClientReport::parse(skipped.as_bytes())
            .unwrap()
            .unknown_keys,
        1
    );
    let many = format!("{{\"fixes\":[{}\"CVE-1\"]}}", "\"CVE-1\",".repeat(10_000));
    let report = ClientReport::parse(many.as_bytes()).unwrap();
    assert_eq!(report.fixes.len(), client::MAX_FIXES);
    assert_eq!(report.odd_values as usize, 10_001 - client::MAX_FIXES);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("status".to_owned()),
        Just("Livepatch".to_owned()),
        Just("Fixes".to_owned()),
        Just("Version".to_owned()),
        Just("Uptime".to_owned()),
        Just("Last-Check".to_owned()),
        Just("Kernel-Build-Date".to_owned()),
        Just("Cloud-Enabled".to_owned()),
        "\\PC{0,40}",
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn any_object_is_a_report(value in json_value()) {
        let body = value.to_string();
        let read = ClientReport::parse(body.as_bytes());
        prop_assert_eq!(read.is_ok(), value.is_object() || value.is_null(), "{}", body);
        let _ = PingReport::parse(body.as_bytes());
    }

    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ClientReport::parse(&body);
        let _ = PingReport::parse(&body);
    }

    #[test]
    fn a_damaged_document_does_not_panic(at in 0usize..2000, byte in any::<u8>()) {
        let mut body = fixture("status-v11.json");
        let at = at % body.len();
        body[at] = byte;
        let _ = ClientReport::parse(&body);
        let _ = ClientReport::parse(&body[..at]);
    }

    #[test]
    fn case_and_separators_of_keys_do_not_matter(upper in prop::collection::vec(any::<bool>(), 14), sep in "[-_]{0,3}") {
        let key: String = "clientversion".chars().zip(upper).enumerate().map(|(at, (c, up))| {
            let c = if up { c.to_ascii_uppercase() } else { c };
            if at == 6 { format!("{sep}{c}") } else { c.to_string() }
        }).collect();
        let body = json!({ key: "v1" }).to_string();
        let report = ClientReport::parse(body.as_bytes()).unwrap();
        prop_assert_eq!(report.client_version.as_deref(), Some("v1"));
    }
}
