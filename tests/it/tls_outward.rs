//! TLS to what the server asks: PostgreSQL, S3, the contracts service and webhooks (upstream servers are in `peer_connection.rs`).
//! Of each: a good certificate, one of a stranger, one for another name, and one that expired.

use crate::support::contracts::ContractsServer;
use crate::support::pki::{Authority, Pki, Request, fronts};
use crate::support::postgres_tls::TlsPostgres;
use crate::support::process::until;
use crate::support::s3;
use livepatch_onprem::app;
use livepatch_onprem::blob::Store;
use livepatch_onprem::config::{
    Config, Contracts, Database, PatchStorage, Proxy, StorageKind, TrustPolicy, Webhooks,
};
use livepatch_onprem::db::Db;
use livepatch_onprem::domain::Secret;
use livepatch_onprem::upstream::contracts::Client;
use livepatch_onprem::upstream::webhook::{Message, SendError, Sender};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn database(url: String, ca: Option<&Path>) -> Database {
    Database {
        connection_string: Secret::new(url),
        ca: ca.map(PathBuf::from),
        ..Database::default()
    }
}

/// Connects; why not, if so.
async fn connect(database: &Database) -> Result<(), String> {
    let db = Db::new(database, Arc::new(|_, _, _| {}))?;
    let connected = db.conn().await;
    db.close();
    connected.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn postgresql_is_believed_as_far_as_asked() {
    let pki = Pki::new();
    let folder = pki.folder.path();
    let ca = pki.authority.file(folder, "ca.pem");
    let stranger = Authority::new("a stranger");
    let other_ca = stranger.file(folder, "other.pem");
    let good = Request {
        names: &["localhost"],
        ..Request::default()
    };
    let postgres = TlsPostgres::start(&pki.authority.issue(&good));
    let with = |mode: &str, root: &Path| {
        let options = format!("sslmode={mode} sslrootcert={}", root.display());
        database(postgres.url(&options), None)
    };
    // A good one: found good by each way to ask, and with a stranger's authority by none.
    for mode in ["verify-full", "verify-ca", "require", "prefer"] {
        connect(&with(mode, &ca)).await.unwrap();
        let error = connect(&with(mode, &other_ca)).await.unwrap_err();
        assert!(
            error.contains("certificate verify failed"),
            "{mode}: {error}"
        );
    }
    connect(&database(postgres.url(""), Some(&ca)))
        .await
        .unwrap();
    let error = connect(&database(postgres.url(""), Some(&other_ca))).await;
    assert!(error.unwrap_err().contains("certificate verify failed"));
    // Without any authority it is encrypted and not checked, unless that is asked for.
    connect(&database(postgres.url("sslmode=require"), None))
        .await
        .unwrap();
    for mode in ["verify-full", "verify-ca"] {
        let url = postgres.url(&format!("sslmode={mode} sslrootcert=system"));
        let error = connect(&database(url, None)).await.unwrap_err();
        assert!(error.contains("certificate verify failed"), "{error}");
    }
    // Not at all it does not let us in.
    let error = connect(&database(postgres.url("sslmode=disable"), None)).await;
    assert!(error.unwrap_err().contains("no encryption"));
    let error = connect(&with("verify-full", &folder.join("none.pem"))).await;
    let error = error.unwrap_err();
    assert!(
        error.contains("sslrootcert") && error.contains("cannot be read"),
        "{error}"
    );

    // For another name: only `verify-full` looks at it.
    postgres.renew(&pki.authority.issue(&Request {
        names: &["db.example.com"],
        ..good.clone()
    }));
    until("the name is refused", async || {
        connect(&with("verify-full", &ca))
            .await
            .is_err_and(|e| e.contains("mismatch"))
    })
    .await;
    connect(&with("verify-ca", &ca)).await.unwrap();
    connect(&database(postgres.url(""), Some(&ca)))
        .await
        .unwrap();

    postgres.renew(&pki.authority.issue(&Request {
        days: (-30, -1),
        ..good
    }));
    for mode in ["verify-full", "verify-ca", "require"] {
        until("the expired one is refused", async || {
            connect(&with(mode, &ca))
                .await
                .is_err_and(|e| e.contains("expired"))
        })
        .await;
    }
}

#[tokio::test]
async fn a_whole_server_lives_on_a_verified_database() {
    let pki = Pki::new();
    let ca = pki.authority.file(pki.folder.path(), "ca.pem");
    let postgres = TlsPostgres::start(&pki.renew());
    let verified = format!("sslmode=verify-full sslrootcert={}", ca.display());
    let mut config = Config {
        database: database(postgres.url(&verified), None),
        patch_storage: PatchStorage {
            // Its objects by a connection of their own, with the same words.
            kind: StorageKind::Postgres,
            postgres_connection_string: Secret::new(postgres.url(&verified)),
            ..PatchStorage::default()
        },
        ..Config::default()
    };
    config.server.address = ([127, 0, 0, 1], 0).into();
    config.patch_trust.policy = TrustPolicy::Off;
    let running = app::start(config.clone(), true).await.unwrap();
    let url = format!("http://{}/debug/status", running.address);
    until("everything is well", async || {
        let answer = reqwest::get(&url).await.unwrap();
        answer.status() == 200
    })
    .await;
    assert!(running.stop().await);
    // The object store on its own: not with a stranger's authority.
    let other = Authority::new("a stranger").file(pki.folder.path(), "other.pem");
    let wrong = format!("sslmode=verify-full sslrootcert={}", other.display());
    config.patch_storage.postgres_connection_string = Secret::new(postgres.url(&wrong));
    let error = app::start(config, true).await.unwrap_err();
    assert!(
        error.to_string().contains("certificate verify failed"),
        "{error}"
    );
}

#[tokio::test]
async fn s3_is_believed_only_by_its_authority_name_and_date() {
    let pki = Pki::new();
    let ca = pki.authority.file(pki.folder.path(), "ca.pem");
    let (mut config, _folder) = s3::bucket();
    let plain = config.s3.endpoint.strip_prefix("http://").unwrap();
    let plain: SocketAddr = plain.trim_end_matches('/').parse().unwrap();
    config.s3.ca = Some(ca);
    for (front, refused) in fronts(&pki.authority, plain).await {
        config.s3.endpoint = format!("https://{front}");
        let store = Store::open(&config, &Database::default()).await.unwrap();
        match (store.health().await, refused) {
            (Ok(()), None) => {}
            (Err(error), Some(why)) => {
                assert!(error.to_string().contains(why), "{why}: {error}");
            }
            (answer, _) => panic!("{refused:?}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn the_contracts_service_is_believed_only_by_its_authority_name_and_date() {
    let pki = Pki::new();
    let contracts = ContractsServer::start().await;
    let mut config = Contracts {
        enabled: true,
        ca: Some(pki.authority.file(pki.folder.path(), "ca.pem")),
        ..Contracts::default()
    };
    for (front, refused) in fronts(&pki.authority, contracts.address).await {
        config.url = format!("https://{front}");
        let client = Client::new(&config, &Proxy::default()).unwrap();
        match (client.reachable().await, refused) {
            (Ok(()), None) => {}
            (Err(error), Some(why)) => {
                assert!(error.to_string().contains(why), "{why}: {error}");
            }
            (answer, _) => panic!("{refused:?}: {answer:?}"),
        }
    }
}

#[tokio::test]
async fn webhooks_are_believed_only_by_their_authority_name_and_date() {
    let pki = Pki::new();
    let taking = axum::Router::new().fallback(|| async { "taken" });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, taking).await });
    let config = Webhooks {
        ca: Some(pki.authority.file(pki.folder.path(), "ca.pem")),
        allow_private_addresses: true,
        ..Webhooks::default()
    };
    let sender = Sender::new(&config, &Proxy::default()).unwrap();
    let message = Message {
        id: "1",
        timestamp: 1,
        signature: "v1,x",
        body: "{}",
    };
    for (front, refused) in fronts(&pki.authority, plain).await {
        let sent = sender.send(&format!("https://{front}/hook"), message).await;
        match (sent, refused) {
            (Ok(()), None) => {}
            (Err(SendError::Failed(error)), Some(why)) => {
                assert!(error.contains(why), "{why}: {error}");
            }
            (answer, _) => panic!("{refused:?}: {answer:?}"),
        }
    }
}
