//! What goes wrong on the way and midway: after each fault nothing half is visible, and the same again completes.

use crate::support::airgap::{Said, Site, ended, only};
use crate::support::process::until;
use livepatch_onprem::blob::Key;
use livepatch_onprem::domain::Sha256;
use livepatch_onprem::service::failpoint::VARIABLE as FAILPOINT_VARIABLE;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

/// Everything visible has its object, and the audit log is whole.
async fn sound(site: &Site, payloads: i64) {
    assert_eq!(site.visible().await, payloads);
    let client = site.server.db.raw().await;
    for row in client
        .query(
            "select sha256, size from payloads where staged is null",
            &[],
        )
        .await
        .unwrap()
    {
        let sha256: Sha256 = row.get::<_, &[u8]>(0).try_into().unwrap();
        let size = row.get::<_, i64>(1).unsigned_abs();
        let store = &site.server.core().store;
        let found = store.rehash(&Key::Payload(sha256), size).await.unwrap();
        assert_eq!((found.sha256, found.size), (sha256, size));
    }
    let verdict = site
        .server
        .admin("GET", "audit/verify", serde_json::Value::Null);
    assert_eq!(verdict.await["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_midway_leaves_nothing_half_visible() {
    let staging = Site::staging().await;
    let folder = staging.export(&[]).await;
    for (place, after) in [
        ("ingest-after-object", 0),
        ("stage-after-commit", 0),
        ("publish-before-commit", 0),
        ("publish-after-commit", 2),
    ] {
        let isolated = Site::empty().await;
        isolated.trust(&staging).await;
        let mut command = isolated.command(&["import", folder.to_str().unwrap(), "--yes"]);
        command.env(FAILPOINT_VARIABLE, place);
        let died = ended(command).await;
        assert_eq!(died.status.signal(), Some(9), "{place}: {}", died.text);
        sound(&isolated, after).await;
        free(&isolated).await;
        isolated.import(&folder, &[]).await.well("Done: ");
        sound(&isolated, 2).await;
        let staged = "select count(*) from payloads where staged is not null";
        assert_eq!(isolated.number(staged).await, 0, "{place}");
    }
}

/// PostgreSQL notices a moment later that a process is gone, and lets go of what it held.
async fn free(site: &Site) {
    let sql = "select count(*) from pg_stat_activity where datname = current_database()
        and pid <> pg_backend_pid() and (state = 'active' or wait_event_type = 'Lock')";
    until("a database that nobody uses", async || {
        site.number(sql).await == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_midway_leaves_nothing_half_visible() {
    let (staging, isolated) = (Site::staging().await, Site::empty().await);
    isolated.trust(&staging).await;
    let folder = staging.export(&[]).await;
    // Whoever inserts a payload waits here, and so is midway for sure.
    let mut holder = isolated.server.db.raw().await;
    let tx = holder.transaction().await.unwrap();
    tx.batch_execute("lock table payloads in exclusive mode")
        .await
        .unwrap();
    let mut command = isolated.command(&["import", folder.to_str().unwrap(), "--yes"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let waits = "select count(*) from pg_stat_activity where datname = current_database()
        and wait_event_type = 'Lock' and query like 'insert into payloads%'";
    until("an insert", async || isolated.number(waits).await > 0).await;
    // All but the lock's own connection: once that is gone the insert goes on, and may be done before it is its turn.
    let holder: i32 = tx
        .query_one("select pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let kill = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and pid <> {holder}"
    );
    isolated.number(&kill).await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let said = Said::from(output.await.unwrap());
    assert_eq!(said.status.code(), Some(1), "{}", said.text);
    assert!(said.text.contains("Run it again"), "{}", said.text);
    tx.rollback().await.unwrap();
    sound(&isolated, 0).await;
    isolated.import(&folder, &[]).await.well("Done: 2 added");
    sound(&isolated, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_altered_changes_nothing() {
    let (staging, isolated) = (Site::staging().await, Site::empty().await);
    isolated.trust(&staging).await;
    let file = only(&staging.export(&[]).await);
    let good = std::fs::read(&file).unwrap();
    let half = &good[..good.len() / 2];
    let mut flipped = good.clone();
    flipped[good.len() - 3000] ^= 1;
    for (bytes, what) in [(half, "half copied"), (&flipped, "was altered")] {
        std::fs::write(&file, bytes).unwrap();
        isolated.import(&file, &[]).await.refused(what);
        assert_eq!(isolated.number("select count(*) from payloads").await, 0);
        assert_eq!(isolated.number("select count(*) from sync_runs").await, 0);
    }
    std::fs::write(&file, &good).unwrap();
    isolated.import(&file, &[]).await.well("Done: 2 added");
    // With another database on which no server runs, trusted by a key on the command line alone.
    let mut other = Site::empty().await;
    other.server.stop().await;
    let shown = staging.run(&["keys", "show"]).await.text;
    other
        .import(&file, &["--key", shown.trim()])
        .await
        .well("Done: 2 added");
    assert_eq!(other.visible().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_storage_is_not_exported() {
    let staging = Site::staging().await;
    let objects = staging.server.folder.path().join("patches/objects/sha256");
    let mut damaged = Vec::new();
    for folder in std::fs::read_dir(objects).unwrap() {
        damaged.push(only(&folder.unwrap().path()));
    }
    damaged.sort();
    let mut bytes = std::fs::read(&damaged[0]).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&damaged[0], bytes).unwrap();
    let out = tempfile::tempdir().unwrap();
    staging
        .run(&["export", "-o", out.path().to_str().unwrap()])
        .await
        .refused("is damaged in the storage");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_medium_is_named_and_what_was_begun_is_removed() {
    let staging = Site::staging().await;
    let place = tempfile::tempdir().unwrap();
    let out = format!("{}/", place.path().display());
    let export = staging.command(&["export", "-o", &out]);
    // A mount that only this command sees, and that goes away with it.
    let root = rustix::process::geteuid().is_root();
    let mut small = Command::new("unshare");
    small
        .arg(if root { "-m" } else { "-rm" })
        .args(["sh", "-c"])
        .arg("mount -t tmpfs -o size=16k none \"$0\" || exit 77; \"$@\"; status=$?; echo \"left: $(ls -A \"$0\")\"; exit $status")
        .arg(place.path())
        .arg(export.get_program())
        .args(export.get_args());
    let said = ended(small).await;
    if said.status.code() == Some(77) || said.text.starts_with("unshare:") {
        eprintln!("nothing may be mounted here: {}", said.text);
        return;
    }
    let said = said.refused("there is no room for");
    assert!(said.text.contains("left: \n"), "{}", said.text);
}
