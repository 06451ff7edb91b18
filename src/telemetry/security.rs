//! Security events: a closed list, each one JSON object on a line, written whatever the log level is.
//!
//! A line holds `timestamp`, `type` (always `security`), `category`, `event`, `level`, `actor`, `source`, `target`, `message`,
//! `service` and `version`. What is changed becomes an event when its transaction has committed, from the same words as its audit
//! row. What anybody can cause without being let in is bounded to [`MOST`] lines a second of each event; `suppressed` then says
//! how many were left out. No event holds a secret.

use jiff::Timestamp;
use serde_json::json;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Lines a second of one event that anybody can cause.
pub const MOST: u32 = 20;
/// The longest text of a field, in bytes.
const LONGEST: usize = 500;

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Who somebody is was shown, or was not.
    Authentication,
    /// Somebody known asked for what they may not.
    Authorization,
    /// Tokens and keys are made and end.
    TokenLife,
    /// Somebody changed what the server does.
    Administration,
    /// The server itself, and what it keeps.
    System,
}

impl Category {
    /// The word in the line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::TokenLife => "token-life",
            Self::Administration => "administration",
            Self::System => "system",
        }
    }
}

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its word; of what is changed, that of the audit log.
    pub event: &'static str,
    /// Its category.
    pub category: Category,
    /// `INFO` or `WARN`.
    pub level: &'static str,
    /// What it says, for the reference page.
    pub about: &'static str,
}

macro_rules! events {
    ($($name:ident $event:literal $category:ident $level:literal $about:literal;)*) => {
        /// What is not a change, and so not in the audit log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Event { $(#[doc = $about] $name,)* }

        impl Event {
            /// Its kind.
            pub const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind { event: $event, category: Category::$category, level: $level, about: $about },)*
                }
            }
            const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

events! {
    LoginFailed "login.failed" Authentication "WARN" "A name and password were wrong.";
    LoginThrottled "login.throttled" Authentication "WARN" "A login was put off because too many had failed.";
    CredentialRefused "credential.refused" Authentication "WARN" "A session, service token or token of the identity provider was refused.";
    SyncTokenRefused "sync-token.refused" Authentication "WARN" "Another server showed no sync token that is valid.";
    MachineRefused "machine.refused" Authentication "WARN" "A machine showed no token that is valid.";
    AccessDenied "access.denied" Authorization "WARN" "Somebody asked for what their role or scopes do not allow.";
    DownloadRefused "download.refused" Authorization "WARN" "A download was asked for without a valid signature or machine token.";
    ServerStarted "server.started" System "INFO" "The server serves.";
    ServerStopping "server.stopping" System "INFO" "The server was told to stop.";
    LeaderTaken "leader.taken" System "INFO" "This replica leads from now on.";
    LeaderLost "leader.lost" System "WARN" "This replica leads no more.";
    CertificateRead "certificate.read" System "INFO" "The server's certificate was read again.";
    CertificateUnusable "certificate.unusable" System "WARN" "The server's certificate could not be read again; the one before stays in use.";
}

/// Changes of the audit log that are security events too: how the action begins, category, level, what it is.
const CHANGES: &[(&str, Category, &str, &str)] = &[
    (
        "session.open",
        Category::Authentication,
        "INFO",
        "Somebody logged in.",
    ),
    (
        "session.end",
        Category::Authentication,
        "INFO",
        "A session was ended.",
    ),
    (
        "auth-token.",
        Category::TokenLife,
        "INFO",
        "An auth token was made or revoked.",
    ),
    (
        "sync-token.",
        Category::TokenLife,
        "INFO",
        "A sync token was made or revoked.",
    ),
    (
        "service-token.",
        Category::TokenLife,
        "INFO",
        "A service token was made or revoked.",
    ),
    (
        "resource-token.",
        Category::TokenLife,
        "INFO",
        "The resource token of this deployment was stored.",
    ),
    (
        "machine.revoke",
        Category::TokenLife,
        "INFO",
        "A machine's token was revoked.",
    ),
    (
        "keys.",
        Category::TokenLife,
        "WARN",
        "A signing key was made, changed, trusted or not trusted any more.",
    ),
    (
        "admin.",
        Category::Administration,
        "WARN",
        "An administrator was added, changed or removed.",
    ),
    (
        "patch.",
        Category::Administration,
        "INFO",
        "A patch was promoted, held, blocked or let go.",
    ),
    (
        "rollout.approve",
        Category::Administration,
        "INFO",
        "A second person let a rollout begin.",
    ),
    (
        "rollout.pause",
        Category::Administration,
        "INFO",
        "A rollout was paused.",
    ),
    (
        "rollout.resume",
        Category::Administration,
        "WARN",
        "A rollout goes on that was paused or had halted.",
    ),
    (
        "rollout.abort",
        Category::Administration,
        "WARN",
        "A rollout was given up.",
    ),
    (
        "rollout.block",
        Category::Administration,
        "WARN",
        "A rollout was ended and its patch blocked.",
    ),
    (
        "rollout.halt",
        Category::System,
        "WARN",
        "A rollout halted by itself.",
    ),
    (
        "policy.",
        Category::Administration,
        "INFO",
        "The rollout policy of a tier was set or unset.",
    ),
    (
        "tier.",
        Category::Administration,
        "INFO",
        "A tier was made, changed or deleted.",
    ),
    (
        "machine.move",
        Category::Administration,
        "INFO",
        "Machines were moved to another tier.",
    ),
    (
        "machine.label",
        Category::Administration,
        "INFO",
        "Labels of machines were changed.",
    ),
    (
        "kernels.import",
        Category::Administration,
        "INFO",
        "The table of supported kernels was replaced.",
    ),
    (
        "capture.",
        Category::Administration,
        "WARN",
        "Requests of machines are recorded, or no longer.",
    ),
    (
        "webhook.",
        Category::Administration,
        "INFO",
        "A webhook was added, changed or removed.",
    ),
    (
        "storage.",
        Category::Administration,
        "INFO",
        "The storage was refreshed, verified or pruned.",
    ),
    (
        "archive.",
        Category::Administration,
        "INFO",
        "An archive was exported or imported.",
    ),
    (
        "status.",
        Category::Administration,
        "INFO",
        "The fleet's status was carried out or in.",
    ),
    (
        "sync.confirm",
        Category::Administration,
        "WARN",
        "What upstream took away was confirmed.",
    ),
    (
        "sync.reset",
        Category::Administration,
        "WARN",
        "What is known of upstream was forgotten.",
    ),
    (
        "sync.first-contact",
        Category::System,
        "WARN",
        "The key of an upstream server was believed at first contact.",
    ),
    (
        "quarantine.",
        Category::System,
        "WARN",
        "A payload was put into quarantine or let out.",
    ),
    (
        "payload.damaged",
        Category::System,
        "WARN",
        "An object in the storage does not verify.",
    ),
];

/// What of the audit log is no security event: there are many of them, and they change nothing that somebody decides.
pub const QUIET: &[&str] = &[
    "system.seed",
    "payload.ingest",
    "payload.heal",
    "payload.prune",
    "sync.publish",
    "sync.trigger",
    "machine.forget",
    "rollout.begin",
    "rollout.advance",
    "rollout.widen",
    "rollout.complete",
];

/// The kind of event that a change of the audit log is; `None` if it is none.
pub fn of_change(action: &'static str) -> Option<Kind> {
    CHANGES
        .iter()
        .find(|(known, ..)| *known == action || (known.ends_with('.') && action.starts_with(known)))
        .map(|&(_, category, level, about)| Kind {
            event: action,
            category,
            level,
            about,
        })
}

/// Every line of the list, for the reference page: event (`...` for whatever follows), category, level, what it is.
pub fn list() -> Vec<(String, Category, &'static str, &'static str)> {
    let here = Event::ALL.iter().map(|event| {
        let kind = event.kind();
        (kind.event.to_owned(), kind.category, kind.level, kind.about)
    });
    let changes = CHANGES.iter().map(|&(action, category, level, about)| {
        let rest = if action.ends_with('.') { "..." } else { "" };
        (format!("{action}{rest}"), category, level, about)
    });
    here.chain(changes).collect()
}

/// Who did what to what, from where.
#[derive(Debug, Clone, Copy, Default)]
pub struct Deed<'a> {
    /// Who; empty: not known.
    pub actor: &'a str,
    /// From where.
    pub source: &'a str,
    /// On what.
    pub target: &'a str,
    /// For people.
    pub message: &'a str,
}

struct Sink {
    writer: Mutex<Box<dyn Write + Send>>,
    windows: Mutex<Vec<Window>>,
}

/// What was written of one event in the present second.
#[derive(Clone, Copy)]
struct Window {
    event: &'static str,
    second: i64,
    written: u32,
    suppressed: u64,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// Has events written to standard error from now on. The first call of a process counts, also of [`to_file`].
pub fn to_stderr() {
    install(Box::new(std::io::stderr()));
}

/// Has events written to the end of a file from now on.
pub fn to_file(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    install(Box::new(file));
    Ok(())
}

fn install(writer: Box<dyn Write + Send>) {
    let _ = SINK.set(Sink {
        writer: Mutex::new(writer),
        windows: Mutex::new(Vec::new()),
    });
}

/// Whether this event may be written now; how many were left out before it.
fn admit(windows: &Mutex<Vec<Window>>, event: &'static str, second: i64) -> Option<u64> {
    let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
    let at = windows.iter().position(|window| window.event == event);
    let at = at.unwrap_or_else(|| {
        windows.push(Window {
            event,
            second,
            written: 0,
            suppressed: 0,
        });
        windows.len() - 1
    });
    let window = &mut windows[at];
    if window.second != second {
        (window.second, window.written) = (second, 0);
    }
    if window.written >= MOST {
        window.suppressed += 1;
        return None;
    }
    window.written += 1;
    Some(std::mem::take(&mut window.suppressed))
}

/// Writes an event, unless there have been too many of its kind within this second.
pub fn emit(event: Event, deed: Deed<'_>) {
    let Some(sink) = SINK.get() else { return };
    let now = Timestamp::now();
    let kind = event.kind();
    if let Some(suppressed) = admit(&sink.windows, kind.event, now.as_second()) {
        sink.write(kind, deed, now, suppressed);
    }
}

/// Writes what was changed, now that it is committed.
pub fn changed(action: &'static str, deed: Deed<'_>) {
    let Some(sink) = SINK.get() else { return };
    if let Some(kind) = of_change(action) {
        sink.write(kind, deed, Timestamp::now(), 0);
    }
}

/// The beginning of a text that a caller may have chosen.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

impl Sink {
    fn write(&self, kind: Kind, deed: Deed<'_>, now: Timestamp, suppressed: u64) {
        let mut line = json!({
            "timestamp": format!("{now:.6}"),
            "type": "security",
            "category": kind.category.as_str(),
            "event": kind.event,
            "level": kind.level,
            "message": if deed.message.is_empty() { kind.about } else { cut(deed.message) },
            "service": "livepatch-server",
            "version": env!("CARGO_PKG_VERSION"),
        });
        for (name, text) in [
            ("actor", deed.actor),
            ("source", deed.source),
            ("target", deed.target),
        ] {
            if !text.is_empty() {
                line[name] = cut(text).into();
            }
        }
        if suppressed > 0 {
            line["suppressed"] = suppressed.into();
        }
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere to report a failure to.
        let _ = writer.write_all(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let windows = Mutex::default();
        for _ in 0..MOST {
            assert_eq!(admit(&windows, "login.failed", 1), Some(0));
        }
        for _ in 0..5 {
            assert_eq!(admit(&windows, "login.failed", 1), None);
        }
        assert_eq!(admit(&windows, "access.denied", 1), Some(0));
        assert_eq!(admit(&windows, "login.failed", 2), Some(5));
        assert_eq!(admit(&windows, "login.failed", 2), Some(0));
    }

    #[test]
    fn changes_are_found_by_their_beginning() {
        assert_eq!(
            of_change("auth-token.create").map(|kind| kind.category),
            Some(Category::TokenLife)
        );
        assert_eq!(
            of_change("patch.promote-all").unwrap().event,
            "patch.promote-all"
        );
        assert_eq!(of_change("payload.ingest"), None);
        for quiet in QUIET {
            assert_eq!(of_change(quiet), None, "{quiet}");
        }
    }
}
