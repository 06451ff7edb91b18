//! The signing keys of a deployment: made once, replaced, trusted; by the command and beside a running server.

use crate::peer_serving::sync_token;
use crate::support::server::TestServer;
use jiff::Timestamp;
use livepatch_onprem::domain::PublicKey;
use livepatch_onprem::index::accept;
use livepatch_onprem::wire::sync::SignedHead;
use std::process::Output;

async fn command(server: &TestServer, args: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_livepatch-server"))
        .arg("keys")
        .args(args)
        .env_clear()
        .env("LP_DATABASE_CONNECTION_STRING", server.db.url())
        .env("LP_PATCH_TRUST_POLICY", "off")
        .output()
        .await
        .unwrap()
}

async fn said(server: &TestServer, args: &[&str]) -> String {
    let output = command(server, args).await;
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn sealed(server: &TestServer, token: &str) -> SignedHead {
    let url = format!("{}/v1/sync/head", server.url);
    let request = server.http.get(url).bearer_auth(token);
    request.send().await.unwrap().json().await.unwrap()
}

fn code(sealed: &SignedHead, trusted: &[PublicKey]) -> &'static str {
    accept(sealed, trusted, None, Timestamp::now()).map_or_else(|e| e.code(), |_| "good")
}

#[tokio::test]
async fn a_key_is_made_once_and_replaced_without_a_break() {
    let server = TestServer::start().await;
    let token = sync_token(&server, "one", "edge").await;
    let first: PublicKey = said(&server, &["generate"]).await.parse().unwrap();
    assert_eq!(said(&server, &["generate"]).await, first.to_string());
    assert_eq!(said(&server, &["show"]).await, first.to_string());
    assert_eq!(code(&sealed(&server, &token).await, &[first]), "good");

    let second: PublicKey = said(&server, &["rotate"]).await.parse().unwrap();
    assert_ne!(second, first);
    // Whoever trusts either believes it, and is told of both.
    let both = sealed(&server, &token).await;
    assert_eq!(
        (code(&both, &[first]), code(&both, &[second])),
        ("good", "good")
    );
    let head = accept(&both, &[first], None, Timestamp::now()).unwrap();
    assert_eq!(head.keys, [second, first]);
    let shown = said(&server, &["show"]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], second.to_string());
    assert!(
        lines[1].starts_with(&first.to_string()) && lines[1].contains("replaced"),
        "{shown}"
    );

    // A key that got out signs no more.
    let third: PublicKey = said(&server, &["rotate", "--drop-old"])
        .await
        .parse()
        .unwrap();
    let alone = sealed(&server, &token).await;
    assert_eq!(code(&alone, &[third]), "good");
    for old in [first, second] {
        assert_eq!(code(&alone, &[old]), "wrong-key");
    }
    // An old key is forgotten by itself.
    said(&server, &["rotate"]).await;
    let rows = server.db.raw().await;
    let aged = "update server_keys set created_at = now() - interval '91 days' where name like 'sync-signing-was-%'";
    assert_eq!(rows.execute(aged, &[]).await.unwrap(), 1);
    assert_eq!(said(&server, &["show"]).await.lines().count(), 1);
    // Each of it stands in the audit log; no private key does.
    let sql =
        "select string_agg(action, ' ' order by seq) from audit_log where action like 'keys.%'";
    let actions: String = rows.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(
        actions.replace(" keys.generate", ""),
        "keys.generate keys.rotate keys.rotate keys.rotate"
    );
}

#[tokio::test]
async fn keys_of_others_are_trusted_listed_and_forgotten() {
    let server = TestServer::start().await;
    let key = format!("ed25519:{}", "0a".repeat(32));
    assert!(said(&server, &["list"]).await.starts_with("No keys"));
    said(&server, &["trust", &key, "--name", "staging"]).await;
    let listed = said(&server, &["list"]).await;
    assert!(
        listed.contains(&key) && listed.contains("staging"),
        "{listed}"
    );
    let again = command(&server, &["trust", &key, "--name", "other"]).await;
    let error = String::from_utf8(again.stderr).unwrap();
    assert!(
        !again.status.success() && error.contains("already"),
        "{error}"
    );
    assert!(said(&server, &["untrust", &key]).await.contains("staging"));
    assert!(!command(&server, &["untrust", &key]).await.status.success());
    for wrong in [
        &["trust", "ed25519:00", "--name", "x"][..],
        &["trust", &key][..],
        &["trust", &key, "--name", "a/b"][..],
    ] {
        assert!(!command(&server, wrong).await.status.success(), "{wrong:?}");
    }
    let rows = server.db.raw().await;
    let sql = "select count(*) from audit_log where action in ('keys.trust', 'keys.untrust')";
    let logged: i64 = rows.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(logged, 2);
}
