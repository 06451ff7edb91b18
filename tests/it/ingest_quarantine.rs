//! Quarantine: release and drop.

use crate::support::intake::{content, file_name, object, restarted, trusting};
use crate::support::kmod;
use livepatch_onprem::db::audit::Actor;
use livepatch_onprem::service::{ServiceError, quarantine};
use livepatch_onprem::wire::admin::IngestResult;

const TEXT: &str = "patched by 107.1";

fn actor() -> Actor {
    Actor {
        name: "tester".to_owned(),
        source: "127.0.0.1".to_owned(),
    }
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
