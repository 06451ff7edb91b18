//! Logs: one JSON object a line, or text for people, on standard error.
//!
//! A JSON line holds `timestamp`, `level`, `target`, `message`, the event's fields beside them, and `request_id` from the
//! nearest span that has one. Nothing here filters secrets: their type does, by printing nothing.

use std::io::{IsTerminal, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// The span field that is repeated on every line within the span.
pub const REQUEST_ID: &str = "request_id";

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level or filter cannot be read.
    #[error(
        "{given:?} is not a log level or filter ({why}); use error, warn, info, debug or trace, or a filter such as info,livepatch_onprem::db=debug"
    )]
    Filter {
        /// The text as given, cut to 100 characters.
        given: String,
        /// The reason.
        why: String,
    },
    /// `init` was called before, in this process.
    #[error("logs are set up already; call init once")]
    Twice,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people; coloured when standard error is a terminal.
    Text,
}

/// Reads a level or a filter of directives such as `info,tower_http=debug`.
///
/// # Errors
/// [`LogError::Filter`] for anything else; an unknown bare word is refused rather than taken for a target.
pub fn parse_filter(text: &str) -> Result<EnvFilter, LogError> {
    let wrong = |why: String| LogError::Filter {
        given: text.chars().take(100).collect(),
        why,
    };
    let bare = |directive: &str| !directive.contains(['=', '[', ':']);
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in text
        .split(',')
        .map(str::trim)
        .filter(|directive| bare(directive))
    {
        // The filter's own parser would take `inof` for the name of a module.
        if !levels.contains(&directive.to_ascii_lowercase().as_str()) {
            return Err(wrong(format!("{directive:?} is not a level")));
        }
    }
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| wrong(error.to_string()))
}

/// A layer beside the logs.
pub type Beside = Box<dyn Layer<Registry> + Send + Sync>;

/// Sets up logging for this process, on standard error. `RUST_LOG`, when set, overrides `level`.
///
/// # Errors
/// When the level (or `RUST_LOG`) is wrong, or when it was called before.
pub fn init(level: &str, format: LogFormat) -> Result<(), LogError> {
    init_with(level, format, None)
}

/// The same, with a layer beside the logs that the level does not touch.
pub fn init_with(level: &str, format: LogFormat, beside: Option<Beside>) -> Result<(), LogError> {
    let environment = std::env::var("RUST_LOG").ok();
    let filter = match environment.filter(|text| !text.trim().is_empty()) {
        // The message must lead to the variable, not to the configuration.
        Some(text) => parse_filter(&text).map_err(|error| match error {
            LogError::Filter { given, why } => LogError::Filter {
                given: format!("RUST_LOG={given}"),
                why,
            },
            LogError::Twice => LogError::Twice,
        })?,
        None => parse_filter(level)?,
    };
    let lines = || JsonLines::new(std::io::stderr);

    // One filter for everything is quicker than one for each layer, and nearly always there is nothing beside the logs.
    let done = match (beside, format) {
        (None, LogFormat::Json) => Registry::default().with(filter).with(lines()).try_init(),
        (None, LogFormat::Text) => Registry::default().with(filter).with(text()).try_init(),
        (Some(beside), LogFormat::Json) => Registry::default()
            .with(beside)
            .with(lines().with_filter(filter))
            .try_init(),
        (Some(beside), LogFormat::Text) => Registry::default()
            .with(beside)
            .with(text().with_filter(filter))
            .try_init(),
    };
    done.map_err(|_| LogError::Twice)
}

/// A layer that writes for people.
fn text<S>() -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
}

/// A layer that writes each event as one JSON object on one line.
#[derive(Debug)]
pub struct JsonLines<W> {
    writer: W,
}

impl<W> JsonLines<W> {
    /// Writes to what `writer` makes.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }
}

/// A span's request id, kept with the span.
struct RequestId(String);

type Fields = serde_json::Map<String, serde_json::Value>;

/// Names that a line has of itself; an event's field of such a name gets `field_` before it.
const OWN: [&str; 4] = ["timestamp", "level", "target", REQUEST_ID];

struct Collect<'a>(&'a mut Fields);

impl Collect<'_> {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        let name = field.name();
        let name = if OWN.contains(&name) {
            format!("field_{name}")
        } else {
            name.to_owned()
        };
        self.0.insert(name, value);
    }
}

impl Visit for Collect<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

/// Finds the request id among a span's fields.
struct FindRequestId(Option<String>);

impl Visit for FindRequestId {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == REQUEST_ID {
            self.0 = Some(value.to_owned());
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == REQUEST_ID {
            self.0 = Some(format!("{value:?}"));
        }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut find = FindRequestId(None);
        attributes.record(&mut find);
        if let (Some(found), Some(span)) = (find.0, context.span(id)) {
            span.extensions_mut().replace(RequestId(found));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut find = FindRequestId(None);
        values.record(&mut find);
        if let (Some(found), Some(span)) = (find.0, context.span(id)) {
            span.extensions_mut().replace(RequestId(found));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Fields::new();
        let now = jiff::Timestamp::now();
        line.insert("timestamp".to_owned(), format!("{now:.6}").into());
        line.insert("level".to_owned(), metadata.level().as_str().into());
        line.insert("target".to_owned(), metadata.target().into());
        event.record(&mut Collect(&mut line));
        let request = context.event_scope(event).and_then(|mut spans| {
            spans.find_map(|span| span.extensions().get::<RequestId>().map(|id| id.0.clone()))
        });
        if let Some(request) = request {
            line.insert(REQUEST_ID.to_owned(), request.into());
        }
        let mut bytes = serde_json::Value::Object(line).to_string().into_bytes();
        bytes.push(b'\n');
        // One write a line keeps lines of several threads apart. There is nowhere to report a failure to.
        let _ = self.writer.make_writer_for(metadata).write_all(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(work: impl FnOnce()) -> Vec<serde_json::Value> {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber = tracing_subscriber::registry()
            .with(parse_filter("debug").unwrap())
            .with(JsonLines::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn a_line_is_flat_and_carries_the_request_id() {
        let lines = lines(|| {
            let span = tracing::info_span!("request", request_id = "r-1", path = "/x");
            span.in_scope(|| {
                tracing::info_span!("inner").in_scope(|| {
                    tracing::warn!(count = 3, level = "odd", token = ?Secret::new("canary"), "two\nlines");
                });
            });
            tracing::trace!("below the level");
            tracing::info!("outside");
        });
        assert_eq!(lines.len(), 2);
        let line = &lines[0];
        assert!(
            line["timestamp"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "two\nlines");
        assert_eq!(
            (&line["count"], &line["field_level"]),
            (&3.into(), &"odd".into())
        );
        assert_eq!(line["request_id"], "r-1");
        assert_eq!(line["token"], "[secret]");
        assert!(line["target"].as_str().unwrap().contains("telemetry"));
        assert!(lines[1].get("request_id").is_none());
    }

    #[test]
    fn a_request_id_recorded_later_counts() {
        let lines = lines(|| {
            let span = tracing::info_span!("request", request_id = tracing::field::Empty);
            span.record("request_id", "late");
            span.in_scope(|| tracing::info!("x"));
        });
        assert_eq!(lines[0]["request_id"], "late");
    }

    #[test]
    fn filters() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,livepatch_onprem::db=debug",
            "tower_http=trace",
        ] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in [
            "inof",
            "info,",
            "",
            "livepatch=loud",
            "info,[",
            "info;debug",
        ] {
            let error = parse_filter(bad).expect_err(bad).to_string();
            assert!(error.contains("use error, warn, info"), "{error}");
        }
    }
}
