//! Sync with the directory driver: really signed bundles from a folder, through the whole server.

use crate::support::kmod::{bundle_name, foreign_bundle, real_bundle};
use crate::support::server::{Machine, TestServer};
use livepatch_onprem::config::{Config, SyncDriver};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder that holds bundles of these versions.
pub fn folder(versions: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for version in versions {
        put(folder.path(), version);
    }
    folder
}

/// Puts a really signed bundle of this version into a folder.
pub fn put(folder: &Path, version: &str) {
    let bundle = real_bundle(version, "patched");
    std::fs::copy(&bundle, folder.join(bundle.file_name().unwrap())).unwrap();
}

/// Takes a bundle out of a folder.
pub fn take(folder: &Path, version: &str) {
    std::fs::remove_file(folder.join(bundle_name(version).to_string())).unwrap();
}

/// Sync from a folder, only when asked for but for the first time.
pub fn from(folder: &Path) -> impl Fn(&mut Config) + use<> {
    let folder = folder.to_owned();
    move |config| {
        config.patch_sync.enabled = true;
        config.patch_sync.driver = SyncDriver::Directory;
        config.patch_sync.directory = Some(folder.clone());
        config.patch_sync.flavours = Vec::new();
        config.patch_sync.max_shrink = 50;
    }
}

/// The report of a run once it has ended.
pub async fn ended(server: &TestServer, id: i64) -> Value {
    let started = Instant::now();
    loop {
        let report = server
            .admin("GET", &format!("sync/reports/{id}"), Value::Null)
            .await;
        if !report["run"]["finished-at"].is_null() {
            return report;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{report:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Asks for a run, and waits for the end of the first one that began afterwards.
pub async fn triggered(server: &TestServer) -> Value {
    loop {
        let run = server.admin("POST", "sync/trigger", Value::Null).await;
        let report = ended(server, run["id"].as_i64().unwrap()).await;
        if run["state"] == "queued" && run["cause"] == "trigger" {
            return report;
        }
    }
}

/// The patches that people see.
async fn patches(server: &TestServer) -> Vec<String> {
    let page = server.admin("GET", "patches", Value::Null).await;
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|patch| patch["version"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_comes_in_by_itself_and_nothing_is_fetched_twice() {
    let source = folder(&["107.1", "107.2"]);
    std::fs::write(source.path().join("notes.txt"), "hello").unwrap();
    let server = TestServer::with(from(source.path())).await;
    // The run at the start.
    let first = ended(&server, 1).await;
    assert_eq!(first["run"]["state"], "done", "{first:#}");
    assert_eq!(first["run"]["cause"], "interval");
    assert_eq!(first["outcome"]["added"], 2);
    assert_eq!(first["outcome"]["new-patches"], json!(["107.1", "107.2"]));
    assert_eq!(patches(&server).await, ["107.2", "107.1"]);
    let ignored = first["items"].as_array().unwrap();
    assert!(
        ignored
            .iter()
            .any(|item| item["filename"] == "notes.txt" && item["result"] == "ignored"),
        "{first:#}"
    );
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    assert_eq!(machine.offered(&server, None).await, "107.2");

    // Nothing new; then one more, a foreign one, and one that is not there any more.
    let second = triggered(&server).await;
    assert_eq!(second["outcome"]["there"], 2, "{second:#}");
    assert_eq!(second["run"]["progress"]["bytes"], 0);
    put(source.path(), "107.3");
    let foreign = foreign_bundle("107.4", "patched");
    std::fs::copy(&foreign, source.path().join(foreign.file_name().unwrap())).unwrap();
    take(source.path(), "107.2");
    let third = triggered(&server).await;
    assert_eq!(third["run"]["state"], "done", "{third:#}");
    let outcome = &third["outcome"];
    assert_eq!(
        (
            &outcome["added"],
            &outcome["quarantined"],
            &outcome["withdrawn"]
        ),
        (&json!(1), &json!(1), &json!(1)),
        "{third:#}"
    );
    assert_eq!(third["items"][0]["result"], "quarantined");
    assert_eq!(machine.offered(&server, None).await, "107.3");
    let held = server.admin("GET", "patches/107.2", Value::Null).await;
    assert!(held.to_string().contains("sync/withdrawn"), "{held:#}");

    // What is in quarantine is not fetched again, what came back is not held any more.
    put(source.path(), "107.2");
    let fourth = triggered(&server).await;
    let outcome = &fourth["outcome"];
    assert_eq!(outcome["quarantined-before"], 1, "{fourth:#}");
    assert_eq!(outcome["fetched"], 0);
    assert_eq!(outcome["returned"], 1);
    let free = server.admin("GET", "patches/107.2", Value::Null).await;
    assert!(!free.to_string().contains("sync/withdrawn"), "{free:#}");
    let audit = server.admin("GET", "audit/verify", Value::Null).await;
    assert_eq!(audit["ok"], true);
}
