//! Machines with tokens of Ubuntu Pro, against a program that serves the public contracts API; and the server's own resource token.

use crate::support::contracts::{CONTRACT_TOKEN, ContractsServer, RESOURCE_TOKEN};
use crate::support::db::TestDb;
use crate::support::kmod::kernel;
use crate::support::process::comes;
use crate::support::server::TestServer;
use axum::http::StatusCode;
use livepatch_onprem::config::Config;
use livepatch_onprem::db::tokens;
use livepatch_onprem::domain::Secret;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

const TOKEN: &str = "AgEVY29udHJhY3RzLmNhbmFyeQ==";

fn id(n: u32) -> String {
    format!("{:032x}", u128::from(n) + 0xabc)
}

fn using(contracts: &ContractsServer) -> impl FnOnce(&mut Config) {
    let url = contracts.url();
    move |config| {
        config.contracts.enabled = true;
        config.contracts.url = url;
    }
}

/// Status, problem or plain text, and the header `Retry-After`.
async fn answered(request: reqwest::RequestBuilder) -> (u16, Value, Option<String>) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let retry = answer
        .headers()
        .get("retry-after")
        .map(|v| v.to_str().unwrap().to_owned());
    let text = answer.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
        retry,
    )
}

async fn register(server: &TestServer, machine: &str, body: Value) -> (u16, Value, Option<String>) {
    let url = format!("{}/v1/client/{machine}", server.url);
    answered(server.http.post(url).json(&body)).await
}

async fn check(server: &TestServer, machine: &str, token: &Value) -> (u16, Value) {
    let url = format!("{}/v1/client/{machine}/updates", server.url);
    let report = json!({"architecture": "amd64", "kernel": kernel().to_string()});
    let request = server
        .http
        .post(url)
        .bearer_auth(token.as_str().unwrap())
        .json(&report);
    let (status, answer, _) = answered(request).await;
    (status, answer)
}

/// Asks for health until it is this; a busy machine may be late with a first answer, which is then remembered for a while.
async fn healthy(server: &TestServer, expected: Value) {
    comes("the expected health", async || {
        let url = format!("{}/debug/status", server.url);
        let (status, body, _) = answered(server.http.get(url)).await;
        let is_so = (status, &body["contracts"]["status"]) == (200, &expected);
        is_so.then_some(()).ok_or(format!("{status} {body}"))
    })
    .await;
}

#[tokio::test]
async fn a_resource_token_registers_and_known_machines_do_without_the_service() {
    let mut contracts = ContractsServer::start().await;
    let server = TestServer::with(using(&contracts)).await;
    contracts.grant(TOKEN, &id(1), json!({"tier": "stable"}));
    healthy(&server, json!("OK")).await;
    let (status, answer, _) = register(&server, &id(1), json!({"resource-token": TOKEN})).await;
    assert_eq!(
        (status, &answer["tier"]),
        (200, &json!("stable")),
        "{answer}"
    );
    let token = answer["machine-token"].clone();
    let (status, answer) = check(&server, &id(1), &token).await;
    assert_eq!(
        (status, &answer["tier"], &answer["stored"]),
        (200, &json!("stable"), &json!(true))
    );
    // Asked again within `contracts.cache`, nobody is asked.
    let (status, _, _) = register(&server, &id(1), json!({"resource-token": TOKEN})).await;
    assert_eq!((status, contracts.asked().len()), (200, 1));
    let asked = &contracts.asked()[0];
    assert_eq!(
        asked.what,
        format!("GET /v1/resources/livepatch/context/machines/{}", id(1))
    );
    assert_eq!(asked.headers["authorization"], format!("Bearer {TOKEN}"));
    // Membership is an auth token that everybody can see, made with an audit entry.
    let listed = server.admin("GET", "auth-tokens", Value::Null).await;
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["machines"]),
        (&json!("contracts:stable"), &json!(1))
    );
    let audit = server
        .admin("GET", "audit?action=auth-token.create", Value::Null)
        .await;
    assert_eq!(
        (&audit["items"][0]["actor"], &audit["items"][0]["source"]),
        (&json!("system"), &json!("contracts"))
    );
    // The service in trouble, then away.
    contracts.break_with(Some((StatusCode::BAD_GATEWAY, "no")));
    contracts.grant(TOKEN, &id(2), json!({"tier": "stable"}));
    let refused = |(status, answer, retry): (u16, Value, Option<String>)| {
        assert_eq!((status, retry.as_deref()), (503, Some("30")), "{answer}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(
            detail.contains("contracts service") && detail.contains("come again"),
            "{detail}"
        );
    };
    refused(register(&server, &id(2), json!({"resource-token": TOKEN})).await);
    contracts.stop().await;
    refused(register(&server, &id(2), json!({"resource-token": TOKEN})).await);
    let metrics = server.core().metrics.encode();
    for series in [
        "livepatch_server_contracts_error_count 2",
        "livepatch_server_contracts_server_error_count 2",
        "livepatch_server_contracts_token_error_count 0",
        r#"livepatch_server_contracts_error_reported_count{code="502"} 1"#,
        r#"livepatch_server_http_auth_duration_seconds_count{token_type="resource-token"} 4"#,
    ] {
        assert!(
            metrics.lines().any(|line| line == series),
            "{series} not in\n{metrics}"
        );
    }
    let (status, answer) = check(&server, &id(1), &token).await;
    assert_eq!((status, &answer["stored"]), (200, &json!(true)));
    // A replica that starts now starts, says so, and serves the machine; it is not unwell for that.
    let beside = server.beside(using(&contracts)).await;
    healthy(&beside, json!("ERROR")).await;
    assert_eq!(check(&beside, &id(1), &token).await.0, 200);
}

#[tokio::test]
async fn every_place_for_a_token_and_the_old_form() {
    let contracts = ContractsServer::start().await;
    let server = TestServer::with(using(&contracts)).await;
    let affordances = json!({"tier": "beta", "architectures": ["x86_64", "amd64"], "series": ["jammy"],
        "kernelFlavors": ["generic"], "minKernelVersion": "4.4"});
    for n in 1..=6 {
        contracts.grant(TOKEN, &id(n), affordances.clone());
    }
    let url = |n: u32, path: &str| format!("{}/v1/client/{}{path}", server.url, id(n));
    // Information comes before or after registration; nothing is made by asking.
    let info = async |n: u32| {
        let (status, answer, _) =
            answered(server.http.get(url(n, "/info")).bearer_auth(TOKEN)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let before = info(1).await;
    assert_eq!(
        (&before["tier"], before.get("enabled-at")),
        (&json!("beta"), None)
    );
    let shown = json!({"architectures": ["amd64", "amd64"], "series": ["jammy"], "kernelFlavors": ["generic"],
        "minKernelVersion": "4.4", "tier": "beta"});
    assert_eq!(before["affordances"], shown);
    assert_eq!(
        server.admin("GET", "auth-tokens", Value::Null).await["items"],
        json!([])
    );
    for request in [
        server
            .http
            .post(url(1, ""))
            .bearer_auth(TOKEN)
            .json(&json!({})),
        server
            .http
            .post(url(2, ""))
            .header("authorization", format!("Macaroon {TOKEN}"))
            .json(&json!({})),
        server
            .http
            .post(url(3, ""))
            .basic_auth("", Some(TOKEN))
            .json(&json!({})),
        server
            .http
            .post(url(4, ""))
            .json(&json!({"auth-token": TOKEN})),
        server
            .http
            .post(url(5, ""))
            .json(&json!({"machine-token": TOKEN})),
        server
            .http
            .post(format!("{}/api/machine-tokens", server.url))
            .json(&json!({"machine-id": id(6), "resource-token": TOKEN})),
    ] {
        let (status, answer, _) = answered(request).await;
        assert_eq!((status, &answer["tier"]), (200, &json!("beta")), "{answer}");
    }
    assert!(info(1).await["enabled-at"].is_string());
    let listed = server.admin("GET", "auth-tokens", Value::Null).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(listed["items"][0]["machines"], 6);
}

#[tokio::test]
async fn what_a_contract_does_not_cover_is_refused() {
    let contracts = ContractsServer::start().await;
    let server = TestServer::with(using(&contracts)).await;
    let limits = json!({"tier": "stable", "architectures": ["s390x"], "kernelFlavors": ["generic"], "minKernelVersion": "5.15"});
    contracts.grant(TOKEN, &id(1), limits);
    let enable = async |architecture: &str, kernel: &str| {
        let report = json!({"resource-token": TOKEN, "machine-id": id(1), "architecture": architecture, "kernel": kernel});
        let (status, answer, _) = register(&server, &id(1), report.clone()).await;
        let old = server
            .http
            .post(format!("{}/api/machine-tokens", server.url))
            .json(&report);
        let (old_status, old_answer, _) = answered(old).await;
        assert_eq!(status, old_status, "{answer} {old_answer}");
        let told = answer["detail"].as_str().unwrap_or_default().to_owned();
        if status != 200 {
            assert!(
                old_answer["error"]
                    .as_str()
                    .unwrap()
                    .contains("unsupported kernel"),
                "{old_answer}"
            );
        }
        (status, told)
    };
    for (architecture, kernel, why) in [
        ("amd64", "5.15.0-107.117-generic", "architecture amd64"),
        (
            "s390x",
            "5.15.0-107.117-lowlatency",
            "kernel flavour lowlatency",
        ),
        (
            "s390x",
            "5.4.0-107.117-generic",
            "kernel 5.4.0-107.117-generic",
        ),
    ] {
        let (status, told) = enable(architecture, kernel).await;
        assert_eq!(status, 403, "{told}");
        assert!(told.contains(why) && told.contains("contract"), "{told}");
    }
    assert_eq!(enable("s390x", "5.15.0-107.117-generic").await.0, 200);
    // Another machine's token, one without Livepatch, nonsense of the service.
    let (status, answer, _) = register(&server, &id(2), json!({"resource-token": TOKEN})).await;
    assert_eq!((status, answer), (401, json!("unauthorized")));
    let old = server
        .http
        .post(format!("{}/api/machine-tokens", server.url));
    let (status, answer, _) =
        answered(old.json(&json!({"machine-id": id(2), "resource-token": TOKEN}))).await;
    assert_eq!(
        (status, answer),
        (403, json!({"error": "Unknown Auth-Token"}))
    );
    contracts.deny("not-entitled", &id(3));
    assert_eq!(
        register(&server, &id(3), json!({"resource-token": "not-entitled"}))
            .await
            .0,
        401
    );
    for nonsense in [
        (StatusCode::OK, "<html>"),
        (StatusCode::OK, "{}"),
        (StatusCode::FOUND, ""),
    ] {
        contracts.break_with(Some(nonsense));
        assert_eq!(
            register(&server, &id(4), json!({"resource-token": TOKEN}))
                .await
                .0,
            503
        );
    }
    // A refusal is remembered as well; trouble is not.
    contracts.break_with(None);
    contracts.grant(TOKEN, &id(2), json!({"tier": "stable"}));
    contracts.grant(TOKEN, &id(4), json!({"tier": "stable"}));
    assert_eq!(
        register(&server, &id(2), json!({"resource-token": TOKEN}))
            .await
            .0,
        401
    );
    assert_eq!(
        register(&server, &id(4), json!({"resource-token": TOKEN}))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn an_administrator_maps_cuts_off_and_lets_in_again() {
    let contracts = ContractsServer::start().await;
    let server = TestServer::with(using(&contracts)).await;
    for n in 1..=3 {
        contracts.grant(TOKEN, &id(n), json!({"tier": "updates"}));
    }
    let enable = async |n: u32| register(&server, &id(n), json!({"resource-token": TOKEN})).await;
    // A tier that is not here: nothing is made, and what would help is said.
    let (status, answer, _) = enable(1).await;
    let detail = answer["detail"].as_str().unwrap();
    assert_eq!(status, 403, "{detail}");
    assert!(
        detail.contains("tier updates") && detail.contains("contracts:updates"),
        "{detail}"
    );
    server.token("contracts:updates", "candidate").await;
    let (status, answer, _) = enable(1).await;
    assert_eq!((status, &answer["tier"]), (200, &json!("candidate")));
    let token = answer["machine-token"].clone();
    assert_eq!(check(&server, &id(1), &token).await.0, 200);
    // Cut off, all of them and for good, also where another replica asks.
    server
        .admin("DELETE", "auth-tokens/contracts:updates", Value::Null)
        .await;
    assert_eq!(check(&server, &id(1), &token).await.0, 401);
    let beside = server.beside(using(&contracts)).await;
    for server in [&server, &beside] {
        let (status, answer, _) = register(server, &id(2), json!({"resource-token": TOKEN})).await;
        let detail = answer["detail"].as_str().unwrap();
        assert_eq!(status, 403, "{detail}");
        assert!(detail.contains("revoked"), "{detail}");
    }
    server.token("contracts:updates", "edge").await;
    let (status, answer, _) = enable(3).await;
    assert_eq!((status, &answer["tier"]), (200, &json!("edge")));
}

#[tokio::test]
async fn machines_that_come_at_once_to_two_replicas_make_one_membership() {
    let contracts = ContractsServer::start().await;
    let server = TestServer::with(using(&contracts)).await;
    let beside = server.beside(using(&contracts)).await;
    let registrations = (1..=12).map(|n| {
        contracts.grant(TOKEN, &id(n), json!({"tier": "stable"}));
        let server = if n % 2 == 0 { &server } else { &beside };
        async move { register(server, &id(n), json!({"resource-token": TOKEN})).await }
    });
    for (status, answer, _) in futures_util::future::join_all(registrations).await {
        assert_eq!(
            (status, &answer["tier"]),
            (200, &json!("stable")),
            "{answer}"
        );
    }
    let listed = server.admin("GET", "auth-tokens", Value::Null).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed["items"][0]["machines"], 12);
}

#[tokio::test]
async fn tokens_of_this_server_never_reach_the_service() {
    let contracts = ContractsServer::start().await;
    let server = TestServer::with(using(&contracts)).await;
    let mine = server.token("mine", "edge").await;
    let (status, answer, _) = register(&server, &id(1), json!({"auth-token": mine})).await;
    assert_eq!(status, 200);
    let machine_token = answer["machine-token"].as_str().unwrap();
    let long = "x".repeat(9000);
    let uuid = uuid::Uuid::new_v4().to_string();
    let altered = format!("{mine}x");
    for token in [
        altered.as_str(),
        "lpy_something",
        machine_token,
        &uuid,
        &long,
        "short",
        "white space inside",
        "n\u{f6}n-ascii",
    ] {
        assert_eq!(
            register(&server, &id(2), json!({"resource-token": token}))
                .await
                .0,
            401,
            "{token}"
        );
    }
    assert!(contracts.asked().is_empty(), "{:?}", contracts.asked());
    // Where contracts are not enabled nobody is asked about anything.
    let off = TestServer::start().await;
    assert_eq!(
        register(&off, &id(2), json!({"resource-token": TOKEN}))
            .await
            .0,
        401
    );
    healthy(&off, Value::Null).await;
}

#[tokio::test]
async fn a_private_authority_and_credentials_for_a_proxy() {
    let contracts = ContractsServer::with_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, contracts.ca.as_ref().unwrap()).unwrap();
    contracts.grant(TOKEN, &id(1), json!({"tier": "stable"}));
    let url = contracts.url();
    let server = TestServer::with(|config| {
        config.contracts.enabled = true;
        config.contracts.url.clone_from(&url);
        config.contracts.ca = Some(ca);
        config.contracts.user = "site".to_owned();
        config.contracts.password = Secret::new("secret");
    })
    .await;
    let (status, answer, _) = register(&server, &id(1), json!({"resource-token": TOKEN})).await;
    assert_eq!(status, 200, "{answer}");
    let asked = contracts.asked();
    assert_eq!(
        asked[0].headers["proxy-authorization"],
        "Basic c2l0ZTpzZWNyZXQ="
    );
    assert_eq!(asked[0].headers["authorization"], format!("Bearer {TOKEN}"));
    // Without the authority its certificate is not believed.
    let wary = TestServer::with(using(&contracts)).await;
    assert_eq!(
        register(&wary, &id(1), json!({"resource-token": TOKEN}))
            .await
            .0,
        503
    );
    healthy(&wary, json!("ERROR")).await;
}

/// Runs `livepatch-server get-resource-token` with a contract token.
fn get_token(contract_token: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("contract");
    std::fs::write(&file, format!("{contract_token}\n")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_livepatch-server"))
        .args(["get-resource-token", "--contract-token-file"])
        .arg(&file)
        .args(args)
        .env("LP_PATCH_TRUST_POLICY", "off")
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_resource_token_is_fetched_and_kept_as_a_secret() {
    let contracts = ContractsServer::with_tls().await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, contracts.ca.as_ref().unwrap()).unwrap();
    let db = TestDb::new().await;
    let url = contracts.url();
    let env = [
        ("LP_CONTRACTS_URL", url.as_str()),
        ("LP_CONTRACTS_CA", ca.to_str().unwrap()),
        ("LP_DATABASE_CONNECTION_STRING", db.url()),
    ];
    let run = |token: &str, args: &[&str]| get_token(token, args, &env);
    let output = run(CONTRACT_TOKEN, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("canary"), "{}", said(&output));
    let asked = contracts.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].body["hostType"], "container");
    assert!(
        asked[0].body["os"]["kernel"]
            .as_str()
            .is_some_and(|kernel| !kernel.is_empty())
    );
    let pool = livepatch_onprem::db::Db::new(
        &crate::support::db::settings(db.url()),
        std::sync::Arc::new(|_, _, _| {}),
    )
    .unwrap();
    let stored = {
        let conn = pool.conn().await.unwrap();
        tokens::resource_token(&conn).await.unwrap().unwrap()
    };
    assert_eq!(stored.expose(), RESOURCE_TOKEN);
    let raw = db.raw().await;
    let audit = raw
        .query_one(
            "select action, details from audit_log order by seq desc limit 1",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(audit.get::<_, &str>(0), "resource-token.store");
    assert!(!audit.get::<_, &str>(1).contains("canary"));
    // Into a file, which replaces what was there and is its owner's only; or to standard output.
    let file = folder.path().join("token");
    std::fs::write(&file, "old").unwrap();
    let output = run(CONTRACT_TOKEN, &["--output", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        std::fs::read_to_string(&file).unwrap().trim(),
        RESOURCE_TOKEN
    );
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let output = run(CONTRACT_TOKEN, &["--print"]);
    assert_eq!(output.stdout, format!("{RESOURCE_TOKEN}\n").as_bytes());
    // A token that is not good: refused, said so, not repeated.
    let output = run("another-canary", &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(
        text.contains("401") && text.contains("contract token") && !text.contains("canary"),
        "{text}"
    );
    let output = run("two words", &[]);
    assert!(
        !output.status.success() && said(&output).contains("one token"),
        "{}",
        said(&output)
    );
    // Through a proxy, which sees the whole address and its own credentials.
    let proxy = ContractsServer::start().await;
    let proxy_url = format!("http://user:pass@{}", proxy.address);
    let env = [
        ("LP_CONTRACTS_URL", "http://contracts.invalid"),
        ("LP_PATCH_SYNC_PROXY_ENABLED", "true"),
        ("LP_PATCH_SYNC_PROXY_HTTP", proxy_url.as_str()),
        ("LP_DATABASE_CONNECTION_STRING", db.url()),
    ];
    let output = get_token(CONTRACT_TOKEN, &["--print"], &env);
    assert!(output.status.success(), "{}", said(&output));
    let asked = proxy.asked();
    assert_eq!(asked[0].headers["host"], "contracts.invalid");
    assert_eq!(
        asked[0].headers["proxy-authorization"],
        "Basic dXNlcjpwYXNz"
    );
}
