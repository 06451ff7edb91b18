//! What only the folder has: full disks, leftovers, files that are no files, and verified files.

use crate::blob::{Bench, logged, noise, payload};
use livepatch_onprem::blob::{BlobError, Key, Store};
use livepatch_onprem::config::{Database, PatchStorage};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

fn config(folder: &Path) -> PatchStorage {
    PatchStorage {
        filesystem_path: folder.to_owned(),
        ..PatchStorage::default()
    }
}

/// Files below the store's folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found
}

const LIMITED: &str = "LIVEPATCH_TEST_LIMITED_FOLDER";

#[test]
fn no_room_is_said_and_leaves_nothing() {
    // A process that may write no file beyond 256 KiB (`ulimit` counts blocks of 512 bytes) stands for a full disk: it
    // needs no rights to mount anything.
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("sh")
        .arg("-c")
        .arg("trap '' XFSZ; ulimit -f 512; exec \"$0\" --exact blob_filesystem::writes_beyond_a_limit --ignored")
        .arg(std::env::current_exe().unwrap())
        .env(LIMITED, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "run by no_room_is_said_and_leaves_nothing in a process with a limit"]
async fn writes_beyond_a_limit() {
    let folder = std::env::var(LIMITED).unwrap();
    let store = Store::open(&config(Path::new(&folder)), &Database::default())
        .await
        .unwrap();
    let bytes = noise(400_000, 1);
    let (key, expect) = payload(&bytes);
    let error = store.put(&key, bytes.into(), expect).await.unwrap_err();
    assert!(matches!(error, BlobError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains(&folder), "{error}");
    assert_eq!(files(Path::new(&folder)), Vec::<String>::new());
    let (key, expect) = payload(b"small");
    store
        .put(&key, b"small".to_vec().into(), expect)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_what_is_being_written_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join(".livepatch-work");
    std::fs::create_dir(&work).unwrap();
    let old = std::fs::File::create(work.join("put-old")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_hours(48))
        .unwrap();
    std::fs::File::create(work.join("put-new")).unwrap();
    let (store, _) = logged(&config(folder.path()), &Database::default()).await;
    assert_eq!(files(folder.path()), [".livepatch-work/put-new"]);
    let (key, expect) = payload(b"x");
    store.put(&key, b"x".to_vec().into(), expect).await.unwrap();
    let mode = std::fs::metadata(folder.path().join(key.to_string()))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[tokio::test]
async fn what_is_no_plain_file_is_no_object() {
    let bench = Bench::filesystem().await;
    let folder = bench.folder();
    let pipe = folder.join("pipe.tar.bz2");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    std::fs::create_dir(folder.join("folder.tar.bz2")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("zero.tar.bz2")).unwrap();
    std::os::unix::fs::symlink(".", folder.join("circle")).unwrap();
    for name in ["pipe.tar.bz2", "folder.tar.bz2", "zero.tar.bz2"] {
        let key = Key::Found(name.parse().unwrap());
        let read = bench.store.rehash(&key, 1000).await;
        assert!(matches!(read, Err(BlobError::NotFound { .. })), "{name}");
    }
    let found: Vec<_> = futures_util::TryStreamExt::try_collect(bench.store.list_found())
        .await
        .unwrap();
    assert_eq!(found, []);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_a_failure_and_not_an_empty_store() {
    let bench = Bench::filesystem().await;
    std::fs::remove_dir_all(bench.folder()).unwrap();
    assert!(bench.store.health().await.is_err());
    let (key, expect) = payload(b"x");
    let put = bench.store.put(&key, b"x".to_vec().into(), expect).await;
    assert!(!put.unwrap_err().is_bad_object());
    let listed: Result<Vec<_>, _> =
        futures_util::TryStreamExt::try_collect(bench.store.list_found()).await;
    assert!(listed.is_err());
}

#[tokio::test]
async fn a_path_that_is_no_folder_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Store::open(&config(file.path()), &Database::default())
        .await
        .unwrap_err();
    let path = file.path().display().to_string();
    assert!(error.to_string().contains(&path), "{error}");
}
