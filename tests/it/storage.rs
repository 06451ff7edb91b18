//! The storage as a whole: taking in what lies in it, comparing it with what should lie in it, and the jobs that do so.

use crate::support::admin::TestAdmin;
use crate::support::intake::{content, file_name, object, restarted, trusting, trusting_with};
use crate::support::kmod;
use crate::support::process::until;
use crate::support::s3;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::db::jobs::JobLock;
use livepatch_onprem::domain::Sha256;
use livepatch_onprem::rollout::Standing;
use livepatch_onprem::service::jobs;
use livepatch_onprem::wire::admin::{Job, JobItemResult, JobState};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn tester() -> Actor {
    Actor {
        name: "tester".to_owned(),
        source: "test".to_owned(),
    }
}

/// Starts a job, waits for its end and expects it to have come to it.
async fn job(test: &TestAdmin, path: &str, body: Value) -> Job {
    let started = test.post(path, body).await.expect(202);
    let id = started.body["id"].as_i64().unwrap();
    let job = jobs::wait(&test.core, id).await.unwrap();
    assert_eq!(job.state, JobState::Done, "{job:?}");
    let shown = test.get(&format!("/jobs/{id}")).await.expect(200);
    assert_eq!(serde_json::from_value::<Job>(shown.body).unwrap(), job);
    job
}

fn count(job: &Job, result: JobItemResult) -> u64 {
    job.progress.counts.get(&result).copied().unwrap_or(0)
}

/// Puts files into the storage by hand: two good bundles, one that is known, one wrong, and what is no bundle.
fn plant(folder: &Path) -> Vec<PathBuf> {
    std::fs::create_dir_all(folder.join("from downloader")).unwrap();
    let copy = |from: &Path, to: &str| {
        let to = folder.join(to);
        std::fs::copy(from, &to).unwrap();
        to
    };
    let new = kmod::real_bundle("108.1", "patched by 108.1");
    let known = kmod::real_bundle("107.1", "patched by 107.1");
    let unsigned = kmod::unsigned_bundle("109.1", "patched by 109.1");
    vec![
        copy(&new, &format!("from downloader/{}", file_name(&new))),
        copy(&known, &file_name(&known)),
        copy(&unsigned, &file_name(&unsigned)),
        copy(&known, "something-else.tar.bz2"),
        copy(&known, "notes.txt"),
    ]
}

async fn refreshes(test: &TestAdmin, folder: &Path) {
    test.stored(&kmod::real_bundle("107.1", "patched by 107.1"))
        .await;
    let planted = plant(folder);

    let dry = job(test, "/storage/refresh", json!({"dry-run": true})).await;
    assert_eq!(dry.kind, "storage-refresh");
    assert_eq!((dry.progress.done, dry.progress.total), (4, Some(4)));
    assert_eq!(count(&dry, JobItemResult::Stored), 2);
    assert_eq!(test.rows("payloads").await, 1);
    assert_eq!(test.rows("quarantine").await, 0);

    let first = job(test, "/storage/refresh", json!({})).await;
    assert_eq!(count(&first, JobItemResult::Stored), 1, "{first:?}");
    assert_eq!(count(&first, JobItemResult::AlreadyThere), 1);
    assert_eq!(count(&first, JobItemResult::Quarantined), 1);
    assert_eq!(count(&first, JobItemResult::Ignored), 1);
    let mut named: Vec<_> = first
        .results
        .iter()
        .map(|r| (r.result, r.item.as_str()))
        .collect();
    named.sort_unstable();
    let (new, unsigned) = (kmod::bundle_name("108.1"), kmod::bundle_name("109.1"));
    assert_eq!(
        named,
        [
            (
                JobItemResult::Stored,
                format!("from downloader/{new}").as_str()
            ),
            (JobItemResult::Quarantined, unsigned.to_string().as_str()),
        ]
    );
    let wrong = first.results.iter().find(|r| r.result.is_bad()).unwrap();
    assert_eq!(wrong.code.as_deref(), Some("signature-missing"));
    assert!(wrong.quarantine_id.is_some());
    let snapshot = test.core.snapshots.get_full();
    assert_eq!(
        snapshot
            .catalog
            .by_filename(&new.to_string())
            .unwrap()
            .reach,
        Some(0)
    );
    assert!(planted.iter().all(|path| path.exists()));

    let second = job(test, "/storage/refresh", json!({})).await;
    assert_eq!(count(&second, JobItemResult::AlreadyThere), 2, "{second:?}");
    assert_eq!(test.audited("payload.ingest").await, 2);
    assert_eq!(test.audited("quarantine.add").await, 1);

    // What is taken in or kept apart is removed on request, and nothing else.
    let last = job(test, "/storage/refresh", json!({"remove-originals": true})).await;
    assert_eq!(count(&last, JobItemResult::AlreadyThere), 2, "{last:?}");
    let left: Vec<bool> = planted.iter().map(|path| path.exists()).collect();
    assert_eq!(left, [false, false, false, true, true]);
    assert_eq!(test.rows("payloads").await, 2);
}

#[tokio::test]
async fn new_tarballs_in_the_folder_are_taken_in() {
    let test = trusting().await;
    refreshes(&test, test.folder()).await;
}

#[tokio::test]
async fn new_tarballs_in_the_bucket_are_taken_in() {
    let (storage, folder) = s3::bucket();
    let test = trusting_with(|config| config.patch_storage = storage).await;
    refreshes(&test, &folder).await;
}

#[tokio::test]
async fn an_original_that_differs_from_what_is_stored_is_not_lost() {
    let test = trusting().await;
    let path = kmod::real_bundle("107.1", "patched by 107.1");
    let stored = test.stored(&path).await;
    // Same name and size, another content: only its hash tells.
    let mut other = stored.to_vec();
    let last = other.len() - 1;
    other[last] ^= 1;
    let place = test.folder().join(file_name(&path));
    std::fs::write(&place, &other).unwrap();
    let job = job(&test, "/storage/refresh", json!({"remove-originals": true})).await;
    assert_eq!(count(&job, JobItemResult::Quarantined), 1);
    assert_eq!(job.results[0].code.as_deref(), Some("name-taken"));
    assert!(!place.exists());
    assert!(std::fs::read(object(test.folder(), "quarantine", &other)).unwrap() == other);
}

#[tokio::test]
async fn a_tarball_over_the_limit_is_named_and_left_where_it_is() {
    let test = trusting_with(|config| config.ingest.max_bundle_bytes = 1000).await;
    let name = kmod::bundle_name("107.1").to_string();
    let place = test.folder().join(&name);
    std::fs::write(&place, vec![0; 1001]).unwrap();
    let job = job(&test, "/storage/refresh", json!({"remove-originals": true})).await;
    assert_eq!(count(&job, JobItemResult::Failed), 1);
    let reason = job.results[0].reason.as_deref().unwrap();
    assert!(reason.contains("more than 1000 bytes"), "{reason}");
    assert!(place.exists());
}

async fn verifies(test: &TestAdmin, folder: &Path) {
    let paths =
        ["107.1", "108.1", "109.1"].map(|v| kmod::real_bundle(v, &format!("patched by {v}")));
    let mut places = Vec::new();
    for path in &paths {
        places.push(object(folder, "objects", &test.stored(path).await));
    }
    let well = job(test, "/storage/verify", json!({})).await;
    assert_eq!(count(&well, JobItemResult::Verified), 3, "{well:?}");
    assert_eq!(well.results, []);
    let sizes: u64 = paths.iter().map(|path| content(path).len() as u64).sum();
    assert_eq!((well.progress.total, well.progress.bytes), (Some(3), sizes));

    // One byte changed, one object gone.
    let mut bytes = std::fs::read(&places[0]).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&places[0], &bytes).unwrap();
    std::fs::remove_file(&places[1]).unwrap();
    let found = job(test, "/storage/verify", json!({})).await;
    let mut named: Vec<_> = found
        .results
        .iter()
        .map(|r| (r.result, r.item.clone()))
        .collect();
    named.sort_unstable();
    let damaged = [
        (JobItemResult::Damaged, file_name(&paths[0])),
        (JobItemResult::Missing, file_name(&paths[1])),
    ];
    assert_eq!(named, damaged);
    assert_eq!(test.audited("payload.damaged").await, 2);
    let standing = |name: &Path| {
        let snapshot = test.core.snapshots.get_full();
        snapshot
            .catalog
            .by_filename(&file_name(name))
            .unwrap()
            .standing
    };
    let standings = [&paths[0], &paths[1], &paths[2]].map(|path| standing(path));
    assert_eq!(
        standings,
        [Standing::Damaged, Standing::Damaged, Standing::Free]
    );
    let shown = test.get("/patches/107.1").await.expect(200);
    assert_eq!(shown.body["patch"]["damaged"], 1);

    // Found again: the same, and no noise in the audit log.
    let again = job(test, "/storage/verify", json!({})).await;
    assert_eq!(again.results.len(), 2);
    assert_eq!(test.audited("payload.damaged").await, 2);

    // One is put back by hand, the other is sent again.
    std::fs::write(&places[0], content(&paths[0])).unwrap();
    test.upload(&file_name(&paths[1]), content(&paths[1]))
        .await
        .expect(201);
    let healed = job(test, "/storage/verify", json!({})).await;
    assert_eq!(count(&healed, JobItemResult::Repaired), 1, "{healed:?}");
    assert_eq!(count(&healed, JobItemResult::Verified), 2);
    assert_eq!(test.audited("payload.heal").await, 2);
    assert!(paths.iter().all(|path| standing(path) == Standing::Free));
}

#[tokio::test]
async fn damage_in_the_folder_is_found_and_healed() {
    let test = trusting().await;
    verifies(&test, test.folder()).await;
}

#[tokio::test]
async fn damage_in_the_bucket_is_found_and_healed() {
    let (storage, folder) = s3::bucket();
    let test = trusting_with(|config| config.patch_storage = storage).await;
    verifies(&test, &folder).await;
}

#[tokio::test]
async fn one_job_runs_at_a_time_and_a_dead_one_is_called_so() {
    let test = trusting().await;
    let lock = JobLock::take(&test.core.db, Duration::ZERO).await;
    let lock = lock.unwrap().unwrap();
    let client = test.db.raw().await;
    client
        .execute(
            "insert into jobs (kind, actor) values ('storage-verify', 'alice')",
            &[],
        )
        .await
        .unwrap();
    let refused = test.post("/storage/refresh", json!({})).await.expect(409);
    assert!(
        refused.detail().contains("asked for by alice"),
        "{}",
        refused.detail()
    );
    // Another replica that starts must leave it alone while its process lives.
    assert_eq!(jobs::sweep(&test.core).await.unwrap(), 0);
    drop(lock);
    // The lock goes with its connection, which the server closes when it notices.
    let mut swept = 0;
    until("the lock of the dead job is let go", async || {
        swept = jobs::sweep(&test.core).await.unwrap();
        swept > 0
    })
    .await;
    assert_eq!(swept, 1);
    let list = test.get("/jobs").await.expect(200);
    let dead = &list.body["items"][0];
    assert_eq!(dead["state"], "failed");
    assert!(
        dead["error"]
            .as_str()
            .unwrap()
            .contains("ended before it did")
    );
    let done = job(&test, "/storage/verify", json!({})).await;
    assert_eq!(done.progress.total, Some(0));
    assert_eq!(test.audited("storage.verify").await, 1);

    let page = test.get("/jobs?limit=1").await.expect(200);
    assert_eq!(page.body["items"][0]["id"], done.id);
    let cursor = page.body["next-cursor"].as_str().unwrap().to_owned();
    let next = test.get(&format!("/jobs?limit=1&cursor={cursor}")).await;
    assert_eq!(next.expect(200).body["items"][0]["state"], "failed");
    test.get("/jobs/999").await.expect(404);
    test.get("/jobs?cursor=zzz").await.expect(400);
    let unknown = test
        .post("/storage/refresh", json!({"delete-all": true}))
        .await;
    assert!(unknown.expect(422).detail().contains("delete-all"));
}

/// PostgreSQL lets go of a job's lock a moment after its end: who starts the next one within that moment is not refused.
#[tokio::test]
async fn one_job_follows_another_at_once() {
    let test = trusting().await;
    for n in 1..=10 {
        let started = jobs::start(&test.core, &tester(), jobs::Work::Verify).await;
        let started = started.unwrap_or_else(|error| panic!("job {n}: {error}"));
        let ended = jobs::wait(&test.core, started.id).await.unwrap();
        assert_eq!(ended.state, JobState::Done, "{ended:?}");
    }
    assert_eq!(test.audited("storage.verify").await, 10);
}

#[tokio::test]
async fn a_job_of_a_server_that_stops_says_so() {
    let test = trusting().await;
    test.stored(&kmod::real_bundle("107.1", "patched by 107.1"))
        .await;
    let core = restarted(&test.core, |_| {}).await;
    // The job's first step waits for this lock, so that it is still at work when the server stops.
    let blocker = test.db.raw().await;
    blocker
        .batch_execute("begin; lock table payloads in access exclusive mode")
        .await
        .unwrap();
    let job = jobs::start(&core, &tester(), jobs::Work::Verify)
        .await
        .unwrap();
    core.jobs.shutdown().await;
    blocker.batch_execute("rollback").await.unwrap();
    let job = jobs::show(&core, job.id).await.unwrap();
    assert_eq!(job.state, JobState::Failed);
    assert!(job.error.unwrap().contains("the server was stopped"));
}

#[tokio::test]
async fn payloads_are_listed_by_name_with_filters_in_pages() {
    let test = TestAdmin::new().await;
    let names = [
        "livepatch-5.15.0-1061.67-aws-107.1-amd64.tar.bz2",
        "livepatch-5.15.0-1061.67-aws-107.1-arm64.tar.bz2",
        "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
        "livepatch-5.15.0-107.117-generic-108.1-amd64.tar.bz2",
    ];
    test.plant_payloads(&names).await;
    let mut seen = Vec::new();
    let mut query = "/payloads?limit=3".to_owned();
    loop {
        let page = test.get(&query).await.expect(200);
        let items = page.body["items"].as_array().unwrap();
        seen.extend(
            items
                .iter()
                .map(|i| i["filename"].as_str().unwrap().to_owned()),
        );
        match page.body["next-cursor"].as_str() {
            Some(cursor) => query = format!("/payloads?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, names);
    for (filter, expected) in [
        ("version=108.1", 1),
        ("architecture=arm64", 1),
        ("flavour=aws", 2),
        ("kernel=5.15.0-107.117-generic", 2),
        ("kernel=5.15.0-107.117-generic&version=107.1", 1),
        ("version=1.1", 0),
    ] {
        let page = test.get(&format!("/payloads?{filter}")).await.expect(200);
        assert_eq!(
            page.body["items"].as_array().unwrap().len(),
            expected,
            "{filter}"
        );
    }
    for bad in ["version=x", "kernel=x", "architecture=vax", "flavor=aws"] {
        test.get(&format!("/payloads?{bad}")).await.expect(400);
    }
    let sha256 = Sha256::of(names[0].as_bytes());
    let role = livepatch_onprem::domain::Role::Viewer;
    for (path, status) in [
        (format!("/payloads/{}?sha256={sha256}", names[0]), 204),
        (format!("/payloads/{}?sha256={sha256}", names[1]), 404),
        (format!("/payloads/x?sha256={sha256}"), 400),
        (format!("/payloads/{}", names[0]), 400),
        (format!("/payloads/{}?sha256=1", names[0]), 400),
    ] {
        test.ask(role, "HEAD", &path, None).await.expect(status);
    }
}
