//! The one door in: what is taken, what is told from what was there, and what becomes of what is wrong.

use crate::support::admin::TestAdmin;
use crate::support::intake::{content, file_name, object, trusting, trusting_with};
use crate::support::kmod;
use crate::support::s3;
use futures_util::future::join_all;
use livepatch_onprem::config::TrustPolicy;
use livepatch_onprem::domain::Sha256;
use livepatch_onprem::wire::admin::format_repr_digest;

const TEXT: &str = "patched by 107.1";

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
