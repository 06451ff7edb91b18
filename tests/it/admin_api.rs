//! What holds for every operation of the admin API: it stands in the document, asks who is there, writes the audit log
//! if it changes something, and answers nonsense with a clear error.

use crate::admin_samples::{SAMPLES, Sample, seed};
use crate::support::admin::{Answer, TestAdmin};
use axum::body::Body;
use axum::http::{Request, header};
use livepatch_onprem::domain::Role;
use livepatch_onprem::http::admin::openapi;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Operations of the document: id to path, method and description.
fn operations() -> BTreeMap<String, (String, String, Value)> {
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

fn body(sample: &Sample) -> Option<Value> {
    sample.body.map(|text| serde_json::from_str(text).unwrap())
}

async fn audit_rows(test: &TestAdmin) -> (i64, String, String) {
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
            method != "GET",
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
            let problem = &responses[status]["content"]["application/problem+json"]["schema"];
            assert_eq!(
                problem["$ref"], "#/components/schemas/Problem",
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
        let mut body = body(sample);
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
            assert_eq!(answer.problem(), "unauthorized");
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
                .ask(role, sample.method, sample.path, body(sample))
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
            .ask(sample.role, sample.method, sample.path, body(sample))
            .await;
        assert!(
            answer.status.is_success(),
            "{}: {} {:#}",
            sample.operation,
            answer.status,
            answer.body
        );
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

/// A clear refusal, or an answer, but no failure.
fn no_failure(what: &str, answer: &Answer) {
    assert!(
        !answer.status.is_server_error(),
        "{what}: {} {:#}",
        answer.status,
        answer.body
    );
    if answer.status.is_client_error() {
        answer.problem();
        assert!(answer.detail().len() > 10, "{what}: {:?}", answer.detail());
        assert!(answer.body["request-id"].is_string() && answer.body["instance"].is_string());
    }
}

#[tokio::test]
async fn nonsense_in_a_body_is_refused_with_the_field_named() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    let long = "x".repeat(100_000);
    for sample in SAMPLES.iter().filter(|sample| sample.body.is_some()) {
        let good = body(sample).unwrap();
        let ask = async |body: Value| {
            test.ask(Role::Admin, sample.method, sample.path, Some(body))
                .await
        };
        let mut unknown = good.clone();
        unknown["nonsense"] = json!(1);
        let answer = ask(unknown).await.expect(422);
        assert!(answer.detail().contains("nonsense"), "{}", answer.detail());
        for wrong in [json!([]), json!("x"), json!(null)] {
            no_failure(sample.operation, &ask(wrong).await.expect(422));
        }
        for field in good.as_object().unwrap().keys() {
            // Each on its own administrator's budget of failed logins.
            for wrong in [
                json!([[]]),
                json!({"a": {"b": 1}}),
                json!(1e300),
                json!(-1),
                json!(""),
                json!("\u{0}"),
                json!(long),
            ] {
                let mut bad = good.clone();
                bad[field] = wrong.clone();
                let answer = ask(bad).await;
                no_failure(&format!("{} {field}", sample.operation), &answer);
                // A list that is no list, and an object that is no object, are named wherever they stand.
                if wrong.is_array() && answer.status == 422 {
                    let pointer = answer.body["errors"][0]["pointer"].as_str().unwrap();
                    assert_eq!(pointer, format!("/{field}"), "{}", answer.body);
                } else if wrong.is_array() {
                    assert_eq!(answer.status, 400, "{} {field}", sample.operation);
                    assert!(answer.detail().contains(field), "{}", answer.detail());
                }
                test.db
                    .raw()
                    .await
                    .execute("delete from login_failures", &[])
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused() {
    let test = TestAdmin::new().await;
    let ask = async |kind: &str, body: Body| {
        let request = Request::post("/v1/admin/auth-tokens")
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", test.token(Role::Admin)),
            )
            .header(header::CONTENT_TYPE, kind)
            .body(body)
            .unwrap();
        test.send(request).await
    };
    let good = r#"{"name":"a","tier":"beta"}"#;
    assert_eq!(
        ask("text/plain", good.into()).await.expect(415).problem(),
        "unsupported-media-type"
    );
    assert_eq!(
        ask("application/json", "{".into())
            .await
            .expect(400)
            .problem(),
        "malformed"
    );
    assert_eq!(
        ask("application/json", "".into())
            .await
            .expect(400)
            .problem(),
        "malformed"
    );
    assert_eq!(
        ask("application/json", Body::from(vec![0xff; 100]))
            .await
            .expect(400)
            .problem(),
        "malformed"
    );
    ask("application/json", "[".repeat(100_000).into())
        .await
        .expect(422);
    ask("application/json", r#"["a","beta"]"#.into())
        .await
        .expect(422);
    let deep = format!(
        r#"{{"name":"a","tier":"beta","labels":{}"#,
        r#"{"a":"#.repeat(40_000)
    );
    ask("application/json", deep.into()).await.expect(422);
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(300 << 10));
    assert_eq!(
        ask("application/json", large.into())
            .await
            .expect(413)
            .problem(),
        "too-large"
    );
    ask("application/json; charset=utf-8", good.into())
        .await
        .expect(201);
}

#[tokio::test]
async fn nonsense_in_a_query_is_refused_with_the_parameter_named() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    let foreign = "bWFjaGluZXMKeA";
    let operations = operations();
    let mut lists = 0;
    for sample in SAMPLES.iter().filter(|sample| sample.method == "GET") {
        let parameters = operations[sample.operation].2["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names: BTreeSet<&str> = parameters
            .iter()
            .filter(|p| p["in"] == "query")
            .filter_map(|p| p["name"].as_str())
            .collect();
        if names.is_empty() {
            continue;
        }
        let with = |query: &str| {
            let joint = if sample.path.contains('?') { '&' } else { '?' };
            format!("{}{joint}{query}", sample.path)
        };
        let answer = test.get(&with("nonsense=1")).await.expect(400);
        assert!(answer.detail().contains("nonsense"), "{}", answer.detail());
        if names.contains("cursor") {
            lists += 1;
            for bad in [
                "limit=0",
                "limit=1001",
                "limit=-1",
                "limit=x",
                "limit=99999999999999999999",
                "limit=",
            ] {
                no_failure(bad, &test.get(&with(bad)).await.expect(400));
            }
            for bad in [
                "",
                "x",
                "%00",
                "%F0%9F%92%A9",
                foreign,
                &"A".repeat(5000),
                "..%2F..",
            ] {
                let answer = test.get(&with(&format!("cursor={bad}"))).await.expect(400);
                assert!(answer.detail().contains("cursor"), "{}", answer.detail());
            }
        }
        for name in names
            .iter()
            .filter(|name| !matches!(**name, "cursor" | "limit"))
        {
            let base = sample.path.split('?').next().unwrap();
            for bad in ["", "%00", "x%0Ay", "-1", "%C3%BC", &"z".repeat(3000)] {
                let answer = test.get(&format!("{base}?{name}={bad}")).await;
                no_failure(&format!("{} {name}={bad}", sample.operation), &answer);
            }
        }
    }
    assert!(lists >= 7, "{lists}");
}

#[tokio::test]
async fn nonsense_in_a_path_is_refused() {
    let test = TestAdmin::new().await;
    seed(&test).await;
    for sample in SAMPLES {
        let (template, method, _) = &operations()[sample.operation];
        if !template.contains('{') {
            continue;
        }
        for bad in [
            "x",
            "0",
            "%00",
            "%ff",
            "..%2F..",
            "%C3%BC",
            "99999999999999999999",
            &"f".repeat(3000),
        ] {
            let path = template
                .split('/')
                .map(|part| if part.starts_with('{') { bad } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            let answer = test.ask(Role::Admin, method, &path, body(sample)).await;
            assert!(
                answer.status.is_client_error(),
                "{path}: {} {:#}",
                answer.status,
                answer.body
            );
            no_failure(&path, &answer);
        }
    }
    assert_eq!(audit_rows(&test).await.0, 0);
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
