//! Watches the files of `server.tls.*`: a new certificate is taken into use while connections go on.
//!
//! The files are looked at every few seconds rather than waited for by the system's notices: those do not come over network
//! file systems, and not for the links that Kubernetes exchanges. What changed is read only when it has stayed the same
//! for one more look, since certificate and key are two files that somebody writes one after the other. SIGHUP reads
//! them at once.

use super::notify::Notifier;
use crate::http::tls::Tls;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How often files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// What tells one state of a file from another; `None`: it is not there.
type Seen = Vec<Option<(u64, u64, u64, i64, i64)>>;

fn look(tls: &Tls) -> Seen {
    let seen = |path: &Path| {
        let of = std::fs::metadata(path).ok()?;
        Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
    };
    tls.files().map(seen).collect()
}

/// The next SIGHUP; never, if the system does not let us listen for it.
async fn told(hangup: &mut Option<Signal>) {
    match hangup {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Watches until the server stops. Without TLS there is nothing to read, but SIGHUP does not end the process either.
pub(super) async fn watch(tls: Option<Arc<Tls>>, stopping: CancellationToken) {
    let mut hangup = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be listened for"))
        .ok();
    let manager = Notifier::from_environment();
    let Some(tls) = tls else {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = told(&mut hangup) => {
                    manager.reloading();
                    manager.reloaded();
                    tracing::info!("SIGHUP: there is no certificate to read again (server.tls.certificate)");
                }
            }
        }
    };
    let mut used = look(&tls);
    let mut changed = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = told(&mut hangup) => {
                manager.reloading();
                used = look(&tls);
                changed = None;
                tls.reload();
                manager.reloaded();
            }
            () = tokio::time::sleep(EVERY) => {
                let now = look(&tls);
                if now == used {
                    changed = None;
                } else if changed.as_ref() == Some(&now) {
                    used = now;
                    changed = None;
                    tls.reload();
                } else {
                    changed = Some(now);
                }
            }
        }
    }
}
