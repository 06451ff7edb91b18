//! Traces: spans of requests and of what they wait for, for a collector.
//!
//! Spans for traces have the target [`TARGET`], so that they cost nothing while nobody collects them, and no log level shows them.

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracerProvider, SpanExporter};
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

/// Target of the spans that only traces show.
pub const TARGET: &str = "livepatch_onprem::trace";

static ON: AtomicBool = AtomicBool::new(false);

/// Whether requests are traced.
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// What traces are made with.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Share of the requests that are traced, from 0 to 1.
    pub sample_rate: f64,
    /// The service name that they carry.
    pub service_name: &'a str,
}

/// The provider of a process, to be shut down at its end, and the layer that gives it spans.
pub fn layer<S>(
    settings: &Settings<'_>,
    exporter: impl SpanExporter + 'static,
) -> (SdkTracerProvider, impl Layer<S> + Send + Sync)
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", settings.service_name.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        // By the trace's id and not by the flag that a caller sends. Who names a trace can still choose an id that is collected; the
        // exporter's queue is bounded, and what does not fit is left out.
        .with_sampler(Sampler::TraceIdRatioBased(settings.sample_rate))
        .with_span_processor(BatchSpanProcessor::builder(exporter).build())
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("livepatch-onprem"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|metadata| {
            metadata.is_span() && metadata.target() == TARGET
        }));
    // Without samples check-ins keep to their short way.
    ON.store(settings.sample_rate > 0.0, Ordering::Relaxed);
    (provider, layer)
}

/// The trace that a caller's `traceparent` header (W3C Trace Context) names.
pub fn parent(header: Option<&str>) -> Option<Context> {
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    };
    let mut parts = header?.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len| {
        text.len() == len
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    if !is_hex(version, 2) || version == "ff" || !is_hex(flags, 2) {
        return None;
    }
    if !is_hex(trace, 32) || !is_hex(span, 16) {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::default(),
        true,
        TraceState::default(),
    );
    context
        .is_valid()
        .then(|| Context::new().with_remote_span_context(context))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::TraceContextExt;

    #[test]
    fn a_parent_is_read_strictly() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = parent(Some(good)).unwrap();
        let trace = context.span().span_context().trace_id().to_string();
        assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
        ] {
            assert!(parent(Some(bad)).is_none(), "{bad}");
        }
        assert!(parent(None).is_none());
    }
}
