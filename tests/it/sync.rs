//! Sync with the directory driver: really signed bundles from a folder, through the whole server.

use crate::support::PASSWORD;
use crate::support::kmod::{bundle_name, foreign_bundle, real_bundle};
use crate::support::process::until;
use crate::support::server::{Machine, TestServer};
use livepatch_onprem::config::{Config, SyncDriver};
use serde_json::{Value, json};
use std::path::Path;
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
    let raw = server.db.raw().await;
    let sql = "select from sync_runs where id = $1 and finished_at is not null";
    // The first run begins by itself, when a leader is found.
    until("the end of the run", async || {
        !raw.query(sql, &[&id]).await.unwrap().is_empty()
    })
    .await;
    seen(server).await;
    let path = format!("sync/reports/{id}");
    server.admin("GET", &path, Value::Null).await
}

/// Until the server's snapshot holds what is committed: a run is recorded as ended in the transaction that publishes, a moment before.
async fn seen(server: &TestServer) {
    let sql = "select coalesce(max(seq), 0) from audit_log where action = 'sync.publish'";
    let row = server.db.raw().await.query_one(sql, &[]).await.unwrap();
    let published = row.get::<_, i64>(0).unsigned_abs();
    until("the snapshot", async || {
        server.core().snapshots.get().version >= published
    })
    .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_lost_much_waits_for_a_person() {
    let source = folder(&["107.1", "107.2", "107.3"]);
    let server = TestServer::with(from(source.path())).await;
    assert_eq!(ended(&server, 1).await["outcome"]["added"], 3);
    for version in ["107.1", "107.2"] {
        take(source.path(), version);
    }
    put(source.path(), "107.4");
    let waiting = triggered(&server).await;
    assert_eq!(waiting["run"]["state"], "waiting", "{waiting:#}");
    assert_eq!(waiting["run"]["code"], "shrink");
    assert_eq!(patches(&server).await, ["107.3", "107.2", "107.1"]);
    let status = server.admin("GET", "sync/status", Value::Null).await;
    let shrink = &status["pending"]["shrink"];
    assert_eq!((&shrink["gone"], &shrink["before"]), (&json!(2), &json!(3)));
    assert_eq!(status["last"]["state"], "waiting");

    // Only exactly that can be confirmed.
    let url = format!("{}/v1/admin/sync/confirm", server.url);
    let wrong = server
        .http
        .post(url)
        .basic_auth("admin", Some(PASSWORD))
        .json(&json!({ "digest": "0".repeat(64) }))
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 409);
    let digest = status["pending"]["digest"].clone();
    let confirmed = server
        .admin("POST", "sync/confirm", json!({ "digest": digest }))
        .await;
    let open = confirmed["running"]["id"].as_i64();
    let last = confirmed["last"]["id"].as_i64();
    let done = ended(&server, open.or(last).unwrap()).await;
    assert_eq!(done["run"]["state"], "done", "{done:#}");
    assert_eq!(done["outcome"]["withdrawn"], 2);
    assert_eq!(done["outcome"]["added"], 1);
    let status = server.admin("GET", "sync/status", Value::Null).await;
    assert!(status["pending"].is_null(), "{status:#}");
    assert!(status["age"].as_u64().is_some_and(|age| age < 600));
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    assert_eq!(machine.offered(&server, None).await, "107.4");
}

/// Waits for a job, and returns it.
async fn job(server: &TestServer, started: &Value) -> Value {
    let id = started["id"].as_i64().unwrap();
    let job = livepatch_onprem::service::jobs::wait(server.core(), id)
        .await
        .unwrap();
    serde_json::to_value(job).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_say_what_they_change_and_only_pruning_removes() {
    let source = folder(&["107.1", "107.2"]);
    let mut server = TestServer::with(from(source.path())).await;
    assert_eq!(ended(&server, 1).await["outcome"]["added"], 2);
    let asked = server
        .admin("GET", "sync/filters?flavors=other", Value::Null)
        .await;
    assert_eq!(asked["known"], 2);
    assert_eq!(asked["change"]["drops"]["payloads"], 2, "{asked:#}");
    assert_eq!(asked["change"]["adds"]["payloads"], 0);

    server.stop().await;
    put(source.path(), "107.3");
    let narrow = server
        .beside(|config| {
            from(source.path())(config);
            config.patch_sync.flavours = vec!["other".to_owned()];
        })
        .await;
    let report = triggered(&narrow).await;
    let reports = narrow.admin("GET", "sync/reports", Value::Null).await;
    assert!(reports["items"].as_array().unwrap().len() >= 2);
    assert_eq!(report["outcome"]["added"], 0, "{report:#}");
    assert_eq!(
        report["outcome"]["skipped"][0]["filter"],
        "patch-sync.flavors"
    );
    assert_eq!(report["outcome"]["skipped"][0]["payloads"], 1);
    // The run at the start was the first with these filters.
    let second = ended(&narrow, 2).await;
    let change = &second["outcome"]["filter-change"];
    assert_eq!(change["drops"]["payloads"], 2, "{second:#}");
    assert_eq!(patches(&narrow).await, ["107.2", "107.1"]);

    // Nothing goes while a machine has reported the kernel.
    let machine = Machine::register(&narrow, 1, &narrow.token("edge", "edge").await).await;
    assert_eq!(machine.offered(&narrow, None).await, "107.2");
    let started = narrow
        .admin("POST", "storage/prune", json!({ "dry-run": false }))
        .await;
    let kept = job(&narrow, &started).await;
    assert_eq!(kept["progress"]["counts"], json!({ "kept": 2 }), "{kept:#}");
    let path = format!("machines/{}", machine.id);
    narrow.admin("DELETE", &path, Value::Null).await;
    let started = narrow
        .admin("POST", "storage/prune", json!({ "dry-run": true }))
        .await;
    let dry = job(&narrow, &started).await;
    assert_eq!(dry["progress"]["counts"], json!({ "pruned": 2 }), "{dry:#}");
    assert_eq!(patches(&narrow).await, ["107.2", "107.1"]);
    let started = narrow
        .admin("POST", "storage/prune", json!({ "dry-run": false }))
        .await;
    let pruned = job(&narrow, &started).await;
    assert_eq!(pruned["progress"]["counts"], json!({ "pruned": 2 }));
    let page = narrow.admin("GET", "payloads", Value::Null).await;
    assert_eq!(page["items"], json!([]));
    let objects = narrow.core().store.list_payloads();
    let left = futures_util::StreamExt::count(objects).await;
    assert_eq!(left, 0, "objects were left");
    let audit = narrow
        .admin("GET", "audit?action=payload.prune", Value::Null)
        .await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_and_either_may_be_asked() {
    let source = folder(&["107.1"]);
    let server = TestServer::with(from(source.path())).await;
    let replica = server.beside(from(source.path())).await;
    ended(&server, 1).await;
    put(source.path(), "107.2");
    let there = triggered(&replica).await;
    assert_eq!(there["run"]["state"], "done", "{there:#}");
    let here = triggered(&server).await;
    assert_eq!(here["run"]["state"], "done", "{here:#}");
    assert_eq!(patches(&server).await, ["107.2", "107.1"]);
    let status = replica.admin("GET", "sync/status", Value::Null).await;
    assert_eq!(status["leader"]["epoch"], 1, "{status:#}");
    let metrics = |server: &TestServer| server.core().metrics.sync.leads.get();
    assert_eq!(metrics(&server) + metrics(&replica), 1);

    // What is damaged is fetched again.
    let page = server.admin("GET", "payloads", Value::Null).await;
    let sha256 = page["items"][0]["sha256"].as_str().unwrap().to_owned();
    let object = server
        .folder
        .path()
        .join(format!("patches/objects/sha256/{}/{sha256}", &sha256[..2]));
    std::fs::remove_file(object).unwrap();
    let verify = server.admin("POST", "storage/verify", Value::Null).await;
    let verify = job(&server, &verify).await;
    assert_eq!(verify["progress"]["counts"]["missing"], 1, "{verify:#}");
    let healed = triggered(&server).await;
    assert_eq!(healed["outcome"]["healed"], 1, "{healed:#}");
    let verify = server.admin("POST", "storage/verify", Value::Null).await;
    let verify = job(&server, &verify).await;
    assert_eq!(verify["progress"]["counts"], json!({ "verified": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_tell_how_a_run_ended() {
    let source = folder(&["107.1", "107.2", "107.3"]);
    let server = TestServer::with(from(source.path())).await;
    ended(&server, 1).await;
    let (code, said) = server.said(&["sync", "trigger", "--wait"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Here before:   3"), "{said}");
    for version in ["107.1", "107.2"] {
        take(source.path(), version);
    }
    let (code, said) = server.said(&["sync", "trigger", "--wait"]).await;
    assert_eq!(code, 5, "{said}");
    assert!(
        said.contains("waits") && said.contains("sync confirm"),
        "{said}"
    );
    let (code, said) = server.said(&["sync", "preview"]).await;
    assert!(code == 0 && said.contains("2 of 3 payloads"), "{said}");
    let (code, said) = server.said(&["sync", "confirm", "--yes"]).await;
    assert_eq!(code, 0, "{said}");
    let (code, said) = server.said(&["sync", "trigger", "--wait"]).await;
    assert_eq!(code, 0, "{said}");
    let foreign = foreign_bundle("107.4", "patched");
    std::fs::copy(&foreign, source.path().join(foreign.file_name().unwrap())).unwrap();
    let (code, said) = server.said(&["sync", "trigger", "--wait"]).await;
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("signer-not-trusted"), "{said}");
    let (code, said) = server.said(&["sync", "status"]).await;
    assert!(code == 0 && said.contains("Last success:"), "{said}");
    let (code, said) = server.said(&["sync", "report", "1"]).await;
    assert!(code == 0 && said.contains("New patches"), "{said}");
    let (code, said) = server.said(&["sync", "reset"]).await;
    assert_eq!(code, 2, "{said}");
    let (code, said) = server
        .said(&["sync", "filters", "--flavors", "other"])
        .await;
    assert!(code == 0 && said.contains("Drops"), "{said}");
    let (code, said) = server.said(&["storage", "prune", "--dry-run"]).await;
    assert_eq!(code, 0, "{said}");
}
