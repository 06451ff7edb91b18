//! Nonsense at every operation of the admin API: refused with a clear error that names what is wrong, nothing changed,
//! and never a failure of the server.

use crate::admin_api::{audit_rows, operations};
use crate::admin_samples::{SAMPLES, Sample};
use crate::admin_things::seed;
use crate::support::admin::{Answer, TestAdmin};
use axum::body::Body;
use axum::http::{Request, header};
use livepatch_onprem::domain::Role;
use serde_json::{Value, json};
use std::collections::BTreeSet;

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
    // An upload's body is a bundle and no JSON.
    let json = |sample: &&Sample| sample.body.is_some() && sample.operation != "payloads.upload";
    for sample in SAMPLES.iter().filter(json) {
        let good = sample.json().unwrap();
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
                    let place = format!("/{field}");
                    assert!(pointer.starts_with(&place), "{place}: {}", answer.body);
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
        let answer = test
            .ask(sample.role, "GET", &with("nonsense=1"), None)
            .await
            .expect(400);
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
                no_failure(
                    bad,
                    &test
                        .ask(sample.role, "GET", &with(bad), None)
                        .await
                        .expect(400),
                );
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
                let answer = test
                    .ask(sample.role, "GET", &with(&format!("cursor={bad}")), None)
                    .await
                    .expect(400);
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
            let answer = test.ask(Role::Admin, method, &path, sample.json()).await;
            assert!(
                answer.status.is_client_error(),
                "{path}: {} {:#}",
                answer.status,
                answer.body
            );
            if method != "HEAD" {
                no_failure(&path, &answer);
            }
        }
    }
    assert_eq!(audit_rows(&test).await.0, 0);
}
