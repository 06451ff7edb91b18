//! The collector of traces: takes them by OTLP over HTTP.

use super::UpstreamError;
use super::http::Http;
use super::tls::TlsFiles;
use crate::config::{Proxy, Tracing};
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use std::collections::HashMap;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long one push may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// Sends by the program's own HTTP client, on its runtime: whoever asks for it runs on a thread without one.
#[derive(Debug)]
struct Sender {
    http: Http,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let work = async move {
            let (parts, body) = request.into_parts();
            let request = http
                .client()
                .post(parts.uri.to_string())
                .headers(parts.headers)
                .body(body);
            let response = http.send(request).await?;
            let status = response.status();
            let body = http.read(response, MAX_ANSWER).await.unwrap_or_default();
            let mut answer = http::Response::new(Bytes::from(body));
            *answer.status_mut() = status;
            Ok::<_, UpstreamError>(answer)
        };
        // The clock, too, is the runtime's.
        let limited = async { tokio::time::timeout(PATIENCE, work).await };
        match self.runtime.spawn(limited).await? {
            Ok(answer) => Ok(answer?),
            Err(_) => Err("the collector did not answer in time".into()),
        }
    }
}

/// What pushes spans to the configured collector. Must be called within the runtime.
pub fn exporter(config: &Tracing) -> Result<SpanExporter, UpstreamError> {
    let files = TlsFiles::authority("tracing.ca", config.ca.as_deref());
    let http = Http::with(&files, &Proxy::default(), PATIENCE, |client| {
        client.redirect(reqwest::redirect::Policy::none())
    })?;
    let headers: HashMap<String, String> = config
        .header_pairs()
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let endpoint = format!("{}/v1/traces", config.endpoint.trim_end_matches('/'));
    SpanExporter::builder()
        .with_http()
        .with_http_client(Sender {
            http,
            runtime: Handle::current(),
        })
        .with_endpoint(endpoint)
        .with_headers(headers)
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| UpstreamError::Local(format!("tracing.endpoint: {error}")))
}
