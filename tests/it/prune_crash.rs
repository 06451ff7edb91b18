//! A server that is killed while it prunes: nobody is offered what is half gone, and the same again ends it.

use crate::support::admin::TestAdmin;
use crate::support::db::settings;
use crate::support::intake::trusting_with;
use crate::support::kmod;
use crate::support::process::until;
use livepatch_onprem::app;
use livepatch_onprem::config::Config;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::service::Core;
use livepatch_onprem::service::failpoint::{SYNC_FAILPOINTS, VARIABLE};
use livepatch_onprem::service::jobs::{self, Work};
use livepatch_onprem::wire::admin::{JobState, PruneRequest};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::Arc;

const DATABASE: &str = "LIVEPATCH_TEST_CRASH_DATABASE";
const FOLDER: &str = "LIVEPATCH_TEST_CRASH_FOLDER";
const KILL: i32 = 9;

/// Filters that admit no bundle of these tests.
fn nobody_wants(config: &mut Config) {
    config.patch_sync.flavours = vec!["none".to_owned()];
}

async fn prune(core: &Arc<Core>) {
    let actor = Actor {
        name: "tester".to_owned(),
        source: "test".to_owned(),
    };
    let work = Work::Prune(PruneRequest { dry_run: false });
    let job = jobs::start(core, &actor, work).await.unwrap();
    let job = jobs::wait(core, job.id).await.unwrap();
    assert_eq!(job.state, JobState::Done, "{job:?}");
}

#[tokio::test]
#[ignore = "run by a_server_killed_while_it_prunes_goes_on_where_it_was in a process that is to die"]
async fn prunes_in_a_process_of_its_own() {
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
    prune(&running.core).await;
}

async fn dies_at(name: &'static str) {
    let test: TestAdmin = trusting_with(nobody_wants).await;
    test.stored(&kmod::real_bundle("107.1", "patched by 107.1"))
        .await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "--ignored", "--nocapture"])
        .arg("prune_crash::prunes_in_a_process_of_its_own")
        .env(VARIABLE, name)
        .env(DATABASE, test.db.url())
        .env(FOLDER, test.folder());
    let output = tokio::task::spawn_blocking(move || child.output().unwrap())
        .await
        .unwrap();
    assert_eq!(output.status.signal(), Some(KILL), "{name}: {output:?}");
    // Hidden before its object goes, so that nobody is offered it.
    assert_eq!(test.rows("payloads where staged = -1").await, 1, "{name}");

    // PostgreSQL notices a moment later that the process is gone, and lets go of what it held.
    let raw = test.db.raw().await;
    let held = "select from pg_locks l join pg_database d on d.oid = l.database
        where l.locktype = 'advisory' and d.datname = current_database()";
    until("what it held is let go", async || {
        raw.query(held, &[]).await.unwrap().is_empty()
    })
    .await;
    test.core.snapshots.reload(None, i64::MAX).await.unwrap();
    prune(&test.core).await;
    assert_eq!(test.rows("payloads").await, 0, "{name}");
    let role = livepatch_onprem::domain::Role::Operator;
    let verdict = test.ask(role, "GET", "/audit/verify", None).await;
    assert_eq!(verdict.expect(200).body["ok"], true, "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_while_it_prunes_goes_on_where_it_was() {
    let places: Vec<_> = SYNC_FAILPOINTS
        .iter()
        .filter(|place| place.starts_with("prune"))
        .collect();
    assert_eq!(places.len(), 2);
    for place in places {
        dies_at(place).await;
    }
}
