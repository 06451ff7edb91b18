//! The object store down, resetting, slow, silent and corrupting, seen through a proxy in front of a real S3 server;
//! objects altered in the bucket; and a full disk under the filesystem storage.

use crate::support::kmod;
use crate::support::ledger::{Ledger, Outcome, file, runs};
use crate::support::process::{Answer, Server, Site, until};
use crate::support::proxy::{Fault, Proxy};
use crate::support::s3;
use livepatch_onprem::domain::Sha256;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A server on a bucket behind a proxy, with the payloads 106.1 and 107.1 in it and none in memory.
struct Bucket {
    site: Site,
    server: Server,
    proxy: Proxy,
    folder: PathBuf,
    token: String,
    acknowledged: Ledger,
}

impl Bucket {
    async fn new() -> Self {
        let (storage, folder) = s3::bucket();
        let proxy = Proxy::before(&s3::service("LIVEPATCH_TEST_S3")).await;
        let mut site = Site::new().await;
        site.set("LP_PATCH_STORAGE_TYPE", "s3");
        site.set("LP_PATCH_STORAGE_S3_BUCKET", storage.s3.bucket);
        site.set("LP_PATCH_STORAGE_S3_ENDPOINT", proxy.url.clone());
        site.set(
            "LP_PATCH_STORAGE_S3_ACCESS_KEY",
            s3::service("LIVEPATCH_TEST_S3_KEY"),
        );
        site.set(
            "LP_PATCH_STORAGE_S3_SECRET_KEY",
            s3::service("LIVEPATCH_TEST_S3_SECRET"),
        );
        site.set("LP_PATCH_STORAGE_S3_TIMEOUT", "3s");
        site.set("LP_PATCH_CACHE_ENABLED", "false");
        let server = site.start().await;
        let mut acknowledged = Ledger::default();
        for version in ["106.1", "107.1"] {
            server.stored(version).await;
            acknowledged.note(stored(version));
        }
        let auth_token = server.token("edge", "edge").await;
        let token = server.registered(1, &auth_token).await;
        Self {
            site,
            server,
            proxy,
            folder,
            token,
            acknowledged,
        }
    }

    /// Where the object of a version's bundle lies.
    fn object(&self, version: &str) -> PathBuf {
        let sha256 = Sha256::of(&bundle(version)).to_string();
        let place = format!("objects/sha256/{}/{sha256}", &sha256[..2]);
        self.folder.join(place)
    }

    /// Everything that does not need the bucket goes on.
    async fn machines_are_answered(&self) {
        self.server.reported(1, &self.token, None).await;
        assert_eq!(self.server.page("readyz").await.0, 200);
    }

    /// Every payload in the database has its object in the bucket, whole.
    async fn objects_are_whole(&self) {
        let rows = "select sha256 from payloads where damaged is null";
        for row in self.site.raw().await.query(rows, &[]).await.unwrap() {
            let sha256: Sha256 = row.get::<_, &[u8]>(0).try_into().unwrap();
            let text = sha256.to_string();
            let place = self.folder.join("objects/sha256").join(&text[..2]);
            let bytes = std::fs::read(place.join(&text)).unwrap();
            assert_eq!(Sha256::of(&bytes), sha256);
        }
    }

    /// One fault, as often as asked: what is not right is not served, nothing half done remains, and when the fault is
    /// over, all is as before.
    async fn suffers(&mut self, words: &str, fault: Fault, runs: u32, next: &mut u32) {
        let (mut slowest, mut lost) = (Duration::ZERO, Vec::new());
        let before = self.acknowledged.len();
        for _ in 0..runs {
            let version = format!("107.{next}");
            *next += 1;
            self.proxy.set(fault);
            let (name, bytes) = kmod::bundle_in_memory(&version, true);
            let download = self.server.download("107.1");
            let upload = self.server.upload(&name, bytes.clone());
            let meanwhile = self.machines_are_answered();
            let ((status, got), uploaded, ()) = tokio::join!(download, upload, meanwhile);
            let uploaded = uploaded.unwrap();
            if status == 200 {
                // Also bytes that went wrong on the way must not reach a machine.
                assert!(got.is_ok_and(|got| got == bundle("107.1")), "{words}");
            } else {
                assert_eq!(status, 503, "{words}");
            }
            if uploaded.status != 201 {
                uploaded.refused();
            }
            self.objects_are_whole().await;
            self.proxy.set(Fault::None);
            let ended = Instant::now();
            let whole = async || {
                let again = self.server.upload(&name, bytes.clone()).await.unwrap();
                again.status == 201 || again.status == 200
            };
            until("an upload", whole).await;
            // What did not verify on the way is no longer offered until it verifies again.
            let verified = async || {
                let (status, got) = self.server.download("107.1").await;
                if status == 503 {
                    verify(&self.server).await;
                }
                status == 200 && got.is_ok_and(|got| got == bundle("107.1"))
            };
            until("a download", verified).await;
            slowest = slowest.max(ended.elapsed());
            self.acknowledged.note(file("stored", &name, &bytes));
            lost.extend(self.acknowledged.lost(&self.site).await);
        }
        Outcome {
            scenario: format!("S3 {words}"),
            runs,
            acknowledged: self.acknowledged.len() - before,
            lost,
            slowest,
        }
        .told();
    }
}

fn bundle(version: &str) -> Vec<u8> {
    std::fs::read(kmod::real_bundle(version, "patched")).unwrap()
}

fn stored(version: &str) -> String {
    let name = kmod::bundle_name(version).to_string();
    file("stored", &name, &bundle(version))
}

/// Has all objects of the storage looked at.
async fn verify(server: &Server) {
    let job = server.admin("POST", "storage/verify", serde_json::json!({}));
    let job = job.await.unwrap();
    // One that is at work already will do as well.
    assert!(job.status < 300 || job.status == 409, "{job:?}");
}

#[tokio::test]
async fn s3_is_down_resets_and_corrupts() {
    let mut bucket = Bucket::new().await;
    let (runs, mut next) = (runs(2).min(5), 2);
    for (words, fault) in [
        ("down", Fault::Down),
        ("resets connections in the middle of bodies", Fault::Reset),
        ("flips bits on the way", Fault::Flip),
    ] {
        bucket.suffers(words, fault, runs, &mut next).await;
    }
    bucket.server.stop().await;
}

#[tokio::test]
async fn s3_is_slow_and_silent() {
    let mut bucket = Bucket::new().await;
    let mut next = 2;
    for (words, fault) in [
        ("slow", Fault::Slow),
        ("takes requests and never answers", Fault::Silent),
    ] {
        bucket.suffers(words, fault, 1, &mut next).await;
    }
    bucket.server.stop().await;
}

#[tokio::test]
async fn objects_in_the_bucket_are_flipped_truncated_and_gone() {
    let mut bucket = Bucket::new().await;
    let (runs, mut slowest, mut lost) = (runs(1).min(5), Duration::ZERO, Vec::new());
    let good = bundle("107.1");
    let object = bucket.object("107.1");
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    for _ in 0..runs {
        for damage in [
            Some(altered.as_slice()),
            Some(&good[..good.len() / 2]),
            None,
        ] {
            match damage {
                Some(bytes) => std::fs::write(&object, bytes).unwrap(),
                None => std::fs::remove_file(&object).unwrap(),
            }
            let refused = async || bucket.server.download("107.1").await.0 == 503;
            // The S3 server may remember the folder for a moment.
            until("the refusal of a damaged object", refused).await;
            assert_eq!(bucket.server.offered(1, &bucket.token).await, "106.1");
            let (status, other) = bucket.server.download("106.1").await;
            assert!(status == 200 && other.unwrap() == bundle("106.1"));
            let started = Instant::now();
            let name = kmod::bundle_name("107.1").to_string();
            let healed = bucket.server.upload(&name, good.clone()).await.unwrap();
            healed.expect(201);
            assert_eq!(bucket.server.offered(1, &bucket.token).await, "107.1");
            let (status, again) = bucket.server.download("107.1").await;
            assert!(status == 200 && again.unwrap() == good);
            slowest = slowest.max(started.elapsed());
            bucket.acknowledged.note(stored("107.1"));
            lost.extend(bucket.acknowledged.lost(&bucket.site).await);
        }
    }
    Outcome {
        scenario: "object flipped, truncated or missing in the bucket".to_owned(),
        runs: runs * 3,
        acknowledged: bucket.acknowledged.len(),
        lost,
        slowest,
    }
    .told();
    bucket.server.stop().await;
}

/// A command that runs another one with a small filesystem of its own over a folder; `None` where that is not allowed.
fn with_small_disk(folder: &Path) -> Option<Command> {
    let unshare = |root: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(root)
            .args(["--mount", "--propagation", "private"]);
        command
    };
    let allowed = |root: &[&str]| {
        let script = "mount -t tmpfs -o size=1m tmpfs /tmp";
        let tried = unshare(root).args(["sh", "-c", script]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let ways: [&[&str]; 2] = [&[], &["--map-root-user"]];
    let way = ways.into_iter().find(|way| allowed(way))?;
    let mut command = unshare(way);
    command
        .args(["sh", "-c"])
        .arg(r#"mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@""#)
        .arg(folder)
        .arg(env!("CARGO_BIN_EXE_livepatch-server"));
    Some(command)
}

/// Fills a filesystem to its last byte.
fn fill(file: &Path) {
    use std::io::Write;
    let mut filler = std::fs::File::create(file).unwrap();
    let why = loop {
        if let Err(error) = filler.write_all(&[0; 512]) {
            break error;
        }
    };
    assert_eq!(why.kind(), std::io::ErrorKind::StorageFull, "{why}");
}

/// Everything below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Where a server's own filesystem is to be found from outside.
fn inside(server: &Server, folder: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", server.pid()));
    root.join(folder.strip_prefix("/").unwrap())
}

#[tokio::test]
async fn the_disk_of_the_storage_is_full() {
    let site = Site::new().await;
    let folder = site.patches();
    std::fs::create_dir(&folder).unwrap();
    let Some(command) = with_small_disk(&folder) else {
        println!("SKIPPED: this account may mount nothing, not even in a namespace of its own");
        return;
    };
    let server = site.start_as(command, &[]).await;
    let inside = inside(&server, &folder);
    let mut acknowledged = Ledger::default();
    server.stored("106.1").await;
    acknowledged.note(stored("106.1"));
    let token = server.token("edge", "edge").await;
    let token = server.registered(1, &token).await;
    let (runs, mut slowest, mut lost) = (runs(3).min(10), Duration::ZERO, Vec::new());
    for run in 0..runs {
        let (name, bytes) = kmod::bundle_in_memory(&format!("107.{}", run + 1), true);
        let best = server.offered(1, &token).await;
        let before = files(&inside);
        let filler = inside.join("filler");
        fill(&filler);
        let refused: Answer = server.upload(&name, bytes.clone()).await.unwrap();
        assert_eq!(refused.status, 507, "{refused:?}");
        let detail = refused.body["detail"].as_str().unwrap();
        assert!(detail.contains("free"), "says what to do: {detail}");
        assert_eq!(server.download("106.1").await.0, 200);
        let answer = server.reported(1, &token, None).await;
        assert_eq!(answer["patches"][0]["version"], best);
        std::fs::remove_file(&filler).unwrap();
        let gone = async || files(&inside) == before;
        until("the removal of what was half written", gone).await;
        let rows = "select count(*) from payloads";
        let rows = site.raw().await.query_one(rows, &[]).await.unwrap();
        assert_eq!(rows.get::<_, i64>(0), 1 + i64::from(run));
        let freed = Instant::now();
        let stored = server.upload(&name, bytes.clone()).await.unwrap();
        stored.expect(201);
        slowest = slowest.max(freed.elapsed());
        acknowledged.note(file("stored", &name, &bytes));
        lost.extend(acknowledged.lost(&site).await);
    }
    Outcome {
        scenario: "the storage's disk is full".to_owned(),
        runs,
        acknowledged: acknowledged.len(),
        lost,
        slowest,
    }
    .told();
    let verdict = server.admin("GET", "audit/verify", Value::Null).await;
    assert_eq!(verdict.unwrap().expect(200)["ok"], true);
    server.stop().await;
}

#[tokio::test]
async fn the_disk_of_the_spool_is_full() {
    let mut site = Site::new().await;
    let folder = site.folder.path().join("spool");
    std::fs::create_dir(&folder).unwrap();
    let Some(command) = with_small_disk(&folder) else {
        println!("SKIPPED: this account may mount nothing, not even in a namespace of its own");
        return;
    };
    site.set("LP_INGEST_SPOOL_DIRECTORY", folder.display().to_string());
    let server = site.start_as(command, &[]).await;
    let filler = inside(&server, &folder).join("filler");
    // Larger than what is kept in memory, and no bundle.
    let (name, bytes) = (kmod::bundle_name("107.1").to_string(), vec![7; 3 << 20]);
    fill(&filler);
    let refused = server.upload(&name, bytes.clone()).await.unwrap();
    assert_eq!(refused.status, 507, "{refused:?}");
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("ingest.spool-directory"), "{detail}");
    // Small ones need no spool.
    server.stored("106.1").await;
    std::fs::remove_file(&filler).unwrap();
    let taken = server.upload(&name, bytes).await.unwrap();
    assert_eq!(taken.status, 202, "{taken:?}");
    server.stop().await;
}
