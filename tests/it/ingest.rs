//! The one door in: what is taken, what is told from what was there, and what becomes of what is wrong.

use crate::support::admin::TestAdmin;
use crate::support::intake::{
    archive, content, entry, file, file_name, object, restarted, signed_module, trusting,
    trusting_with,
};
use crate::support::kmod;
use crate::support::s3;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, future::join_all, stream};
use livepatch_onprem::config::TrustPolicy;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::domain::Sha256;
use livepatch_onprem::service::{ServiceError, ingest, quarantine};
use livepatch_onprem::wire::admin::{IngestResult, format_repr_digest};
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

async fn takes_a_bundle_once(test: TestAdmin) {
    let path = kmod::real_bundle("107.1", TEXT);
    let (name, bytes) = (file_name(&path), content(&path));
    let sha256 = Sha256::of(&bytes);
    let digest = [
        ("repr-digest", format_repr_digest(&sha256)),
        ("x-content-sha256", sha256.to_string()),
    ];
    let check = format!("/payloads/{name}?sha256={sha256}");
    test.ask(livepatch_onprem::domain::Role::Viewer, "HEAD", &check, None)
        .await
        .expect(404);
    let first = test.upload_with(&name, bytes.clone(), &digest).await;
    let first = first.expect(201);
    assert_eq!(first.body["result"], "stored");
    assert_eq!(first.body["sha256"], sha256.to_string());
    assert_eq!(first.body["size"], bytes.len());
    assert_eq!(first.body["warning"], serde_json::Value::Null);
    assert_eq!(
        test.last_audit().await,
        ("payload.ingest".to_owned(), name.clone())
    );

    // What was written is read: in the list, and in the snapshot of this moment.
    let listed = test.get("/payloads").await.expect(200);
    let item = &listed.body["items"][0];
    assert_eq!(item["filename"], name);
    assert_eq!(item["tier"], "edge");
    assert_eq!(item["signature"], "good");
    assert_eq!(item["signer"], "CN=Live Patch Test Signing trusted");
    assert_eq!(item["source"], "upload");
    assert_eq!(item["added-by"], "operator");
    let snapshot = test.core.snapshots.get_full();
    let payload = snapshot.catalog.by_filename(&name).unwrap();
    assert_eq!((payload.sha256, payload.reach), (sha256, Some(0)));
    assert_eq!(payload.fixes[0].name, "CVE-2024-1086");
    let kept = test.core.cache.get(sha256, bytes.len() as u64).await;
    assert!(kept.unwrap() == bytes);

    let again = test.upload(&name, bytes.clone()).await.expect(200);
    assert_eq!(again.body["result"], "already-there");
    assert_eq!(test.audited("payload.ingest").await, 1);
    test.ask(livepatch_onprem::domain::Role::Viewer, "HEAD", &check, None)
        .await
        .expect(204);
}

#[tokio::test]
async fn a_bundle_is_taken_once() {
    takes_a_bundle_once(trusting().await).await;
}

#[tokio::test]
async fn a_bundle_is_taken_once_into_a_bucket() {
    let (storage, _folder) = s3::bucket();
    takes_a_bundle_once(trusting_with(|config| config.patch_storage = storage).await).await;
}

#[tokio::test]
async fn a_second_payload_of_a_patch_does_not_promote_it_again() {
    let test = trusting().await;
    let path = kmod::real_bundle("107.1", TEXT);
    test.plant_payloads(&["livepatch-5.15.0-1.1-aws-107.1-amd64.tar.bz2"])
        .await;
    let promote = serde_json::json!({"tier": "beta"});
    test.post("/patches/107.1/promote", promote)
        .await
        .expect(200);
    test.stored(&path).await;
    assert_eq!(test.rows("promotions").await, 2);
    let listed = test
        .get(&format!("/payloads?kernel={}", kmod::kernel()))
        .await;
    assert_eq!(listed.body["items"][0]["tier"], "beta");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_from_eight_at_once_is_one_row() {
    let test = trusting().await;
    let path = kmod::real_bundle("107.1", TEXT);
    let (name, bytes) = (file_name(&path), content(&path));
    let answers = join_all((0..8).map(|_| test.upload(&name, bytes.clone()))).await;
    let mut statuses: Vec<u16> = answers.iter().map(|a| a.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 200, 201]);
    assert_eq!(test.rows("payloads").await, 1);
    assert_eq!(test.rows("promotions").await, 1);
    assert_eq!(test.audited("payload.ingest").await, 1);
}

#[tokio::test]
async fn another_content_under_a_known_name_is_kept_apart() {
    let test = trusting().await;
    let path = kmod::real_bundle("107.1", TEXT);
    let bytes = test.stored(&path).await;
    let other = content(&kmod::real_bundle("107.1", "patched otherwise"));
    assert!(other != bytes);
    let answer = test.upload(&file_name(&path), other.clone()).await;
    let answer = answer.expect(202);
    assert_eq!(answer.body["result"], "quarantined");
    assert_eq!(answer.body["code"], "name-taken");
    let reason = answer.body["reason"].as_str().unwrap();
    for sha256 in [Sha256::of(&bytes), Sha256::of(&other)] {
        assert!(reason.contains(&sha256.to_string()), "{reason}");
    }
    assert!(object(test.folder(), "quarantine", &other).exists());
    assert!(!object(test.folder(), "objects", &other).exists());
    assert_eq!(test.rows("payloads").await, 1);
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
    let cases: Vec<(&str, &str, Body, Vec<(&str, String)>, u16, &str)> = vec![
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
    let answer = answer.expect(400);
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
            assert!(why.contains("ingest.spool-directory"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    test.upload(&name, large).await.expect(503);
    test.upload(&name, "small").await.expect(202);
}

#[tokio::test]
async fn the_policy_says_what_becomes_of_a_signature_that_is_not_good() {
    let path = kmod::unsigned_bundle("107.1", TEXT);
    let cases = [
        (TrustPolicy::Warn, "not-good", Some("no signature")),
        (TrustPolicy::Off, "not-checked", None),
    ];
    for (policy, state, warning) in cases {
        let test = trusting_with(|config| config.patch_trust.policy = policy).await;
        let answer = test.upload(&file_name(&path), content(&path)).await;
        let said = answer.expect(201).body["warning"].clone();
        let listed = test.get("/payloads").await.expect(200);
        let item = &listed.body["items"][0];
        assert_eq!(item["signature"], state);
        assert_eq!(item["warning"], said);
        match warning {
            Some(warning) => assert!(said.as_str().unwrap().contains(warning), "{said}"),
            None => assert!(said.is_null(), "{said}"),
        }
    }
}

#[tokio::test]
async fn sending_a_damaged_payload_again_heals_it() {
    let test = trusting().await;
    let path = kmod::real_bundle("107.1", TEXT);
    let bytes = test.stored(&path).await;
    let (name, place) = (file_name(&path), object(test.folder(), "objects", &bytes));

    // Missing, and nobody has noticed yet.
    std::fs::remove_file(&place).unwrap();
    let healed = test.upload(&name, bytes.clone()).await.expect(201);
    let warning = healed.body["warning"].as_str().unwrap();
    assert!(warning.contains("missing"), "{warning}");
    assert!(std::fs::read(&place).unwrap() == bytes);

    // Altered, and noticed by a download.
    std::fs::write(&place, vec![0; bytes.len()]).unwrap();
    let id = test
        .core
        .snapshots
        .get()
        .catalog
        .by_filename(&name)
        .unwrap()
        .id;
    let report = livepatch_onprem::service::storage::report_damaged;
    assert!(report(&test.core, id, "altered").await.unwrap());
    assert!(!report(&test.core, id, "altered").await.unwrap());
    assert_eq!(test.last_audit().await.0, "payload.damaged");
    let listed = test.get("/payloads").await.expect(200);
    assert_eq!(listed.body["items"][0]["damaged"], "altered");
    let check = format!("/payloads/{name}?sha256={}", Sha256::of(&bytes));
    let role = livepatch_onprem::domain::Role::Viewer;
    test.ask(role, "HEAD", &check, None).await.expect(404);
    test.upload(&name, bytes.clone()).await.expect(201);
    assert_eq!(test.last_audit().await.0, "payload.heal");
    assert!(std::fs::read(&place).unwrap() == bytes);
    test.ask(role, "HEAD", &check, None).await.expect(204);
    let listed = test.get("/payloads").await.expect(200);
    assert!(listed.body["items"][0]["damaged"].is_null());
}

#[tokio::test]
async fn an_object_without_a_row_is_used_only_if_it_is_right() {
    let test = trusting().await;
    let path = kmod::real_bundle("107.1", TEXT);
    let bytes = content(&path);
    let place = object(test.folder(), "objects", &bytes);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, vec![0; bytes.len()]).unwrap();
    test.stored(&path).await;
    assert!(std::fs::read(&place).unwrap() == bytes);
}

#[tokio::test]
async fn a_quarantined_file_is_released_when_it_is_trusted_and_not_before() {
    let test = trusting().await;
    let path = kmod::foreign_bundle("107.1", TEXT);
    let bytes = content(&path);
    let answer = test
        .upload(&file_name(&path), bytes.clone())
        .await
        .expect(202);
    let id = answer.body["quarantine-id"].as_i64().unwrap();
    let refused = test
        .ask(
            livepatch_onprem::domain::Role::Operator,
            "POST",
            &format!("/quarantine/{id}/release"),
            None,
        )
        .await
        .expect(409);
    assert!(
        refused.detail().contains("signer-not-trusted"),
        "{}",
        refused.detail()
    );
    assert_eq!(test.rows("quarantine").await, 1);

    let mut trust = test.core.trust.clone().unwrap();
    trust.add(&kmod::other_keys().cert_pem()).unwrap();
    let core = restarted(&test.core, |core| core.trust = Some(trust)).await;
    let outcome = quarantine::release(&core, &actor(), id).await.unwrap();
    assert_eq!(outcome.result, IngestResult::Stored);
    assert_eq!(test.rows("quarantine").await, 0);
    assert_eq!(test.rows("payloads").await, 1);
    assert!(!object(test.folder(), "quarantine", &bytes).exists());
    assert!(object(test.folder(), "objects", &bytes).exists());
    assert!(matches!(
        quarantine::release(&core, &actor(), id).await,
        Err(ServiceError::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_quarantined_file_is_dropped_and_its_content_only_with_the_last() {
    let test = trusting().await;
    let bytes = content(&kmod::real_bundle("107.1", TEXT));
    let mut ids = Vec::new();
    for version in ["107.2", "107.3"] {
        let name = kmod::bundle_name(version).to_string();
        let answer = test.upload(&name, bytes.clone()).await.expect(202);
        ids.push(answer.body["quarantine-id"].as_i64().unwrap());
    }
    let place = object(test.folder(), "quarantine", &bytes);
    test.delete(&format!("/quarantine/{}", ids[0]))
        .await
        .expect(204);
    assert!(place.exists());
    assert_eq!(test.last_audit().await.0, "quarantine.drop");
    // A kept object that was altered is not judged in the place of the file that was refused.
    std::fs::write(&place, vec![0; bytes.len()]).unwrap();
    let release = format!("/quarantine/{}/release", ids[1]);
    let refused = test.post(&release, serde_json::json!({})).await.expect(409);
    assert!(
        refused.detail().contains("cannot be released"),
        "{}",
        refused.detail()
    );
    test.delete(&format!("/quarantine/{}", ids[1]))
        .await
        .expect(204);
    assert!(!place.exists());
    test.delete(&format!("/quarantine/{}", ids[1]))
        .await
        .expect(404);
    for bad in ["/quarantine/x", "/quarantine/99999999999999999999"] {
        test.get(bad).await.expect(400);
    }
    for bad in [
        "cursor=abc",
        "limit=0",
        "limit=1001",
        "limit=x",
        "nothing=1",
    ] {
        test.get(&format!("/quarantine?{bad}")).await.expect(400);
        test.get(&format!("/payloads?{bad}")).await.expect(400);
    }
}

#[test]
fn every_failpoint_is_in_the_code_exactly_where_it_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/service");
    let mut text = String::new();
    for file in [
        "ingest/mod.rs",
        "ingest/store.rs",
        "promotions.rs",
        "storage.rs",
    ] {
        text.push_str(&std::fs::read_to_string(root.join(file)).unwrap());
    }
    for name in ingest::FAILPOINTS {
        assert_eq!(
            text.matches(&format!("failpoint(\"{name}\")")).count(),
            1,
            "{name}"
        );
    }
    let calls = text.matches("failpoint(\"").count();
    assert_eq!(calls, ingest::FAILPOINTS.len(), "a failpoint is not listed");
}
