//! Signed addresses of downloads: for one file and machine, until a time, and nothing without.

use crate::support::kmod::{self, bundle_name};
use crate::support::process::until;
use crate::support::scripted;
use crate::support::server::{Machine, TestServer};
use std::time::Duration;

async fn get(server: &TestServer, url: &str, token: Option<&str>) -> u16 {
    let mut request = server.http.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.unwrap().status().as_u16()
}

async fn offered(server: &TestServer, machine: &Machine) -> String {
    let answer = machine.check(server, None).await;
    answer["patches"][0]["url"].as_str().unwrap().to_owned()
}

async fn ready(validity: Duration) -> (TestServer, Machine) {
    let server = TestServer::with(|config| {
        config.server.signed_downloads = true;
        config.server.signed_validity = validity;
    })
    .await;
    let outcome = server.upload(&kmod::real_bundle("107.1", "patched")).await;
    assert_eq!(outcome["result"], "stored", "{outcome}");
    let token = server.token("web", "edge").await;
    let machine = Machine::register(&server, 1, &token).await;
    (server, machine)
}

#[tokio::test]
async fn only_the_address_as_it_was_given_works() {
    let (server, machine) = ready(Duration::from_hours(1)).await;
    let url = offered(&server, &machine).await;
    assert!(url.contains(&format!("machine={}", machine.id)), "{url}");
    assert_eq!(get(&server, &url, None).await, 200);
    let plain = url.split('?').next().unwrap();
    assert_eq!(get(&server, plain, None).await, 401);
    // Whoever changes any part of it has nothing.
    let (before, signature) = url.rsplit_once("signature=").unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    for wrong in [
        format!("{before}signature={other}{}", &signature[1..]),
        format!("{before}signature="),
        url.replace("machine=0", "machine=1"),
        url.replace("expires=", "expires=9"),
        url.replace(".tar.bz2", ".tar.bz3"),
    ] {
        let status = get(&server, &wrong, None).await;
        assert!(status == 401 || status == 404, "{status} {wrong}");
    }
    // Another spelling of the machine's id is the same machine.
    assert_eq!(
        get(&server, &url.replace("/v1/patches/", "/patches/"), None).await,
        200
    );
    // The machine's own token does as well; no other token does.
    assert_eq!(get(&server, plain, Some(&machine.token)).await, 200);
    assert_eq!(get(&server, plain, Some("lpm_wrong")).await, 401);
    let revoked = server
        .admin("DELETE", "auth-tokens/web", serde_json::Value::Null)
        .await;
    assert!(revoked.is_null(), "{revoked}");
    assert_eq!(get(&server, plain, Some(&machine.token)).await, 401);
    // What is not there is not found, or not said; both are right. What is not signed is never served.
    let missing = format!("{}/v1/patches/{}", server.url, bundle_name("1.1"));
    assert_eq!(get(&server, &missing, None).await, 401);
}

#[tokio::test]
async fn an_address_expires() {
    let (server, machine) = ready(Duration::from_secs(1)).await;
    let url = offered(&server, &machine).await;
    until("the address expires", async || {
        get(&server, &url, None).await != 200
    })
    .await;
    let answer = server.http.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.text().await.unwrap().contains("has expired"));
}

/// The reference client downloads by such an address and verifies what it got.
#[tokio::test]
async fn the_reference_client_uses_it_as_it_is() {
    let (server, _) = ready(Duration::from_hours(1)).await;
    let token = server.token("mail", "edge").await;
    let machine = scripted::Machine::new();
    let (kernel, cert) = (kmod::kernel().to_string(), kmod::keys().cert);
    let ended = machine
        .run(&[
            "--machine-id",
            "0123456789abcdef0123456789abcdef",
            "--arch",
            "amd64",
            "--kernel",
            &kernel,
            "enable",
            "--server",
            &server.url,
            "--cert",
            cert.to_str().unwrap(),
            &token,
        ])
        .await;
    assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
    assert_eq!(machine.files().len(), 1, "{:?}", machine.files());
}
