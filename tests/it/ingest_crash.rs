//! A server that dies at any step of an intake or a promotion: no row without its object, and the same again succeeds.

use crate::support::admin::TestAdmin;
use crate::support::db::settings;
use crate::support::intake::{content, file_name, object, trusting_with};
use crate::support::kmod;
use livepatch_onprem::app;
use livepatch_onprem::config::Config;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::service::ingest::{FAILPOINT_VARIABLE, FAILPOINTS, SYNC_FAILPOINTS};
use livepatch_onprem::service::jobs::{self, Work};
use livepatch_onprem::service::{Core, ingest, promotions};
use livepatch_onprem::wire::admin::{
    JobState, PromoteRequest, PruneRequest, RefreshRequest, WireScope,
};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const DATABASE: &str = "LIVEPATCH_TEST_CRASH_DATABASE";
const FOLDER: &str = "LIVEPATCH_TEST_CRASH_FOLDER";
const WORK: &str = "LIVEPATCH_TEST_CRASH_WORK";

fn good() -> PathBuf {
    kmod::real_bundle("107.1", "patched by 107.1")
}

fn unsigned() -> PathBuf {
    kmod::unsigned_bundle("109.1", "patched by 109.1")
}

/// What is done, named by the first word of the failpoint's name.
async fn work(core: &Arc<Core>, what: &str) {
    let actor = Actor {
        name: "tester".to_owned(),
        source: "test".to_owned(),
    };
    let upload = async |path: &Path| {
        let body = futures_util::stream::iter([Ok(content(path))]);
        ingest::bundle(core, &actor, "upload", &file_name(path), None, body)
            .await
            .unwrap();
    };
    match what {
        "ingest" | "heal" => upload(&good()).await,
        "quarantine" => upload(&unsigned()).await,
        "promote" => {
            let request = PromoteRequest {
                tier: "stable".parse().unwrap(),
                scope: WireScope::default(),
                reason: None,
                dry_run: false,
            };
            let version = "107.1".parse().unwrap();
            promotions::promote(core, &actor, version, &request)
                .await
                .unwrap();
        }
        "refresh" => {
            let request = RefreshRequest {
                remove_originals: true,
                dry_run: false,
            };
            let job = jobs::start(core, &actor, Work::Refresh(request))
                .await
                .unwrap();
            let job = jobs::wait(core, job.id).await.unwrap();
            assert_eq!(job.state, JobState::Done, "{job:?}");
        }
        "prune" => {
            let request = PruneRequest { dry_run: false };
            let job = jobs::start(core, &actor, Work::Prune(request))
                .await
                .unwrap();
            let job = jobs::wait(core, job.id).await.unwrap();
            assert_eq!(job.state, JobState::Done, "{job:?}");
        }
        other => panic!("no work is called {other}"),
    }
}

#[tokio::test]
#[ignore = "run by a_server_that_dies_anywhere_leaves_nothing_half_done in a process that is to die"]
async fn does_the_work_in_a_process_of_its_own() {
    let given = |name: &str| std::env::var(name).unwrap();
    let mut config = Config {
        database: settings(&given(DATABASE)),
        ..Config::default()
    };
    config.server.address = ([127, 0, 0, 1], 0).into();
    config.patch_storage.filesystem_path = given(FOLDER).into();
    config.patch_trust.certificates = vec![kmod::keys().cert];
    nobody_wants(&mut config);
    let running = app::start(config, false).await.unwrap();
    work(&running.core, &given(WORK)).await;
}

/// Filters that admit no bundle of these tests; only pruning looks at them.
fn nobody_wants(config: &mut Config) {
    config.patch_sync.flavours = vec!["none".to_owned()];
}

/// Every payload's object is there and right.
async fn rows_have_their_objects(test: &TestAdmin, at: &str) {
    let rows = test.db.raw().await;
    let rows = rows
        .query(
            "select sha256, size from payloads where damaged is null and staged is distinct from -1",
            &[],
        )
        .await
        .unwrap();
    for row in rows {
        let sha256 = row.get::<_, &[u8]>(0).try_into().unwrap();
        let size = row.get::<_, i64>(1).unsigned_abs();
        let key = livepatch_onprem::blob::Key::Payload(sha256);
        let found = test.core.store.rehash(&key, size).await;
        let found = found.unwrap_or_else(|e| panic!("{at}: {e}"));
        assert_eq!((found.sha256, found.size), (sha256, size), "{at}");
    }
}

async fn dies_at(name: &'static str) {
    let test = trusting_with(nobody_wants).await;
    let what = name.split('-').next().unwrap();
    match what {
        "heal" => {
            let bytes = test.stored(&good()).await;
            std::fs::remove_file(object(test.folder(), "objects", &bytes)).unwrap();
            let id = test.core.snapshots.get().catalog.payloads()[0].id;
            livepatch_onprem::service::storage::report_damaged(&test.core, id, "gone")
                .await
                .unwrap();
        }
        "promote" | "prune" => {
            test.stored(&good()).await;
        }
        "refresh" => {
            let place = test.folder().join(file_name(&good()));
            std::fs::write(place, content(&good())).unwrap();
        }
        _ => {}
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("ingest_crash::does_the_work_in_a_process_of_its_own")
        .env(FAILPOINT_VARIABLE, name)
        .env(DATABASE, test.db.url())
        .env(FOLDER, test.folder())
        .env(WORK, what);
    let output = tokio::task::spawn_blocking(move || child.output().unwrap())
        .await
        .unwrap();
    let aborted = output.status.signal() == Some(6);
    assert!(aborted, "{name}: {output:?}");
    rows_have_their_objects(&test, name).await;
    let committed = name.ends_with("after-commit");
    match what {
        "ingest" => assert_eq!(test.rows("payloads").await, i64::from(committed), "{name}"),
        "quarantine" => assert_eq!(
            test.rows("quarantine").await,
            i64::from(committed),
            "{name}"
        ),
        "prune" => {
            assert_eq!(test.rows("payloads where staged = -1").await, 1, "{name}");
        }
        "promote" => assert_eq!(
            test.rows("promotions").await,
            1 + i64::from(committed),
            "{name}"
        ),
        _ => {}
    }

    // PostgreSQL notices a moment later that the process is gone, and lets go of what it held.
    let raw = test.db.raw().await;
    let held = "select from pg_locks l join pg_database d on d.oid = l.database
        where l.locktype = 'advisory' and d.datname = current_database()";
    while !raw.query(held, &[]).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // The next server, and the same again.
    test.core.snapshots.reload(None, i64::MAX).await.unwrap();
    work(&test.core, what).await;
    rows_have_their_objects(&test, name).await;
    let counts = [
        test.rows("payloads").await,
        test.rows("promotions").await,
        test.rows("quarantine").await,
    ];
    let expected = match what {
        "quarantine" => [0, 0, 1],
        "promote" => [1, 2, 0],
        "prune" => [0, 1, 0],
        _ => [1, 1, 0],
    };
    assert_eq!(counts, expected, "{name}");
    assert!(!test.folder().join(file_name(&good())).exists(), "{name}");
    let damaged = test.rows("payloads where damaged is not null").await;
    assert_eq!(damaged, 0, "{name}");
    let role = livepatch_onprem::domain::Role::Operator;
    let verdict = test.ask(role, "GET", "/audit/verify", None).await;
    assert_eq!(verdict.expect(200).body["ok"], true, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_anywhere_leaves_nothing_half_done() {
    // Made once, before the processes that would each make them.
    let _ = (good(), unsigned());
    let pruning = SYNC_FAILPOINTS.iter().filter(|p| p.starts_with("prune"));
    for name in FAILPOINTS.iter().chain(pruning) {
        dies_at(name).await;
    }
}
