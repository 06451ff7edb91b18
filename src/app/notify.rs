//! Tells the service manager how the server is doing: that it is up, reads files again, stops, and is alive.
//!
//! The protocol is systemd's (sd_notify(3)): datagrams of `KEY=VALUE` lines to the socket that `NOTIFY_SOCKET` names. Without
//! that variable nothing is sent. A message that cannot be sent is logged and otherwise ignored: a server does not fail
//! because nobody listens to how it is.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long a message may wait for a service manager that does not read.
const PATIENCE: Duration = Duration::from_secs(1);

/// A way to the service manager, or none.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// The socket that the environment names, if it names one.
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self { socket: None };
        };
        let socket = connect(&name)
            .inspect_err(|error| {
                tracing::warn!(%error, ?name, "the service manager cannot be told anything (NOTIFY_SOCKET)");
            })
            .ok();
        Self { socket }
    }

    /// The server is up; `status` is shown to people (`systemctl status`).
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Files are read again; [`Notifier::reloaded`] has to follow.
    pub fn reloading(&self) {
        self.send("RELOADING=1");
    }

    /// Files were read again.
    pub fn reloaded(&self) {
        self.send("READY=1");
    }

    /// The server stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping: running requests end");
    }

    /// The server is alive.
    fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(%error, "the service manager could not be told: {}", message.replace('\n', ", "));
        }
    }
}

/// Names that begin with `@` are in the abstract namespace, all others are paths.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Half of the time after which the service manager takes a silent server for dead, if it watches this process.
fn interval(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    match pid {
        Some(pid) if pid.parse() != Ok(own) => None,
        _ => Some(Duration::from_micros(usec / 2).max(Duration::from_millis(1))),
    }
}

/// Says again and again that the server is alive, if the service manager wants to hear it. It runs on the runtime that
/// answers requests, so that a runtime that is stuck falls silent.
pub async fn keep_alive(notifier: &Notifier) -> Infallible {
    let (usec, pid) = (
        std::env::var("WATCHDOG_USEC"),
        std::env::var("WATCHDOG_PID"),
    );
    let every = interval(
        usec.ok().as_deref(),
        pid.ok().as_deref(),
        std::process::id(),
    );
    let (Some(every), Some(_)) = (every, &notifier.socket) else {
        return std::future::pending().await;
    };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        notifier.alive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        listener
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let length = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_arrive_at_a_path_and_at_an_abstract_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let unique = format!("livepatch-notify-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&unique).unwrap();
        let at_name = UnixDatagram::bind_addr(&abstract_address).unwrap();
        let at_path = UnixDatagram::bind(&path).unwrap();
        for (listener, name) in [
            (at_path, path.into_os_string()),
            (at_name, format!("@{unique}").into()),
        ] {
            let notifier = Notifier {
                socket: Some(connect(&name).unwrap()),
            };
            notifier.ready("serving\non 127.0.0.1:8080");
            assert_eq!(
                received(&listener),
                "READY=1\nSTATUS=serving on 127.0.0.1:8080"
            );
            notifier.reloading();
            assert_eq!(received(&listener), "RELOADING=1");
            notifier.reloaded();
            assert_eq!(received(&listener), "READY=1");
            notifier.stopping();
            assert!(received(&listener).starts_with("STOPPING=1\n"));
        }
    }

    #[test]
    fn a_service_manager_that_is_gone_does_not_matter() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier {
            socket: Some(connect(path.as_os_str()).unwrap()),
        };
        drop(listener);
        notifier.ready("nobody listens");
        assert!(connect(place.path().join("nothing").as_os_str()).is_err());
    }

    #[test]
    fn only_the_watched_process_says_that_it_is_alive() {
        let seconds = |s| Some(Duration::from_secs(s));
        for (usec, pid, expected) in [
            (Some("30000000"), Some("42"), seconds(15)),
            (Some("30000000"), None, seconds(15)),
            (Some("30000000"), Some("43"), None),
            (Some("30000000"), Some("x"), None),
            (Some("1"), Some("42"), Some(Duration::from_millis(1))),
            (Some("0"), Some("42"), None),
            (Some("-1"), Some("42"), None),
            (None, Some("42"), None),
        ] {
            assert_eq!(interval(usec, pid, 42), expected, "{usec:?} {pid:?}");
        }
    }
}
