//! Traces of a server process: what a request waited for, and what is left out.

use crate::support::collector::collector;
use crate::support::process::{Server, Site};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn attribute(span: &Span, name: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.clone()?.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Checks a machine in whose caller has a trace of its own.
async fn traced_check_in(site: &Site, server: &Server) {
    let auth = server.token("web", "stable").await;
    let token = server.registered(1, &auth).await;
    let answer = site
        .http
        .post(format!("{}/v1/client/{:032x}/updates", server.url, 1))
        .bearer_auth(&token)
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .json(&json!({ "Architecture": "amd64" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_request_is_traced_with_what_it_waited_for() {
    let (url, shared) = collector().await;
    let mut site = Site::new().await;
    site.set("LP_TRACING_ENABLED", "true");
    site.set("LP_TRACING_ENDPOINT", url);
    site.set("LP_TRACING_SERVICE_NAME", "livepatch-test");
    site.set(
        "LP_TRACING_HEADERS",
        "authorization=Bearer CANARY-collector",
    );
    // Traces do not hang on the log level either.
    site.set(
        "LP_SERVER_LOG_LEVEL",
        "error,livepatch_onprem::app::start=info",
    );
    let server = site.start().await;
    traced_check_in(&site, &server).await;
    server
        .admin("GET", "machines", Value::Null)
        .await
        .unwrap()
        .expect(200);
    // What is still on its way when the server stops is sent then.
    server.stop().await;

    let collected = shared.lock().unwrap();
    assert_eq!(collected.service, "livepatch-test");
    assert_eq!(collected.authorization, "Bearer CANARY-collector");
    let named = |name: &str| {
        let found = collected.spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| {
            let names: BTreeSet<&str> = collected
                .spans
                .iter()
                .map(|span| span.name.as_str())
                .collect();
            panic!("no {name} in {names:?}")
        })
    };
    let check_in = named("POST /v1/client/{id}/updates");
    assert_eq!(
        hex::encode(&check_in.trace_id),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(hex::encode(&check_in.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(attribute(check_in, "http.response.status_code"), "200");
    assert_eq!(attribute(check_in, "http.route"), "/v1/client/{id}/updates");
    let list = named("GET /v1/admin/machines");
    let statements: Vec<&str> = collected
        .spans
        .iter()
        .filter(|span| span.parent_span_id == list.span_id)
        .map(|span| span.name.as_str())
        .collect();
    assert!(statements.contains(&"SELECT_SESSION"), "{statements:?}");
    let text = String::from_utf8_lossy(&collected.raw);
    assert!(!text.contains("CANARY") && !text.contains("lpm_") && !text.contains("lpa_"));
}

/// Nothing is collected of what is not sampled, and a collector that is away is nobody's trouble.
#[tokio::test]
async fn without_samples_or_a_collector_the_server_serves() {
    let (url, shared) = collector().await;
    let mut site = Site::new().await;
    site.set("LP_TRACING_ENABLED", "true");
    site.set("LP_TRACING_ENDPOINT", url);
    site.set("LP_TRACING_SAMPLE_RATE", "0");
    let server = site.start().await;
    traced_check_in(&site, &server).await;
    server.stop().await;
    assert_eq!(shared.lock().unwrap().spans.len(), 0);

    // A port that is taken and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    site.set("LP_TRACING_ENDPOINT", format!("http://{address}"));
    site.set("LP_TRACING_SAMPLE_RATE", "1");
    let server = site.start().await;
    server
        .admin("GET", "machines", Value::Null)
        .await
        .unwrap()
        .expect(200);
    server.stop().await;
}
