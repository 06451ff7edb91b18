//! What `livepatch-client` makes of a server's answers, lies included. Real payloads, real signatures.

use crate::support::kmod;
use crate::support::scripted::{Machine, Server, TEXT, json_answer, updates, words};
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::fs;

type Change = fn(&mut Value);
type Answer = Box<dyn Fn() -> Response + Send + Sync>;

#[tokio::test]
async fn a_machine_enables_checks_keeps_and_leaves() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::new();
    let cert = kmod::keys().cert;
    let ended = machine
        .enable(&server.url(), &["--cert", cert.to_str().unwrap()])
        .await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(
        ended.out.contains("enabled in tier stable")
            && ended.out.contains("107.1 was verified and kept"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("because the test says so"),
        "{}",
        ended.out
    );

    let seen = server.heard();
    assert_eq!(
        words(&seen),
        [
            "GET info",
            "POST machine",
            "POST updates",
            "GET file",
            "POST updates"
        ]
    );
    // The administrator's token is shown until there is another, and stands in no later body.
    assert!(seen[..2].iter().all(|s| s.authorization == "Bearer lpa_1"));
    assert_eq!(seen[1].body["auth-token"], "lpa_1");
    assert!(
        seen[2..]
            .iter()
            .all(|s| s.authorization == "Bearer lpm_1" && s.body.get("auth-token").is_none())
    );
    let said = |at: usize| seen[at].body["Status"][0]["Livepatch"].clone();
    assert_eq!(
        (said(2)["State"].clone(), said(2)["Version"].clone()),
        (json!("needs-check"), json!(""))
    );
    assert_eq!(
        (said(4)["State"].clone(), said(4)["Version"].clone()),
        (json!("unapplied"), json!("107.1"))
    );
    assert_eq!(
        seen[4].body["Status"][0]["Kernel"],
        kmod::kernel().to_string()
    );

    // What was kept is the module, signature and all, and nothing else lies about.
    let files = machine.files();
    assert_eq!(files.len(), 1, "{files:?}");
    let kept = fs::read(machine.dir.path().join(&files[0])).unwrap();
    assert!(kept.ends_with(b"~Module signature appended~\n") && kept.starts_with(b"\x7fELF"));

    // Nothing new: no download, no second report.
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 0 && ended.out.contains("nothing new"),
        "{}{}",
        ended.out,
        ended.err
    );
    assert_eq!(words(&server.heard()), ["POST updates"]);

    // A kept module that was damaged is fetched again.
    fs::write(machine.dir.path().join(&files[0]), b"damaged").unwrap();
    assert_eq!(machine.run(&["check", "--assume-applied"]).await.code, 0);
    assert_eq!(
        words(&server.heard()),
        ["POST updates", "GET file", "POST updates"]
    );
    assert_eq!(machine.livepatch().await["State"], "applied");
    assert_eq!(machine.livepatch().await["Fixes"][0]["Patched"], true);

    let ended = machine.run(&["disable"]).await;
    assert_eq!(
        (ended.code, words(&server.heard())),
        (0, vec!["DELETE machine"])
    );
    assert!(machine.files().is_empty() && !machine.dir.path().join("state.json").exists());
}

#[tokio::test]
async fn no_offer_leaves_things_as_they_are() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    server.script.lock().unwrap().updates = updates(&[]);
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 0 && ended.out.contains("no patch is offered"),
        "{}",
        ended.err
    );
    assert_eq!(machine.livepatch().await["State"], "nothing-to-apply");

    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    assert_eq!(machine.run(&["check", "--assume-applied"]).await.code, 0);
    server.script.lock().unwrap().updates = updates(&[]);
    assert!(
        machine
            .run(&["check"])
            .await
            .out
            .contains("107.1 is applied")
    );

    server.instead("POST updates", || StatusCode::NO_CONTENT.into_response());
    assert!(machine.run(&["check"]).await.out.contains("nothing to say"));
    assert_eq!(machine.livepatch().await["Version"], "107.1");
}

#[tokio::test]
async fn what_is_not_what_was_announced_is_refused() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    let bundle = kmod::real_bundle("107.1", TEXT);
    let cases: [(Change, &str); 8] = [
        (|o| o["sha256"] = json!("00".repeat(32)), "has SHA-256"),
        (|o| o["size"] = json!(100), "but 100 were announced"),
        (|o| o["size"] = json!(1u64 << 40), "more than the"),
        (
            |o| o["kernel"] = json!("5.15.0-1.1-generic"),
            "this machine is",
        ),
        (|o| o["architecture"] = json!("arm64"), "this machine is"),
        (|o| o["version"] = json!("108.1"), "should be named"),
        (
            |o| o["filename"] = json!("../../etc/passwd"),
            "should be named",
        ),
        (|o| o["url"] = json!("http://["), "URL"),
    ];
    for (change, expected) in cases {
        server.offer(&bundle, change);
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 4 || expected == "URL",
            "{expected}: {} {}",
            ended.code,
            ended.err
        );
        assert!(ended.err.contains(expected), "{expected}: {}", ended.err);
        assert_eq!(machine.files(), Vec::<String>::new(), "{expected}");
        assert_eq!(
            machine.livepatch().await["CheckState"],
            "check-failed",
            "{expected}"
        );
    }
    // The server is told that the check failed.
    let seen = server.heard();
    assert_eq!(
        seen.last().unwrap().body["Status"][0]["Livepatch"]["CheckState"],
        "check-failed"
    );
}

#[tokio::test]
async fn a_body_longer_or_shorter_than_announced_is_cut_off() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let endless = || {
        let chunks = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[7; 8192]))
        });
        axum::body::Body::from_stream(chunks).into_response()
    };
    server.instead("GET file", endless);
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 4 && ended.err.contains("is longer than the"),
        "{}",
        ended.err
    );
    assert_eq!(machine.files(), Vec::<String>::new());

    server.script.lock().unwrap().instead.clear();
    server.instead("GET file", || {
        let chunks =
            futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"BZh9"))]);
        axum::body::Body::from_stream(chunks).into_response()
    });
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 4 && ended.err.contains("ended after 4 of"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn only_signatures_of_given_certificates_count() {
    let server = Server::start().await;
    let cases = [
        (
            kmod::foreign_bundle("107.1", TEXT),
            "none of the 1 installed certificates",
        ),
        (kmod::unsigned_bundle("107.1", TEXT), "no signature"),
    ];
    for (bundle, expected) in cases {
        let machine = Machine::ready(&server).await;
        server.offer(&bundle, |_| {});
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 4 && ended.err.contains(expected),
            "{}",
            ended.err
        );
        assert_eq!(machine.files(), Vec::<String>::new());
        // Only when told so, and not quietly.
        let ended = machine.run(&["check", "--insecure-skip-signature"]).await;
        assert!(
            ended.code == 0 && ended.err.contains("WARNING: signatures are NOT verified"),
            "{}",
            ended.err
        );
        assert!(machine.run(&["status"]).await.out.contains("NOT CHECKED"));
        // What was kept unchecked does not pass for checked later.
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 4 && ended.err.contains(expected),
            "{}",
            ended.err
        );
    }
    // Without any certificate nothing can be verified, and the message says what to do.
    let machine = Machine::new();
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let ended = machine.enable(&server.url(), &[]).await;
    assert!(
        ended.code == 4 && ended.err.contains("see --cert"),
        "{}",
        ended.err
    );
    assert!(
        ended.out.contains("is enabled"),
        "registered all the same: {}",
        ended.out
    );
}

#[tokio::test]
async fn a_refusal_ends_with_3_and_the_servers_words() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    server.instead("POST updates", || {
        (StatusCode::UNAUTHORIZED, "unauthorized").into_response()
    });
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 3 && ended.err.contains("401 unauthorized"),
        "{}",
        ended.err
    );

    let fresh = Machine::new();
    server.instead("GET info", || {
        (StatusCode::FORBIDDEN, r#"{"error":"Unknown Auth-Token"}"#).into_response()
    });
    let ended = fresh.enable(&server.url(), &[]).await;
    assert!(
        ended.code == 3 && ended.err.contains("Unknown Auth-Token"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("lpa_1") && !fresh.dir.path().join("state.json").exists());
}

#[tokio::test]
async fn answers_that_are_no_answers_are_told_apart() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    let problem =
        r#"{"type":"about:blank","title":"Busy","status":503,"detail":"come back later"}"#;
    let cases: Vec<(Answer, &str)> = vec![
        (
            Box::new(|| "<html>hello</html>".into_response()),
            "is this a livepatch server?",
        ),
        (
            Box::new(|| json_answer(&json!({"patches": "lpm_canary"}))),
            "not the JSON expected",
        ),
        (
            Box::new(|| vec![b' '; 2 << 20].into_response()),
            "longer than 1048576 bytes",
        ),
        (
            Box::new(move || (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()),
            "503 come back later",
        ),
        (
            Box::new(|| {
                (
                    StatusCode::FOUND,
                    [(header::LOCATION, "http://elsewhere.example/")],
                )
                    .into_response()
            }),
            "points to http://elsewhere.example/",
        ),
    ];
    for (answer, expected) in cases {
        server.script.lock().unwrap().instead.clear();
        server.instead("POST updates", answer);
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 1 && ended.err.contains(expected),
            "{expected}: {} {}",
            ended.code,
            ended.err
        );
        assert!(!ended.err.contains("canary"), "{}", ended.err);
    }
}

#[tokio::test]
async fn a_download_may_come_from_elsewhere_but_the_token_stays() {
    let (server, mirror) = (Server::start().await, Server::start().await);
    let machine = Machine::ready(&server).await;
    let bundle = kmod::real_bundle("107.1", TEXT);
    mirror.script.lock().unwrap().file = fs::read(&bundle).unwrap();
    let elsewhere = format!(
        "{}/v1/patches/{}",
        mirror.url(),
        bundle.file_name().unwrap().to_str().unwrap()
    );

    // By a redirect.
    server.offer(&bundle, |_| {});
    let to = elsewhere.clone();
    server.instead("GET file", move || {
        (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response()
    });
    let ended = machine.run(&["check"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let seen = mirror.heard();
    assert_eq!(
        (words(&seen), seen[0].authorization.as_str()),
        (vec!["GET file"], "")
    );

    // By the offer itself.
    let machine = Machine::ready(&server).await;
    server.offer(&bundle, |o| o["url"] = json!(elsewhere));
    assert_eq!(machine.run(&["check"]).await.code, 0);
    let seen = mirror.heard();
    assert_eq!(
        (words(&seen), seen[0].authorization.as_str()),
        (vec!["GET file"], "")
    );
}

#[tokio::test]
async fn downloads_without_tls_are_refused_when_asked() {
    let server = Server::start().await;
    let machine = Machine::new();
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let ended = machine
        .enable(
            &server.url(),
            &["--tls-patch-download", "--insecure-skip-signature"],
        )
        .await;
    assert!(
        ended.code == 4 && ended.err.contains("not TLS"),
        "{}",
        ended.err
    );
    assert!(server.heard().iter().all(|s| s.what != "GET file"));
}
