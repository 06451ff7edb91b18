//! The client API over real sockets: tokens, the old form, kernel support, pings.

use crate::support::kmod::{bundle_name, kernel};
use crate::support::server::{Machine, TestServer};
use serde_json::{Value, json};

#[tokio::test]
async fn tokens_are_what_they_claim() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let one = Machine::register(&server, 1, &token).await;
    let two = Machine::register(&server, 2, &token).await;
    let url = |id: &str, path: &str| format!("{}/v1/client/{id}{path}", server.url);
    let unauthorized = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.text().await.unwrap(), "unauthorized");
    };
    // Another machine's token, no token, an auth token where a machine token belongs, garbage.
    unauthorized(
        server
            .http
            .post(url(&one.id, "/updates"))
            .bearer_auth(&two.token)
            .json(&one.report(None)),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, "/updates"))
            .json(&one.report(None)),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, "/updates"))
            .bearer_auth(&token)
            .json(&one.report(None)),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, ""))
            .json(&json!({ "auth-token": "lpa_nonsense" })),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, ""))
            .json(&json!({ "auth-token": one.token })),
    )
    .await;
    unauthorized(server.http.delete(url(&one.id, "")).bearer_auth(&two.token)).await;
    // The token may come as password, as macaroon, or in the body.
    for request in [
        server
            .http
            .post(url(&one.id, "/updates"))
            .basic_auth("", Some(&one.token)),
        server
            .http
            .post(url(&one.id, "/updates"))
            .header("Authorization", format!("Macaroon {}", one.token)),
    ] {
        assert_eq!(
            request
                .json(&one.report(None))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let mut report = one.report(None);
    report["machine_token"] = json!(one.token);
    assert_eq!(
        server
            .http
            .post(url(&one.id, "/updates"))
            .json(&report)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    // Information, before and after registration, and leaving.
    let new = format!("{:032x}", 99);
    let info: Value = server
        .http
        .get(url(&new, "/info"))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (info["tier"].as_str(), info.get("enabled-at")),
        (Some("edge"), None)
    );
    let info: Value = server
        .http
        .get(url(&one.id, "/info"))
        .bearer_auth(&one.token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        info["enabled-at"].is_string() && info["last-check"].is_string(),
        "{info}"
    );
    let gone = server
        .http
        .delete(url(&one.id, ""))
        .bearer_auth(&one.token)
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 204);
    // An expired token enables nobody new; who is enabled stays so.
    let made = server
        .admin(
            "POST",
            "auth-tokens",
            json!({ "name": "brief", "tier": "edge", "valid-until": "2099-01-01T00:00:00Z" }),
        )
        .await;
    let brief = made["token"].as_str().unwrap().to_owned();
    let three = Machine::register(&server, 3, &brief).await;
    let raw = server.db.raw().await;
    raw.batch_execute(
        "update auth_tokens set valid_until = now() - interval '1 s' where name = 'brief'",
    )
    .await
    .unwrap();
    server
        .core()
        .snapshots
        .reload(None, i64::MAX)
        .await
        .unwrap();
    unauthorized(
        server
            .http
            .post(url(&format!("{:032x}", 4), ""))
            .json(&json!({ "auth-token": brief })),
    )
    .await;
    assert_eq!(three.try_check(&server, None).await.status(), 200);
}

#[tokio::test]
async fn the_old_clients_are_answered_in_their_words() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let id = format!("{:032x}", 7);
    let enable = async |body: Value| {
        server
            .http
            .post(format!("{}/api/machine-tokens", server.url))
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    let answer = enable(json!({ "auth-token": "wrong", "machine-id": id })).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(
        answer.text().await.unwrap(),
        r#"{"error":"Unknown Auth-Token"}"#
    );
    let answer = enable(json!({ "machine-id": id })).await;
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap()),
        (401, "unauthorized".to_owned())
    );
    let odd = json!({ "auth-token": token, "machine-id": id, "architecture": "amd64", "kernel": "6.5.0-1.2-generic" });
    let answer = enable(odd).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await.unwrap().contains("unsupported kernel"));
    let answer: Value = enable(json!({ "auth-token": token, "machine-id": id }))
        .await
        .json()
        .await
        .unwrap();
    let machine_token = answer["machine-token"].as_str().unwrap();
    let status = json!({
        "client-version": "9.1.0", "machine-id": id, "architecture": "x86_64",
        "status": [{ "kernel": kernel().to_string(), "running": true,
            "livepatch": { "checkState": "needs-check", "patchState": "unapplied", "version": "" } }],
    });
    let put = async |token: &str| {
        server
            .http
            .put(format!("{}/api/machine/{token}", server.url))
            .json(&status)
            .send()
            .await
            .unwrap()
    };
    let answer: Value = put(machine_token).await.json().await.unwrap();
    assert_eq!(answer["patches"][0]["version"], "107.1", "{answer}");
    let answer = put("wrong").await;
    assert_eq!(answer.status(), 403);
    assert_eq!(
        answer.text().await.unwrap(),
        r#"{"error":"Invalid Machine Token"}"#
    );
    // The old path for files, too.
    let old = format!("{}/patches/{}", server.url, bundle_name("107.1"));
    assert_eq!(server.http.head(&old).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn kernel_support_is_told_to_anybody() {
    let server = TestServer::start().await;
    let ask = async |query: &str| {
        let url = format!("{}/v1/api/kernels/supported?{query}", server.url);
        server
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let jammy = "kernel-version=5.15&flavour=generic&architecture=amd64&codename=jammy";
    assert_eq!(
        ask(&format!("{jammy}&build-date=unknown")).await,
        r#"{"Supported":"supported"}"#
    );
    let old = ask(&format!("{jammy}&build-date=2024-02-07T10:00:00%2B00:00")).await;
    assert_eq!(old, r#"{"Supported":"kernel-upgrade-required"}"#);
    assert_eq!(
        ask("kernel-version=6.5&flavour=generic&architecture=amd64&codename=jammy").await,
        r#"{"Supported":"unsupported"}"#
    );
    assert!(
        ask("flavour=generic")
            .await
            .contains("kernel-version is missing")
    );
    assert!(ask("kernel-version=five").await.contains("kernel series"));
}

#[tokio::test]
async fn pings_are_stored_and_counted_within_bounds() {
    let server = TestServer::with_two_patches().await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    let ping = async |body: Value| {
        let url = format!("{}/v1/client/{}/pings", server.url, machine.id);
        server
            .http
            .post(url)
            .bearer_auth(&machine.token)
            .json(&body)
            .send()
            .await
            .unwrap()
            .status()
    };
    let kernel = kernel().to_string();
    let known = json!({ "ping-type": "ping_err", "kernel": kernel, "patch-version": "107.1", "architecture": "amd64",
        "patch-state": "apply-failed", "message": "insmod: \u{0}bad" });
    assert_eq!(ping(known).await, 204);
    assert_eq!(
        ping(json!({ "ping-type": "made-up", "kernel": "made-up", "patch-version": "9.9" })).await,
        204
    );
    let raw = server.db.raw().await;
    let rows = raw
        .query("select ping_type, message from pings order by at", &[])
        .await
        .unwrap();
    assert_eq!(rows[0].get::<_, String>(0), "ping_err");
    assert_eq!(rows[0].get::<_, String>(1), "insmod: bad");
    assert_eq!(rows[1].get::<_, String>(0), "other");
    let metrics = server.core().metrics.encode();
    assert!(
        metrics.contains(&format!("kernel=\"{kernel}\"")),
        "{metrics}"
    );
    assert!(!metrics.contains("made-up"));
}

#[tokio::test]
async fn odd_reports_cost_nobody_else_theirs() {
    let server = TestServer::with_two_patches().await;
    let good = Machine::register(&server, 1, &server.token("good", "edge").await).await;
    let doomed = Machine::register(&server, 2, &server.token("doomed", "edge").await).await;
    // The token and the machine vanish behind the server's back: its row can no longer be written.
    let raw = server.db.raw().await;
    raw.batch_execute(&format!(
        "delete from machines where id = '{}'; delete from auth_tokens where name = 'doomed'",
        doomed.id
    ))
    .await
    .unwrap();
    let mut odd = good.report(None);
    odd["Boot-Time"] = json!("-009998-01-01T00:00:00Z");
    odd["CPU-Model"] = json!("with \u{0} in it");
    odd["Client-Version"] = json!("x".repeat(5000));
    odd["kernel-build-date"] = json!("-009998-01-01");
    let send = async |machine: &Machine, body: &Value| -> Value {
        let answer = machine.send(&server, body).await;
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    };
    let doomed_report = doomed.report(None);
    let both = (0..40).map(|n| {
        if n % 2 == 0 {
            send(&good, &odd)
        } else {
            send(&doomed, &doomed_report)
        }
    });
    let answers = futures_util::future::join_all(both).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["stored"], n % 2 == 0, "{answer}");
        assert_eq!(answer["patches"][0]["version"], "107.1");
    }
    let rows = raw
        .query("select w.text, boot_time is null from machines m join words w on w.id = m.cpu_model_id", &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, String>(0), "with  in it");
    assert!(rows[0].get::<_, bool>(1));
}

#[tokio::test]
async fn a_patch_that_failed_to_apply_does_not_count_as_run() {
    let server = TestServer::with_two_patches().await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    machine.check(&server, Some("106.1")).await;
    let mut failed = machine.report(Some("107.1"));
    failed["Status"][0]["Livepatch"]["State"] = json!("apply-failed");
    let answer = machine.send(&server, &failed).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["patches"][0]["version"], "107.1");
    let shown = server
        .admin("GET", &format!("machines/{}", machine.id), Value::Null)
        .await;
    assert_eq!(
        (shown["state"].as_str(), shown.get("applied")),
        (Some("apply-failed"), None),
        "{shown}"
    );
    let explained = server
        .admin(
            "GET",
            &format!("machines/{}/explain", machine.id),
            Value::Null,
        )
        .await;
    assert_eq!(explained["outcome"], "offer", "{explained}");
    let health = server
        .admin(
            "GET",
            "reports/patch-health?tier=edge&version=107.1",
            Value::Null,
        )
        .await;
    assert_eq!(health["failed"], 1, "{health}");
    let blocked = server.admin("POST", "patches/107.1/block", json!({})).await;
    assert_eq!(blocked["machines-running"], 0, "{blocked}");
}

#[tokio::test]
async fn a_capture_keeps_requests_without_their_secrets() {
    let server = TestServer::with_two_patches().await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    let other = Machine::register(&server, 2, &server.token("other", "edge").await).await;
    let begun = server
        .admin(
            "POST",
            "captures",
            json!({ "machine-id": machine.id, "for": 600 }),
        )
        .await;
    assert_eq!(machine.offered(&server, None).await, "107.1");
    other.check(&server, None).await;
    let kept = server
        .admin("GET", &format!("captures/{}", begun["id"]), Value::Null)
        .await;
    let text = kept.to_string();
    assert_eq!(kept["records"].as_array().map(Vec::len), Some(1), "{text}");
    assert!(
        text.contains("/updates") && text.contains("CPU-Model"),
        "{text}"
    );
    assert!(
        !text.contains(&machine.token) && !text.contains(&other.id),
        "{text}"
    );
}

/// A check-in passes the router by unless its path is written in an unusual way: what is answered is the same.
#[tokio::test]
async fn a_check_in_is_answered_the_same_with_and_without_the_router() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let machine = Machine::register(&server, 1, &token).await;
    let report = machine.report(None).to_string();
    let unusual = |id: &str| format!("%{:02x}{}", id.as_bytes()[0], &id[1..]);
    for (id, shown, body, expected) in [
        (
            machine.id.as_str(),
            machine.token.as_str(),
            report.as_str(),
            200,
        ),
        (&machine.id, &machine.token, "", 200),
        (&machine.id, "lpm_nonsense", &report, 401),
        (&machine.id, &machine.token, "[]", 400),
        ("no-machine", &machine.token, &report, 400),
    ] {
        let ask = async |id: &str| {
            let url = format!("{}/v1/client/{id}/updates", server.url);
            let request = server.http.post(url).bearer_auth(shown);
            let answer = request.body(body.to_owned()).send().await.unwrap();
            assert_eq!(answer.status(), expected, "{id}");
            let mut headers = answer.headers().clone();
            assert!(headers.remove("x-request-id").is_some());
            assert!(headers.remove("date").is_some());
            headers.remove("content-length");
            let text = answer.text().await.unwrap();
            let mut content: Value = serde_json::from_str(&text).unwrap_or(text.into());
            if let Some(problem) = content.as_object_mut() {
                let named = problem.remove("request-id").is_some();
                assert_eq!(named, expected >= 400);
                problem.remove("instance");
            }
            (headers, content)
        };
        assert_eq!(ask(id).await, ask(&unusual(id)).await);
    }
    let metrics = server.http.get(format!("{}/metrics", server.url));
    let metrics = metrics.send().await.unwrap().text().await.unwrap();
    let series = r#"code="200",handler="/v1/client/:id/updates",method="POST"} 4"#;
    assert!(metrics.contains(series), "{metrics}");
}
