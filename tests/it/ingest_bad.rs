//! Bad input at the door: each file with the code and the reason it gets, or the refusal.

use crate::support::intake::{
    archive, content, entry, file, file_name, object, signed_module, trusting, trusting_with,
};
use crate::support::kmod;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::domain::Sha256;
use livepatch_onprem::service::{ServiceError, ingest};
use livepatch_onprem::wire::admin::format_repr_digest;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tar::EntryType;

const TEXT: &str = "patched by 107.1";

fn actor() -> Actor {
    Actor {
        name: "tester".to_owned(),
        source: "127.0.0.1".to_owned(),
    }
}

/// Each bundle that is whole but wrong, with the code and a part of the reason that it must get.
fn wrong_bundles() -> Vec<(&'static str, Vec<u8>, &'static str, &'static str)> {
    let good = content(&kmod::real_bundle("107.1", TEXT)).to_vec();
    let module = signed_module(&kmod::real_bundle("107.1", TEXT));
    let ko = || file("x.ko", &module);
    let with = |parts: &[Vec<u8>]| {
        let mut all = vec![ko()];
        all.extend_from_slice(parts);
        archive(&all)
    };
    let changed = |at: usize| {
        let mut module = module.clone();
        module[at] ^= 1;
        archive(&[file("x.ko", &module)])
    };
    let many: Vec<Vec<u8>> = (0..300).map(|n| file(&format!("f{n}"), b"")).collect();
    let mut huge_signature = module.clone();
    let length = module.len() - 32..module.len() - 28;
    huge_signature[length].copy_from_slice(&(1u32 << 20).to_be_bytes());
    let mut two_streams = good.clone();
    two_streams.extend_from_slice(b"tail");
    let pax = entry(EntryType::XHeader, "p", b"18 path=../../etc\n");
    let noise: Vec<u8> = (0u32..100_000)
        .flat_map(|n| Sha256::of(&n.to_be_bytes()).0)
        .collect();
    vec![
        (
            "much",
            archive(&[file("a", &noise), file("b", &noise)]),
            "unpacks-too-large",
            "more than 4194304 bytes",
        ),
        (
            "one large file",
            archive(&[file("a", &vec![0; 5 << 20])]),
            "entry-too-large",
            "at most 4194304",
        ),
        (
            "not bzip2",
            b"hello".to_vec(),
            "not-bzip2",
            "not one whole bzip2",
        ),
        (
            "cut off",
            good[..good.len() / 2].to_vec(),
            "truncated",
            "ends too early",
        ),
        ("followed by more", two_streams, "not-bzip2", "bzip2"),
        (
            "a bomb",
            archive(&[file("zeros", &vec![0; 3 << 20])]),
            "decompression-bomb",
            "times its size",
        ),
        (
            "a million entries",
            with(&many),
            "too-many-entries",
            "more than 256 entries",
        ),
        (
            "absolute",
            with(&[file("/etc/passwd", b"x")]),
            "unsafe-name",
            "absolute",
        ),
        ("climbing", with(&[file("../x", b"x")]), "unsafe-name", ".."),
        (
            "PAX name",
            with(&[pax, file("a", b"")]),
            "unsafe-name",
            "..",
        ),
        (
            "symlink",
            with(&[entry(EntryType::Symlink, "l", b"")]),
            "entry-kind",
            "symbolic link",
        ),
        (
            "device",
            with(&[entry(EntryType::Char, "d", b"")]),
            "entry-kind",
            "character device",
        ),
        (
            "doubled",
            with(&[file("a", b""), file("a", b"")]),
            "duplicate-name",
            "twice",
        ),
        (
            "no tar",
            archive(&[vec![7; 512]]),
            "not-tar",
            "not a valid tar",
        ),
        (
            "no module",
            archive(&[file("a", b"x")]),
            "no-module",
            "no kernel module",
        ),
        (
            "two modules",
            with(&[file("y.ko", &module)]),
            "several-modules",
            "two kernel modules",
        ),
        (
            "no ELF",
            archive(&[file("x.ko", b"x")]),
            "bad-module",
            "x.ko",
        ),
        (
            "metadata",
            with(&[file(
                "metadata.json",
                br#"{"format": "livepatch-onprem-bundle", "format-version": 9}"#,
            )]),
            "bad-metadata",
            "version 9",
        ),
        (
            "a bit of the module",
            changed(module.len() / 2),
            "signature-mismatch",
            "one of the two was changed",
        ),
        (
            "a huge signature",
            archive(&[file("x.ko", &huge_signature)]),
            "signature-too-large",
            "claims 1048576 bytes",
        ),
        (
            "unsigned",
            content(&kmod::unsigned_bundle("107.1", TEXT)).to_vec(),
            "signature-missing",
            "no signature",
        ),
        (
            "a stranger's",
            content(&kmod::foreign_bundle("107.1", TEXT)).to_vec(),
            "signer-not-trusted",
            "Live Patch Test Signing other",
        ),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_kept_apart_with_its_reason() {
    let test = trusting_with(|config| config.ingest.max_unpacked_bytes = 4 << 20).await;
    let name = kmod::bundle_name("107.1").to_string();
    let wrong = wrong_bundles();
    let mut ids = Vec::new();
    for (what, bytes, code, reason) in &wrong {
        let answer = test.upload(&name, bytes.clone()).await;
        assert_eq!(answer.status, 202, "{what}: {}", answer.body);
        assert_eq!(answer.body["code"], *code, "{what}: {}", answer.body);
        let said = answer.body["reason"].as_str().unwrap();
        assert!(said.contains(reason), "{what}: {said}");
        assert!(
            object(test.folder(), "quarantine", bytes).exists(),
            "{what}"
        );
        assert!(!object(test.folder(), "objects", bytes).exists(), "{what}");
        ids.push(answer.body["quarantine-id"].as_i64().unwrap());
        let shown = test
            .get(&format!("/quarantine/{}", ids[ids.len() - 1]))
            .await;
        assert_eq!(shown.expect(200).body["code"], *code);
    }
    for table in ["payloads", "patches", "promotions"] {
        assert_eq!(test.rows(table).await, 0, "{table}");
    }
    let audited = test.audited("quarantine.add").await;
    assert_eq!(audited, wrong.len() as i64);

    // The same again: the same entry, no noise.
    let again = test.upload(&name, wrong[0].1.clone()).await.expect(202);
    assert_eq!(again.body["quarantine-id"], ids[0]);
    assert_eq!(test.audited("quarantine.add").await, audited);

    // The list comes in pages, newest first.
    let page = test.get("/quarantine?limit=3").await.expect(200);
    let cursor = page.body["next-cursor"].as_str().unwrap();
    assert_eq!(page.body["items"][0]["id"], ids[ids.len() - 1]);
    let next = test
        .get(&format!("/quarantine?limit=3&cursor={cursor}"))
        .await;
    assert_eq!(next.expect(200).body["items"][0]["id"], ids[ids.len() - 4]);
}

#[tokio::test]
async fn a_real_bundle_under_another_payloads_name_is_kept_apart() {
    let test = trusting().await;
    let bytes = content(&kmod::real_bundle("107.1", TEXT));
    for wrong in [
        "livepatch-5.4.0-1.1-generic-107.1-amd64.tar.bz2".to_owned(),
        kmod::bundle_name("107.1")
            .to_string()
            .replace("-amd64", "-arm64"),
        kmod::bundle_name("107.2").to_string(),
    ] {
        let answer = test.upload(&wrong, bytes.clone()).await.expect(202);
        assert_eq!(answer.body["code"], "name-mismatch", "{}", answer.body);
    }
    assert_eq!(test.rows("payloads").await, 0);
}

/// What it is, name, body and headers of an upload; status and a part of the answer's text.
type Refused<'a> = (&'a str, &'a str, Body, Vec<(&'a str, String)>, u16, &'a str);

#[tokio::test]
async fn what_is_not_even_whole_is_refused_and_not_kept() {
    let test = trusting_with(|config| config.ingest.max_bundle_bytes = 1 << 20).await;
    let path = kmod::real_bundle("107.1", TEXT);
    let (name, bytes) = (file_name(&path), content(&path));
    let other = Sha256::of(b"other");
    let broken = Body::from_stream(stream::iter([
        Ok(bytes.slice(..1000)),
        Err(io::Error::from(io::ErrorKind::ConnectionReset)),
    ]));
    let declared = |value: String| vec![("x-content-sha256", value)];
    let long = vec![("content-length", (2 << 20).to_string())];
    let long_name = format!("livepatch-{}.tar.bz2", "x".repeat(5000));
    let cases: Vec<Refused<'_>> = vec![
        (
            "no bundle's name",
            "x.tar.bz2",
            bytes.clone().into(),
            vec![],
            400,
            "livepatch-KERNEL",
        ),
        (
            "a path",
            "..%2Fx.tar.bz2",
            bytes.clone().into(),
            vec![],
            400,
            "livepatch-KERNEL",
        ),
        (
            "a long name",
            &long_name,
            bytes.clone().into(),
            vec![],
            400,
            "livepatch-KERNEL",
        ),
        (
            "empty",
            &name,
            Body::empty(),
            vec![],
            400,
            "without content",
        ),
        (
            "broken off",
            &name,
            broken,
            vec![],
            400,
            "broke off after 1000 bytes",
        ),
        (
            "another digest",
            &name,
            bytes.clone().into(),
            declared(other.to_string()),
            400,
            "was declared",
        ),
        (
            "no digest",
            &name,
            bytes.clone().into(),
            declared("xyz".to_owned()),
            400,
            "64 hexadecimal digits",
        ),
        (
            "no such form",
            &name,
            bytes.clone().into(),
            vec![("repr-digest", "sha-256=abc".to_owned())],
            400,
            "base64",
        ),
        (
            "two digests",
            &name,
            bytes.clone().into(),
            vec![
                ("repr-digest", format_repr_digest(&Sha256::of(&bytes))),
                ("x-content-sha256", other.to_string()),
            ],
            400,
            "different digests",
        ),
        (
            "long by its own word",
            &name,
            Body::empty(),
            long,
            413,
            "allows 1048576",
        ),
        (
            "long",
            &name,
            vec![7; (1 << 20) + 1].into(),
            vec![],
            413,
            "more than 1048576 bytes",
        ),
    ];
    for (what, name, body, headers, status, detail) in cases {
        let answer = test.upload_with(name, body, &headers).await;
        assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.body);
        assert!(
            answer.detail().contains(detail),
            "{what}: {}",
            answer.detail()
        );
        assert!(answer.detail().len() < 700, "{what}");
    }
    for table in [
        "payloads",
        "quarantine",
        "audit_log where action <> 'session.open'",
    ] {
        assert_eq!(test.rows(table).await, 0, "{table}");
    }
    for area in ["objects", "quarantine"] {
        assert!(!test.folder().join(area).join("sha256").exists(), "{area}");
    }
}

#[tokio::test]
async fn an_endless_body_is_read_no_further_than_the_limit() {
    let test = trusting_with(|config| config.ingest.max_bundle_bytes = 3 << 20).await;
    let given = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&given);
    let chunk = Bytes::from(vec![7; 64 << 10]);
    let endless = stream::repeat(chunk).map(move |chunk| {
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        io::Result::Ok(chunk)
    });
    let name = kmod::bundle_name("107.1").to_string();
    let answer = test.upload(&name, Body::from_stream(endless)).await;
    assert_eq!(answer.expect(413).problem(), "too-large");
    assert!(given.load(Ordering::Relaxed) <= (3 << 20) + (64 << 10));
}

#[tokio::test]
async fn a_sender_who_falls_silent_is_given_up() {
    let test = trusting_with(|config| {
        config.server.body_timeout = std::time::Duration::from_millis(50);
    })
    .await;
    let silent = stream::iter([io::Result::Ok(Bytes::from_static(b"BZh9"))])
        .chain(stream::pending::<io::Result<Bytes>>());
    let name = kmod::bundle_name("107.1").to_string();
    let answer = test.upload(&name, Body::from_stream(silent)).await;
    let answer = answer.expect(408);
    assert!(
        answer.detail().contains("nothing came for 50ms"),
        "{}",
        answer.detail()
    );
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_is_said_so() {
    let test = trusting_with(|config| {
        config.ingest.spool_directory = Some("/nonexistent/spool".into());
    })
    .await;
    let name = kmod::bundle_name("107.1").to_string();
    // A body that is small stays in memory; only a large one needs the spool.
    let large = vec![7; (1 << 20) + 1];
    let body = stream::iter([io::Result::Ok(Bytes::from(large.clone()))]);
    let error = ingest::bundle(&test.core, &actor(), "upload", &name, None, body).await;
    match error {
        Err(ServiceError::Unavailable(why)) => {
            assert!(why.contains("ingest.spool-directory"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    test.upload(&name, large).await.expect(503);
    test.upload(&name, "small").await.expect(202);
}
