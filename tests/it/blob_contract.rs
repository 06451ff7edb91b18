//! The contract of a storage backend, held to by all three over their real services.

use crate::blob::{Bench, noise, payload};
use futures_util::TryStreamExt as _;
use livepatch_onprem::blob::{BlobError, Content, Expect, Key, PutOutcome};
use livepatch_onprem::domain::Sha256;
use std::io::Write as _;

macro_rules! contract {
    ($($case:ident)*) => {
        mod filesystem { $(#[tokio::test] async fn $case() { super::$case(super::Bench::filesystem().await).await; })* }
        mod postgres { $(#[tokio::test] async fn $case() { super::$case(super::Bench::postgres().await).await; })* }
        mod s3 { $(#[tokio::test] async fn $case() { super::$case(super::Bench::s3().await).await; })* }
    };
}

contract! {
    what_is_put_comes_back
    large_content_comes_back
    putting_again_is_cheap
    other_content_than_promised_is_refused
    a_name_must_fit_its_content
    a_flipped_byte_is_never_served
    a_wrong_size_is_never_served
    a_missing_object_is_told_from_a_failure
    each_area_lists_its_own
    found_tarballs_are_copied_within_a_bound
    many_writers_of_one_object_agree
    health_is_a_round_trip
}

/// With S3 this is the server's to keep, and the one used here remembers sizes for a moment.
#[tokio::test]
async fn a_reader_of_a_folder_never_sees_a_mixture() {
    a_reader_never_sees_a_mixture(Bench::filesystem().await).await;
}

#[tokio::test]
async fn a_reader_of_a_table_never_sees_a_mixture() {
    a_reader_never_sees_a_mixture(Bench::postgres().await).await;
}

/// A spooled upload.
fn file(bytes: &[u8]) -> Content {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Content::from(file)
}

async fn store(bench: &Bench, bytes: &[u8]) -> (Key, Expect) {
    let (key, expect) = payload(bytes);
    let outcome = bench.store.put(&key, bytes.to_vec().into(), expect).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Stored);
    (key, expect)
}

async fn what_is_put_comes_back(bench: Bench) {
    for (n, len) in [0, 1, 70_000, 256 << 10, (256 << 10) + 1, 3 << 20]
        .into_iter()
        .enumerate()
    {
        let bytes = noise(len, n as u64);
        let (key, expect) = payload(&bytes);
        let content = if n % 2 == 0 {
            file(&bytes)
        } else {
            bytes.clone().into()
        };
        assert_eq!(bench.store.head(&key).await.unwrap(), None);
        let outcome = bench.store.put(&key, content, expect).await.unwrap();
        assert_eq!(outcome, PutOutcome::Stored, "{len}");
        assert_eq!(bench.store.head(&key).await.unwrap(), Some(len as u64));
        let got = bench.store.get_verified(&key, expect.sha256, expect.size);
        assert!(got.await.unwrap() == bytes, "{len} bytes differ");
        assert_eq!(bench.store.rehash(&key, expect.size).await.unwrap(), expect);
        bench.store.delete(&key).await.unwrap();
        assert_eq!(bench.store.head(&key).await.unwrap(), None);
    }
}

async fn large_content_comes_back(bench: Bench) {
    // Beyond what one S3 request carries, and no multiple of anything.
    let bytes = noise((20 << 20) + 12_345, 1);
    for (content, last) in [(file(&bytes), false), (bytes.clone().into(), true)] {
        let (key, expect) = payload(&bytes);
        bench.store.put(&key, content, expect).await.unwrap();
        let mut copy = Vec::new();
        let seen = bench.store.copy_unverified(&key, expect.size, &mut copy);
        assert_eq!(seen.await.unwrap(), expect);
        assert!(copy == bytes);
        if last {
            let mut wrong = bytes.clone();
            wrong[19 << 20] ^= 1;
            bench.store.delete(&key).await.unwrap();
            let error = bench.store.put(&key, file(&wrong), expect).await;
            assert!(matches!(error, Err(BlobError::WrongContent { .. })));
            assert_eq!(bench.store.head(&key).await.unwrap(), None);
        } else {
            bench.store.delete(&key).await.unwrap();
        }
    }
}

async fn putting_again_is_cheap(bench: Bench) {
    let bytes = noise(100_000, 1);
    let (key, expect) = store(&bench, &bytes).await;
    for _ in 0..3 {
        let again = bench.store.put(&key, bytes.clone().into(), expect).await;
        assert_eq!(again.unwrap(), PutOutcome::AlreadyThere);
    }
    assert_eq!(bench.count("put"), 1);
    assert_eq!(bench.count("read"), 0, "size is all that was looked at");
    let again = bench.store.put_again(&key, bytes.into(), expect).await;
    assert_eq!(again.unwrap(), PutOutcome::AlreadyThere);
    assert_eq!((bench.count("put"), bench.count("read")), (1, 1));
}

async fn other_content_than_promised_is_refused(bench: Bench) {
    let bytes = noise(300_000, 1);
    let (key, expect) = payload(&bytes);
    let mut flipped = bytes.clone();
    flipped[299_999] ^= 0x80;
    let longer = [bytes.as_slice(), b"x"].concat();
    for wrong in [flipped.as_slice(), &bytes[..299_999], &longer, b""] {
        for content in [file(wrong), wrong.to_vec().into()] {
            let error = bench.store.put(&key, content, expect).await.unwrap_err();
            let BlobError::WrongContent { expected, got, .. } = &error else {
                panic!("{error}");
            };
            assert_eq!(*expected, expect);
            assert_ne!(*got, expect);
            assert!(error.to_string().contains("nothing was stored"), "{error}");
            assert_eq!(bench.store.head(&key).await.unwrap(), None);
        }
    }
    let left: Vec<_> = bench.store.list_payloads().try_collect().await.unwrap();
    assert_eq!(left, []);
}

async fn a_name_must_fit_its_content(bench: Bench) {
    let expect = Expect::of(b"content");
    let key = Key::Payload(Sha256::of(b"other"));
    let error = bench.store.put(&key, b"content".to_vec().into(), expect);
    assert!(matches!(error.await, Err(BlobError::WrongContent { .. })));
    assert_eq!(bench.store.head(&key).await.unwrap(), None);
}

async fn a_flipped_byte_is_never_served(bench: Bench) {
    let bytes = noise(300_000, 1);
    let (key, expect) = store(&bench, &bytes).await;
    bench.damage(&key, |b| b[150_000] ^= 1).await;
    let error = bench
        .store
        .get_verified(&key, expect.sha256, expect.size)
        .await
        .unwrap_err();
    assert!(
        error.is_bad_object() && error.key() == Some(&key),
        "{error}"
    );
    let BlobError::Corrupt { expected, got, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(expected, expect.sha256);
    assert_eq!(
        bench.store.rehash(&key, expect.size).await.unwrap().sha256,
        got
    );
    // Repair: the cheap way believes the size, the thorough way does not.
    let put = bench.store.put(&key, bytes.clone().into(), expect).await;
    assert_eq!(put.unwrap(), PutOutcome::AlreadyThere);
    let put = bench
        .store
        .put_again(&key, bytes.clone().into(), expect)
        .await;
    assert_eq!(put.unwrap(), PutOutcome::Replaced);
    let got = bench.store.get_verified(&key, expect.sha256, expect.size);
    assert!(got.await.unwrap() == bytes);
}

async fn a_wrong_size_is_never_served(bench: Bench) {
    let bytes = noise(300_000, 1);
    let (key, expect) = store(&bench, &bytes).await;
    let get = || bench.store.get_verified(&key, expect.sha256, expect.size);
    bench.damage(&key, |b| b.truncate(299_999)).await;
    let error = get().await.unwrap_err();
    assert!(
        matches!(
            error,
            BlobError::Truncated {
                expected: 300_000,
                got: 299_999,
                ..
            }
        ),
        "{error}"
    );
    bench.damage(&key, |b| b.extend_from_slice(b"xy")).await;
    let error = get().await.unwrap_err();
    assert!(
        matches!(error, BlobError::TooLarge { limit: 300_000, .. }),
        "{error}"
    );
    bench.damage(&key, Vec::clear).await;
    assert!(get().await.unwrap_err().is_bad_object());
    // What the catalog expects may be wrong as well.
    let error = bench.store.get_verified(&key, expect.sha256, 7).await;
    assert!(error.unwrap_err().is_bad_object());
}

async fn a_missing_object_is_told_from_a_failure(bench: Bench) {
    let (key, expect) = payload(b"never stored");
    let error = bench
        .store
        .get_verified(&key, expect.sha256, expect.size)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, BlobError::NotFound { key: k, .. } if *k == key),
        "{error}"
    );
    assert!(error.to_string().contains("fetch it again"), "{error}");
    assert!(matches!(
        bench.store.rehash(&key, 100).await,
        Err(BlobError::NotFound { .. })
    ));
    bench.store.delete(&key).await.unwrap();
}

async fn each_area_lists_its_own(bench: Bench) {
    let mut payloads = Vec::new();
    for n in 0..5_u64 {
        let bytes = noise(100 + n as usize, n);
        let (_, expect) = store(&bench, &bytes).await;
        payloads.push((expect.sha256, expect.size));
    }
    let refused = Expect::of(b"refused");
    let key = Key::Quarantine(refused.sha256);
    bench
        .store
        .put(&key, b"refused".to_vec().into(), refused)
        .await
        .unwrap();
    for (path, bytes) in [
        ("livepatch-1.tar.bz2", &b"one"[..]),
        ("from downloader/deep/livepatch-2.tar.bz2", b"two!"),
        ("notes.txt", b"no bundle"),
        ("objects/livepatch-3.tar.bz2", b"not in a place of its own"),
        ("objects/sha256/zz/livepatch", b"stray"),
    ] {
        bench.plant(path, bytes).await;
    }
    let mut found: Vec<_> = bench.store.list_found().try_collect().await.unwrap();
    found.sort_unstable();
    let found: Vec<_> = found.iter().map(|(p, size)| (p.as_str(), *size)).collect();
    let expected = [
        ("from downloader/deep/livepatch-2.tar.bz2", 4),
        ("livepatch-1.tar.bz2", 3),
    ];
    assert_eq!(found, expected);
    let mut listed: Vec<_> = bench.store.list_payloads().try_collect().await.unwrap();
    listed.sort_unstable();
    payloads.sort_unstable();
    assert_eq!(listed, payloads);
    let listed: Vec<_> = bench.store.list_quarantine().try_collect().await.unwrap();
    assert_eq!(listed, [(refused.sha256, refused.size)]);
}

async fn found_tarballs_are_copied_within_a_bound(bench: Bench) {
    let bytes = noise(600_000, 1);
    bench.plant("in/a b+c.tar.bz2", &bytes).await;
    let found: Vec<_> = bench.store.list_found().try_collect().await.unwrap();
    let path = &found[0].0;
    let mut spool = tokio::fs::File::from_std(tempfile::tempfile().unwrap());
    let seen = bench.store.read_found(path, 600_000, &mut spool).await;
    assert_eq!(seen.unwrap(), Expect::of(&bytes));
    let (key, expect) = payload(&bytes);
    let content = Content::from(spool.into_std().await);
    bench.store.put(&key, content, expect).await.unwrap();
    let error = bench
        .store
        .read_found(path, 599_999, &mut tokio::io::sink())
        .await
        .unwrap_err();
    assert!(
        matches!(error, BlobError::TooLarge { limit: 599_999, .. }),
        "{error}"
    );
}

async fn many_writers_of_one_object_agree(bench: Bench) {
    let bytes = noise(400_000, 1);
    let (key, expect) = payload(&bytes);
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let (store, key, bytes) = (bench.store.clone(), key.clone(), bytes.clone());
            tokio::spawn(async move { store.put(&key, bytes.into(), expect).await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    let got = bench.store.get_verified(&key, expect.sha256, expect.size);
    assert!(got.await.unwrap() == bytes);
    let listed: Vec<_> = bench.store.list_payloads().try_collect().await.unwrap();
    assert_eq!(listed.len(), 1);
}

async fn a_reader_never_sees_a_mixture(bench: Bench) {
    let key = Key::Found("changing.tar.bz2".parse().unwrap());
    let contents = [vec![b'a'; 3_000_000], vec![b'b'; 2_600_000]];
    let expects = [Expect::of(&contents[0]), Expect::of(&contents[1])];
    let first = bench
        .store
        .put(&key, contents[0].clone().into(), expects[0]);
    first.await.unwrap();
    let (store, name) = (bench.store.clone(), key.clone());
    let writer = tokio::spawn(async move {
        for turn in 1..12 {
            let content = contents[turn % 2].clone().into();
            store.put(&name, content, expects[turn % 2]).await.unwrap();
        }
    });
    let mut whole = 0;
    while !writer.is_finished() || whole == 0 {
        match bench.store.rehash(&key, 3_000_000).await {
            Ok(seen) => {
                assert!(expects.contains(&seen), "a mixture: {seen}");
                whole += 1;
            }
            // A reader that the writer overtook may be told so.
            Err(BlobError::Truncated { .. } | BlobError::Unavailable { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    writer.await.unwrap();
}

async fn health_is_a_round_trip(bench: Bench) {
    bench.store.health().await.unwrap();
    assert_eq!(bench.count("health"), 1);
}
