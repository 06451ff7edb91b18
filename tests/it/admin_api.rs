//! What holds for every operation of the admin API: it stands in the document, asks who is there, writes the audit log
//! if it changes something, and answers nonsense with a clear error.

use crate::admin_samples::SAMPLES;
use crate::admin_things::seed;
use crate::support::admin::TestAdmin;
use axum::body::Body;
use axum::http::{Request, header};
use livepatch_onprem::domain::Role;
use livepatch_onprem::http::admin::openapi;
use livepatch_onprem::service::jobs;
use livepatch_onprem::wire::admin::JobState;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Operations of the document: id to path, method and description.
pub fn operations() -> BTreeMap<String, (String, String, Value)> {
    let document = serde_json::to_value(openapi()).unwrap();
    let mut found = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let entry = (path.clone(), method.to_uppercase(), operation.clone());
            assert!(
                found.insert(id.clone(), entry).is_none(),
                "two operations are called {id}"
            );
        }
    }
    found
}

/// The audit log: entries, and action and actor of the newest.
pub async fn audit_rows(test: &TestAdmin) -> (i64, String, String) {
    let rows = test.db.raw().await;
    let row = rows
        .query_one(
            "select count(*), coalesce((array_agg(action order by seq desc))[1], ''),
                coalesce((array_agg(actor order by seq desc))[1], '') from audit_log",
            &[],
        )
        .await
        .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn every_operation_is_in_the_table_of_samples() {
    let operations = operations();
    let sampled: BTreeSet<&str> = SAMPLES.iter().map(|sample| sample.operation).collect();
    let documented: BTreeSet<&str> = operations.keys().map(String::as_str).collect();
    assert_eq!(sampled, documented);
    for sample in SAMPLES {
        let (path, method, _) = &operations[sample.operation];
        assert_eq!(method, sample.method, "{}", sample.operation);
        // The sample's path fits the template, segment by segment.
        let plain = sample.path.split('?').next().unwrap();
        let plain = format!("/v1/admin{plain}");
        let (given, template): (Vec<_>, Vec<_>) =
            (plain.split('/').collect(), path.split('/').collect());
        assert_eq!(given.len(), template.len(), "{}", sample.operation);
        for (given, template) in given.iter().zip(template) {
            assert!(
                template.starts_with('{') || *given == template,
                "{}",
                sample.operation
            );
        }
        assert_eq!(
            sample.action.is_some(),
            !matches!(method.as_str(), "GET" | "HEAD"),
            "{}",
            sample.operation
        );
    }
}

#[test]
fn every_operation_says_what_it_is_for_and_how_it_fails() {
    for (id, (path, _, operation)) in operations() {
        assert!(
            operation["summary"]
                .as_str()
                .is_some_and(|text| text.len() > 5),
            "{id}"
        );
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{id}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(
            responses.keys().any(|status| status.starts_with('2')),
            "{id}"
        );
        for status in ["401", "503", "default"] {
            let shared = responses[status]["$ref"].as_str().unwrap();
            assert!(
                shared.starts_with("#/components/responses/"),
                "{id} {status}"
            );
        }
        let parameters = operation["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let in_path = parameters.iter().filter(|p| p["in"] == "path").count();
        assert_eq!(in_path, path.matches('{').count(), "{id}");
        for parameter in parameters {
            let text = parameter["description"].as_str().unwrap_or_default();
            assert!(text.len() > 5, "{id}: {}", parameter["name"]);
        }
    }
}

#[test]
fn the_document_is_as_agreed() {
    let document = openapi().to_pretty_json().unwrap();
    // Every reference leads somewhere.
    let value: Value = serde_json::from_str(&document).unwrap();
    for reference in document.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(
            value["components"]["schemas"].get(name).is_some(),
            "{name} is missing"
        );
    }
    insta::assert_snapshot!(document);
}

#[tokio::test]
async fn the_document_is_served_to_everybody() {
    let test = TestAdmin::new().await;
    let answer = test
        .ask_from("127.0.0.1", "GET", "/v1/openapi.json", None, None)
        .await
        .expect(200);
    assert_eq!(answer.body, serde_json::to_value(openapi()).unwrap());
    assert_eq!(answer.body["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn every_operation_asks_who_is_there() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    for sample in SAMPLES {
        let mut body = sample.json();
        if sample.operation == "sessions.login" {
            body.as_mut().unwrap()["password"] = json!("a wrong password");
        }
        for authorization in [
            None,
            Some("Bearer lps_gggggggggggggggggggggggggggggggggggggggggggg"),
        ] {
            let answer = test
                .ask_from(
                    "127.0.0.1",
                    sample.method,
                    sample.path,
                    authorization,
                    body.clone(),
                )
                .await;
            assert_eq!(answer.status, 401, "{}: {}", sample.operation, answer.body);
            if sample.method != "HEAD" {
                assert_eq!(answer.problem(), "unauthorized");
            }
            assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
        }
    }
    assert_eq!(audit_rows(&test).await.0, 0);
}

#[tokio::test]
async fn a_lesser_role_is_refused_and_changes_nothing() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    for sample in SAMPLES {
        for role in Role::ALL.into_iter().filter(|role| *role < sample.role) {
            let answer = test
                .ask(role, sample.method, sample.path, sample.json())
                .await;
            assert_eq!(
                answer.status, 403,
                "{} as {role}: {}",
                sample.operation, answer.body
            );
            assert!(
                answer.detail().contains(sample.role.as_str()),
                "{}",
                answer.detail()
            );
        }
    }
    assert_eq!(audit_rows(&test).await.0, 0);
}

#[tokio::test]
async fn every_change_and_only_a_change_is_in_the_audit_log() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    let mut count = 0;
    for sample in SAMPLES {
        let answer = test
            .ask(sample.role, sample.method, sample.path, sample.json())
            .await;
        assert!(
            answer.status.is_success(),
            "{}: {} {:#}",
            sample.operation,
            answer.status,
            answer.body
        );
        if sample.operation.starts_with("storage.") {
            // One job runs at a time.
            let id = answer.body["id"].as_i64().unwrap();
            let job = jobs::wait(&test.core, id).await.unwrap();
            assert_eq!(job.state, JobState::Done, "{job:?}");
        }
        count += i64::from(sample.action.is_some());
        let (rows, action, actor) = audit_rows(&test).await;
        assert_eq!(rows, count, "{}", sample.operation);
        if let Some(expected) = sample.action {
            assert_eq!(
                (action.as_str(), actor.as_str()),
                (expected, sample.role.as_str())
            );
        }
    }
    let verdict = test
        .ask(Role::Operator, "GET", "/audit/verify", None)
        .await
        .expect(200);
    assert_eq!(verdict.body["ok"], true);
    assert_eq!(verdict.body["entries"], count);
}

#[tokio::test]
async fn what_does_not_exist_is_a_problem_too() {
    let test = TestAdmin::new().await;
    let answer = test.get("/nothing/here").await.expect(404);
    assert_eq!(answer.problem(), "not-found");
    assert_eq!(answer.body["instance"], "/v1/admin/nothing/here");
    let answer = test
        .ask(Role::Admin, "PATCH", "/admins", None)
        .await
        .expect(405);
    assert_eq!(answer.problem(), "method-not-allowed");
    assert!(answer.headers.contains_key(header::ALLOW));
    // The caller's own request id comes back, unless it is absurd.
    for (sent, same) in [("my-id-7", true), (&"x".repeat(1000), false)] {
        let request = Request::get("/v1/admin/session")
            .header("x-request-id", sent)
            .body(Body::empty())
            .unwrap();
        let answer = test.send(request).await.expect(401);
        assert_eq!(answer.body["request-id"] == sent, same);
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_a_503_that_says_nothing_of_the_inside() {
    let test = TestAdmin::new().await;
    test.core.db.close();
    let answer = test.get("/session").await.expect(503);
    assert_eq!(answer.problem(), "unavailable");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert!(
        !answer.body.to_string().contains("database"),
        "{}",
        answer.body
    );
    assert!(answer.body["request-id"].is_string());
}
