//! A collector of traces on loopback: takes what is sent over HTTP and keeps it.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What it got, together.
#[derive(Default)]
pub struct Collected {
    pub spans: Vec<Span>,
    /// The name that the sender goes by.
    pub service: String,
    /// The bodies as they came.
    pub raw: Vec<u8>,
    pub authorization: String,
}

/// What it got so far.
pub type Shared = Arc<Mutex<Collected>>;

async fn collect(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut shared = shared.lock().unwrap();
    shared.raw.extend_from_slice(&body);
    if let Some(value) = headers.get("authorization") {
        value
            .to_str()
            .unwrap()
            .clone_into(&mut shared.authorization);
    }
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        for attribute in resource.resource.unwrap().attributes {
            if let (true, Some(Any::StringValue(text))) = (
                attribute.key == "service.name",
                attribute.value.unwrap().value,
            ) {
                shared.service = text;
            }
        }
        for scope in resource.scope_spans {
            shared.spans.extend(scope.spans);
        }
    }
    StatusCode::OK
}

/// Starts one; its address and what it gets.
pub async fn collector() -> (String, Shared) {
    let shared = Shared::default();
    let app = Router::new()
        .route("/v1/traces", post(collect))
        .with_state(Arc::clone(&shared));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, shared)
}
