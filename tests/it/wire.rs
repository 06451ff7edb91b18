//! What we send, frozen both ways: each answer against its exact JSON, and back.

use jiff::civil::date;
use livepatch_onprem::domain::{Architecture, Fix, KernelSupport};
use livepatch_onprem::wire::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Debug;

/// The value gives exactly this JSON, and the JSON gives the value.
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
    assert_eq!(serde_json::to_string(value).unwrap(), expected);
    assert_eq!(&serde_json::from_str::<T>(expected).unwrap(), value);
}

fn offer() -> PatchOffer {
    PatchOffer {
        version: "107.1".parse().unwrap(),
        kernel: "5.15.0-107.117-generic".parse().unwrap(),
        architecture: Architecture::Amd64,
        filename: "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2".into(),
        sha256: livepatch_onprem::domain::Sha256([0xab; 32]),
        url: "https://h/v1/patches/f".into(),
        size: 4711,
        fixes: vec![Fix {
            name: "CVE-2024-1086".into(),
            description: "nf_tables".into(),
            bug: String::new(),
        }],
    }
}

#[test]
fn client_answers_are_frozen() {
    both_ways(
        &RegisterAnswer {
            machine_token: Token::new("lpm_x"),
            tier: "stable".parse().unwrap(),
            check_interval: 60,
        },
        r#"{"machine-token":"lpm_x","tier":"stable","check-interval":60}"#,
    );
    let mut info = InfoAnswer {
        machine_id: "0f1e2d3c4b5a69788796a5b4c3d2e1f0".parse().unwrap(),
        tier: "beta".parse().unwrap(),
        enabled_at: None,
        last_check: None,
        affordances: Affordances::default(),
    };
    both_ways(
        &info,
        r#"{"machine-id":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","tier":"beta","affordances":{}}"#,
    );
    info.enabled_at = Some("2025-01-02T03:04:05Z".parse().unwrap());
    info.last_check = Some("2025-01-02T04:04:05Z".parse().unwrap());
    info.affordances = Affordances {
        architectures: vec![Architecture::Amd64],
        series: vec!["jammy".into()],
        kernel_flavors: vec!["generic".into()],
        min_kernel_version: Some("4.4".into()),
        tier: Some("beta".parse().unwrap()),
    };
    both_ways(
        &info,
        r#"{"machine-id":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","tier":"beta","enabled-at":"2025-01-02T03:04:05Z","last-check":"2025-01-02T04:04:05Z","affordances":{"architectures":["amd64"],"series":["jammy"],"kernelFlavors":["generic"],"minKernelVersion":"4.4","tier":"beta"}}"#,
    );
    let mut updates = UpdatesAnswer {
        patches: vec![],
        supported: KernelSupport::KernelUpgradeRequired,
        upgrade_required_date: None,
        tier: "stable".parse().unwrap(),
        check_interval: 60,
        stored: false,
        reasons: vec![],
    };
    both_ways(
        &updates,
        r#"{"patches":[],"supported":"kernel-upgrade-required","tier":"stable","check-interval":60,"stored":false,"reasons":[]}"#,
    );
    updates.patches = vec![offer()];
    updates.supported = KernelSupport::Supported;
    updates.upgrade_required_date = Some(date(2025, 3, 7));
    updates.stored = true;
    updates.reasons = vec![Reason {
        code: "newest".into(),
        text: "it is the newest".into(),
        version: Some(offer().version),
    }];
    let sha256 = "ab".repeat(32);
    both_ways(
        &updates,
        &format!(
            r#"{{"patches":[{{"version":"107.1","kernel":"5.15.0-107.117-generic","architecture":"amd64","filename":"livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2","sha256":"{sha256}","url":"https://h/v1/patches/f","size":4711,"fixes":[{{"name":"CVE-2024-1086","description":"nf_tables"}}]}}],"supported":"supported","upgrade-required-date":"2025-03-07","tier":"stable","check-interval":60,"stored":true,"reasons":[{{"code":"newest","text":"it is the newest","version":"107.1"}}]}}"#
        ),
    );
}

#[test]
fn a_newer_server_may_add_keys() {
    let answer: RegisterAnswer = serde_json::from_str(
        r#"{"machine-token":"t","tier":"edge","check-interval":5,"motto":"x"}"#,
    )
    .unwrap();
    assert_eq!(answer.check_interval, 5);
}

#[test]
fn legacy_words_are_frozen() {
    both_ways(
        &LegacyError::UNKNOWN_AUTH_TOKEN,
        r#"{"error":"Unknown Auth-Token"}"#,
    );
    both_ways(
        &LegacyError::INVALID_MACHINE_TOKEN,
        r#"{"error":"Invalid Machine Token"}"#,
    );
    both_ways(
        &LegacyError::UNSUPPORTED_KERNEL,
        r#"{"error":"unsupported kernel"}"#,
    );
    assert_eq!(legacy::UNAUTHORIZED, "unauthorized");
    both_ways(
        &LegacyRegisterAnswer {
            machine_token: Token::new("t"),
            tier: "stable".parse().unwrap(),
        },
        r#"{"machine-token":"t","tier":"stable"}"#,
    );
}

#[test]
fn kernel_support_is_asked_and_answered() {
    both_ways(
        &SupportedAnswer {
            supported: KernelSupport::KernelEndOfLife,
        },
        r#"{"Supported":"kernel-end-of-life"}"#,
    );
    let pairs = |list: &[(&'static str, &'static str)]| {
        SupportedQuery::from_pairs(
            list.iter()
                .map(|(k, v)| (Cow::Borrowed(*k), Cow::Borrowed(*v)))
                .collect::<Vec<_>>(),
        )
    };
    let query = pairs(&[
        ("kernel-version", "5.15"),
        ("flavor", "generic"),
        ("Architecture", "amd64"),
        ("codename", "jammy"),
        ("build_date", "2024-02-07T13:27:48Z"),
        ("x", "y"),
    ]);
    assert_eq!(query.base().unwrap().unwrap().to_string(), "5.15.0");
    assert_eq!(query.build_day(), Some(date(2024, 2, 7)));
    assert_eq!(
        serde_json::to_string(&query).unwrap(),
        r#"{"kernel-version":"5.15","flavour":"generic","architecture":"amd64","codename":"jammy","build-date":"2024-02-07T13:27:48Z"}"#
    );
    let query = pairs(&[
        ("kernel-version", "6.8.0-1047.50-aws"),
        ("build-date", "unknown"),
        ("codename", ""),
    ]);
    assert_eq!(query.base().unwrap().unwrap().to_string(), "6.8.0");
    assert_eq!((query.build_day(), query.codename), (None, None));
    assert!(pairs(&[("kernel-version", "new")]).base().unwrap().is_err());
    assert!(pairs(&[]).base().is_none());
}

#[test]
fn problems_are_frozen() {
    let mut problem = Problem::new(
        404,
        "not-found",
        "Not found",
        "patch 1.1 does not exist; see `patch list`",
    );
    both_ways(
        &problem,
        r#"{"type":"urn:livepatch-onprem:problem:not-found","title":"Not found","status":404,"detail":"patch 1.1 does not exist; see `patch list`"}"#,
    );
    problem.instance = Some("/v1/x".into());
    problem.request_id = Some("r1".into());
    problem.errors = vec![ProblemItem {
        pointer: "/tier".into(),
        detail: "unknown".into(),
    }];
    both_ways(
        &problem,
        r#"{"type":"urn:livepatch-onprem:problem:not-found","title":"Not found","status":404,"detail":"patch 1.1 does not exist; see `patch list`","instance":"/v1/x","request-id":"r1","errors":[{"pointer":"/tier","detail":"unknown"}]}"#,
    );
    assert_eq!(problem.code(), Some("not-found"));
}

#[test]
fn pings_are_frozen_and_unknown_types_are_other() {
    let body = include_bytes!("../fixtures/client/ping.json");
    let ping = PingReport::parse(body).unwrap();
    assert_eq!(
        serde_json::to_value(&ping).unwrap(),
        serde_json::from_slice::<Value>(body).unwrap()
    );
    for kind in PingType::ALL {
        assert_eq!(PingType::read(kind.as_str()), *kind);
        assert_eq!(
            PingType::read(&kind.as_str().to_uppercase().replace('_', "-")),
            *kind
        );
        assert_eq!(PingType::from_code(kind.code()), Some(*kind));
        let word = kind.rebooted().as_str();
        assert!(
            *kind == PingType::Other
                || word.starts_with(kind.as_str()) && word.ends_with("_rebooted")
        );
    }
    let words: Vec<_> = PingType::ALL.iter().map(|k| k.as_str()).collect();
    assert_eq!(
        words.join(" "),
        "other ping_before ping_after ping_transition ping_0 ping_1 ping_2 ping_3 ping_err \
         ping_before_rebooted ping_after_rebooted ping_transition_rebooted ping_0_rebooted ping_1_rebooted \
         ping_2_rebooted ping_3_rebooted ping_err_rebooted"
    );
    assert_eq!(
        PingReport::parse(br#"{"ping-type":"ping_9"}"#)
            .unwrap()
            .ping_type,
        PingType::Other
    );
    assert_eq!(
        PingReport::parse(br#"{"ping-type":["ping_0"]}"#)
            .unwrap()
            .odd_values,
        1
    );
}

#[test]
fn the_status_document_is_written_with_the_public_names_and_read_back() {
    let document = StatusDocument {
        client_version: "0.1.0".into(),
        machine_id: "0f1e2d3c4b5a69788796a5b4c3d2e1f0".parse().unwrap(),
        architecture: Architecture::Amd64,
        cpu_model: "QEMU".into(),
        last_check: Some("2025-06-03T08:15:42Z".parse().unwrap()),
        boot_time: None,
        uptime: "60".into(),
        status: vec![StatusEntry {
            kernel: "5.15.0-107.117-generic".into(),
            running: true,
            livepatch: LivepatchStatus {
                check_state: "checked".into(),
                state: "applied".into(),
                version: "107.1".into(),
                fixes: vec![StatusFix {
                    name: "CVE-1".into(),
                    description: String::new(),
                    bug: String::new(),
                    patched: true,
                }],
            },
            supported: Some(KernelSupport::Supported),
            upgrade_required_date: Some(date(2025, 3, 7)),
        }],
        tier: Some("stable".parse().unwrap()),
        auth_token: Some(Token::new("lpa_x")),
        kernel_build_date: Some(date(2024, 2, 7)),
    };
    let text = r#"{"Client-Version":"0.1.0","Machine-Id":"0f1e2d3c4b5a69788796a5b4c3d2e1f0","Architecture":"amd64","CPU-Model":"QEMU","Last-Check":"2025-06-03T08:15:42Z","Boot-Time":null,"Uptime":"60","Status":[{"Kernel":"5.15.0-107.117-generic","Running":true,"Livepatch":{"CheckState":"checked","State":"applied","Version":"107.1","Fixes":[{"Name":"CVE-1","Description":"","Bug":"","Patched":true}]},"Supported":"supported","UpgradeRequiredDate":"2025-03-07"}],"tier":"stable","auth-token":"lpa_x","kernel-build-date":"2024-02-07"}"#;
    both_ways(&document, text);
    let report = ClientReport::parse(text.as_bytes()).unwrap();
    assert_eq!((report.unknown_keys, report.odd_values), (0, 0));
    assert_eq!(report.auth_token.as_ref().unwrap().expose(), "lpa_x");
    assert_eq!(
        (report.uptime, report.build_date),
        (Some(60), Some(date(2024, 2, 7)))
    );
    assert_eq!(report.fixes[0].patched, Some(true));
}
