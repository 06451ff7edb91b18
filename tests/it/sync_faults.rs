//! Sync when things go wrong: whatever happens, nothing half visible, and the next run completes without fetching again.

use crate::support::PASSWORD;
use crate::support::db::TestDb;
use crate::support::kmod::{bundle_name, keys, real_bundle};
use crate::support::process::{self, comes, send_signal};
use crate::support::s3;
use crate::support::server::{Machine, TestServer};
use crate::sync::{ended, folder, from, put, triggered};
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::db::leader;
use livepatch_onprem::service::failpoint::{SYNC_FAILPOINTS, VARIABLE as FAILPOINT_VARIABLE};
use livepatch_onprem::service::sync::{self, Cause, Fence, Run};
use livepatch_onprem::upstream;
use livepatch_onprem::wire::admin::SyncState;
use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A server as a process of its own.
struct Process(Child);

impl Process {
    /// On this database and storage, with this folder as upstream.
    fn start(db: &TestDb, storage: &Path, source: &Path, failpoint: Option<&str>) -> Self {
        let config = storage.join(format!("{}.yaml", s3::unique("server")));
        let text = json!({
            "server": { "server-address": "127.0.0.1:0" },
            "database": { "connection-string": db.url() },
            "patch-storage": { "type": "filesystem", "filesystem-path": storage.join("patches") },
            "patch-trust": { "certificates": keys().cert },
            "patch-sync": { "enabled": true, "directory": source, "flavors": bundle_name("107.1").kernel.flavour(),
                "interval": "1h", "max-shrink": 50 },
        });
        // JSON is YAML.
        std::fs::write(&config, text.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-server"));
        command
            .args(["serve", "--config"])
            .arg(&config)
            .env_remove(FAILPOINT_VARIABLE)
            .stdin(Stdio::null());
        if let Some(failpoint) = failpoint {
            command.env(FAILPOINT_VARIABLE, failpoint);
        }
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        send_signal(name, self.0.id());
    }

    /// Waits for its end, and gives the signal that ended it.
    async fn ended(mut self) -> Option<i32> {
        let ended = comes("its end", async || {
            self.0.try_wait().unwrap().ok_or("it runs")
        });
        ended.await.signal()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a query gives one row.
async fn until(db: &TestDb, sql: &str) {
    let raw = db.raw().await;
    process::until(sql, async || !raw.query(sql, &[]).await.unwrap().is_empty()).await;
}

async fn count(db: &TestDb, what: &str) -> i64 {
    let sql = format!("select count(*) from {what}");
    db.raw().await.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_staged_is_not_seen_and_not_fetched_again() {
    let source = folder(&["107.1", "107.2"]);
    let broken = source.path().join(bundle_name("107.3").to_string());
    std::fs::write(&broken, "").unwrap();
    let server = TestServer::with(from(source.path())).await;
    let failed = ended(&server, 1).await;
    assert_eq!(failed["run"]["state"], "failed", "{failed:#}");
    assert_eq!(failed["run"]["code"], "payloads");
    assert_eq!(failed["items"][0]["result"], "failed");
    assert_eq!(count(&server.db, "payloads where staged > 0").await, 2);
    for path in ["payloads", "patches"] {
        let page = server.admin("GET", path, Value::Null).await;
        assert_eq!(page["items"], json!([]), "{path}");
    }
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    assert_eq!(machine.offered(&server, None).await, "");
    assert_eq!(count(&server.db, "promotions").await, 0);

    // Somebody brings one of them: it is seen at once, and only it.
    let outcome = server.upload(&real_bundle("107.1", "patched")).await;
    assert_eq!(outcome["result"], "stored", "{outcome:#}");
    assert_eq!(machine.offered(&server, None).await, "107.1");
    assert_eq!(count(&server.db, "promotions").await, 1);
    // A staged patch can not be promoted: there is none that anybody sees.
    let url = format!("{}/v1/admin/patches/107.2/promote", server.url);
    let request = server.http.post(url).basic_auth("admin", Some(PASSWORD));
    let answer = request.json(&json!({ "tier": "beta" })).send().await;
    assert_eq!(answer.unwrap().status(), 404);

    put(source.path(), "107.3");
    let done = triggered(&server).await;
    assert_eq!(done["run"]["state"], "done", "{done:#}");
    let outcome = &done["outcome"];
    assert_eq!(
        (&outcome["resumed"], &outcome["fetched"], &outcome["added"]),
        (&json!(1), &json!(1), &json!(2)),
        "{done:#}"
    );
    assert_eq!(machine.offered(&server, None).await, "107.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_a_run_leaves_nothing_half_visible() {
    let source = folder(&["107.1", "107.2"]);
    for point in SYNC_FAILPOINTS.iter().filter(|p| !p.starts_with("prune")) {
        let db = std::sync::Arc::new(TestDb::new().await);
        let storage = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let process = Process::start(&db, storage.path(), source.path(), Some(point));
        assert_eq!(process.ended().await, Some(9), "{point}");
        let visible = count(&db, "payloads where staged is null").await;
        let all = *point == "publish-after-commit";
        assert_eq!(visible, if all { 2 } else { 0 }, "{point}");
        let staged = count(&db, "payloads where staged > 0").await;

        let server = TestServer::beside_of(db, storage, from(source.path())).await;
        until(
            &server.db,
            "select from sync_runs having min(state) = 'done' or max(id) > 1",
        )
        .await;
        let done = triggered(&server).await;
        assert_eq!(done["outcome"]["there"], 2, "{point}: {done:#}");
        let fetched = "select coalesce(sum((progress::jsonb #>> '{outcome,fetched}')::int), 0) from sync_runs where state = 'done'";
        let fetched: i64 = server
            .db
            .raw()
            .await
            .query_one(fetched, &[])
            .await
            .unwrap()
            .get(0);
        let expected = if all { 2 } else { 2 - staged };
        assert_eq!(fetched, expected, "{point}");
        let verdict = server.admin("GET", "audit/verify", Value::Null).await;
        assert_eq!(verdict["ok"], true, "{point}");
        assert_eq!(
            count(&server.db, "audit_log where action = 'sync.publish'").await,
            1,
            "{point}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_ends_the_run_and_the_next_one_completes() {
    let source = folder(&["107.1"]);
    let server = TestServer::with(from(source.path())).await;
    ended(&server, 1).await;
    put(source.path(), "107.2");
    // The run stands at its last transaction while every connection of the server is cut.
    let mut raw = server.db.raw().await;
    let tx = raw.transaction().await.unwrap();
    tx.batch_execute("lock table sync_items in exclusive mode")
        .await
        .unwrap();
    let run = server.admin("POST", "sync/trigger", Value::Null).await;
    until(
        &server.db,
        "select from pg_locks where not granted and relation = 'sync_items'::regclass
            and database = (select oid from pg_database where datname = current_database())",
    )
    .await;
    server
        .db
        .raw()
        .await
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid() and application_name = 'livepatch-server'",
            &[],
        )
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    let id = run["id"].as_i64().unwrap();
    let path = format!("{}/v1/admin/sync/reports/{id}", server.url);
    let failed = comes("the end of the run", async || {
        let request = server.http.get(&path).basic_auth("admin", Some(PASSWORD));
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let report: Value = answer.json().await.unwrap_or_default();
        if status == 200 && !report["run"]["finished-at"].is_null() {
            Ok(report)
        } else {
            Err(format!("{status} {report}"))
        }
    })
    .await;
    assert_eq!(failed["run"]["state"], "failed", "{failed:#}");
    // The leader's own connection was cut too. A run that begins before it has noticed is ended by its next term.
    let mut done = triggered(&server).await;
    while done["run"]["code"] == "died" || done["run"]["code"] == "superseded" {
        done = triggered(&server).await;
    }
    assert_eq!(done["run"]["state"], "done", "{done:#}");
    assert_eq!(count(&server.db, "payloads where staged is null").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_away_ends_the_run_and_the_next_one_completes() {
    let source = folder(&["107.1", "107.2"]);
    let (storage, bucket) = s3::bucket();
    let away = bucket.with_extension("away");
    let server = TestServer::with(|config| {
        from(source.path())(config);
        config.patch_sync.enabled = false;
        config.patch_storage = storage.clone();
    })
    .await;
    std::fs::rename(&bucket, &away).unwrap();
    let mut config = server.core().config.clone();
    config.patch_sync.enabled = true;
    let upstream = upstream::build(&config.patch_sync, Vec::new()).unwrap();
    let actor = Actor {
        name: "tester".to_owned(),
        source: "test".to_owned(),
    };
    let run = Run::configured(server.core(), Cause::Trigger, actor)
        .await
        .unwrap();
    let fence = Fence::of_command();
    let once = async || {
        sync::run(server.core(), upstream.as_ref(), &run, fence)
            .await
            .unwrap()
    };
    let failed = once().await;
    assert_eq!(failed.state, SyncState::Failed, "{failed:?}");
    assert_eq!(count(&server.db, "payloads").await, 0);
    std::fs::rename(&away, &bucket).unwrap();
    let done = once().await;
    assert_eq!(done.outcome.added, 2, "{done:?}");
    assert_eq!(count(&server.db, "payloads where staged is null").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_changes_nothing_when_it_wakes() {
    let source = folder(&["107.1", "107.2"]);
    let db = TestDb::new().await;
    let storage = tempfile::tempdir().unwrap();
    let mut raw = db.raw().await;
    let tx = raw.transaction().await.unwrap();
    tx.batch_execute("lock table sync_items in exclusive mode")
        .await
        .unwrap();
    let first = Process::start(&db, storage.path(), source.path(), None);
    // It stands in the transaction that would make everything visible.
    until(
        &db,
        "select from pg_locks where not granted and relation = 'sync_items'::regclass
            and database = (select oid from pg_database where datname = current_database())",
    )
    .await;
    let epoch = leader::current(&db.db().conn().await.unwrap())
        .await
        .unwrap()
        .unwrap()
        .epoch;
    assert_eq!(epoch, 1);
    first.signal("STOP");
    tx.rollback().await.unwrap();
    let _second = Process::start(&db, storage.path(), source.path(), None);
    until(&db, "select from leader where epoch = 2").await;
    until(&db, "select from sync_runs where state = 'done'").await;
    assert_eq!(count(&db, "payloads where staged is null").await, 2);
    let done = "sync_runs where state = 'done'";
    assert_eq!(count(&db, done).await, 1);

    first.signal("CONT");
    // It notices, and is a candidate again: asking for leadership is what it does next.
    until(
        &db,
        "select from sync_runs where state = 'failed' and code = 'died' and id = 1",
    )
    .await;
    until(
        &db,
        "select from pg_stat_activity where datname = current_database()
            and query like 'select count(pg_terminate_backend(l.pid)) from leader%'",
    )
    .await;
    assert_eq!(count(&db, done).await, 1);
    assert_eq!(
        count(&db, "audit_log where action = 'sync.publish'").await,
        1
    );
    assert_eq!(count(&db, "leader where epoch = 2").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_stop_ends_its_run_and_says_so() {
    let source = folder(&["107.1"]);
    let mut server = TestServer::with(from(source.path())).await;
    ended(&server, 1).await;
    put(source.path(), "107.2");
    let mut raw = server.db.raw().await;
    let tx = raw.transaction().await.unwrap();
    tx.batch_execute("lock table payloads in exclusive mode")
        .await
        .unwrap();
    let run = server.admin("POST", "sync/trigger", Value::Null).await;
    until(
        &server.db,
        "select from pg_locks where not granted and relation = 'payloads'::regclass
            and database = (select oid from pg_database where datname = current_database())",
    )
    .await;
    server.stop().await;
    tx.rollback().await.unwrap();
    let sql = "select state, code from sync_runs where id = $1";
    let id = run["id"].as_i64().unwrap();
    let row = server.db.raw().await.query_one(sql, &[&id]).await.unwrap();
    let ended = (row.get::<_, &str>(0), row.get::<_, Option<&str>>(1));
    assert_eq!(ended, ("failed", Some("stopped")));

    let again = server.beside(from(source.path())).await;
    let done = triggered(&again).await;
    assert_eq!(done["run"]["state"], "done", "{done:#}");
    assert_eq!(count(&again.db, "payloads where staged is null").await, 2);
}
