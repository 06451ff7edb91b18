//! Notifications: a connection of its own that listens and tells what changed. Whoever listens must re-read everything
//! after [`Heard::Connected`], because what was notified while nobody listened is lost.

use super::connect::Settings;
use super::run::DbError;
use futures_util::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::AsyncMessage;

/// The channel that changes are notified on.
pub const CHANNEL: &str = "livepatch";

/// What a change touches; each part of the snapshot is reloaded on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Tiers, patches, payloads, promotions, blocks, supported kernels.
    Catalog,
    /// Auth tokens.
    Tokens,
    /// Overrides of single machines.
    Overrides,
    /// Policies and rollouts.
    Rollouts,
    /// Captures that run.
    Captures,
    /// Events that wait to be delivered to webhooks; no part of a snapshot.
    Outbox,
    /// Nothing that a snapshot holds.
    Nothing,
}

impl Change {
    /// The word in the notification.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Tokens => "tokens",
            Self::Overrides => "overrides",
            Self::Rollouts => "rollouts",
            Self::Captures => "captures",
            Self::Outbox => "outbox",
            Self::Nothing => "nothing",
        }
    }

    /// Reads the word; `None` for a word that only a newer replica knows.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Catalog,
            Self::Tokens,
            Self::Overrides,
            Self::Rollouts,
            Self::Captures,
            Self::Outbox,
            Self::Nothing,
        ]
        .into_iter()
        .find(|c| c.as_str() == text)
    }
}

/// What the listener says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Listening began, for the first time or again: re-read everything.
    Connected,
    /// This changed, with the sequence number of the change; `None`: something that this version does not know, so
    /// that everything must be re-read.
    Changed(Option<Change>, i64),
    /// The connection broke; another follows.
    Lost,
}

/// Listens until the receiver is dropped, connecting again whenever the connection breaks.
pub async fn listen(settings: Arc<Settings>, heard: mpsc::Sender<Heard>) {
    let mut pause = Duration::from_millis(100);
    loop {
        match listen_once(&settings, &heard).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "lost the connection that hears of changes; connecting again");
            }
        }
        if heard.send(Heard::Lost).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

async fn listen_once(settings: &Settings, heard: &mpsc::Sender<Heard>) -> Result<(), DbError> {
    let (client, mut connection) = settings.connect_alone().await?;
    let (forward, mut messages) = mpsc::channel(1024);
    let driver = tokio::spawn(async move {
        while let Some(message) = poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notification(n)) => {
                    if forward.send(n.payload().to_owned()).await.is_err() {
                        break;
                    }
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    });
    let guard = tokio_util::task::AbortOnDropHandle::new(driver);
    client
        .batch_execute("listen livepatch")
        .await
        .map_err(|e| DbError::of("listen", e))?;
    if heard.send(Heard::Connected).await.is_err() {
        return Ok(());
    }
    let mut probe = tokio::time::interval(Duration::from_secs(5));
    loop {
        let payload = tokio::select! {
            message = messages.recv() => message,
            () = heard.closed() => return Ok(()),
            _ = probe.tick() => {
                // A server that is gone without a word is noticed here.
                let alive = tokio::time::timeout(Duration::from_secs(5), client.batch_execute("select 1")).await;
                match alive {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => return Err(DbError::of("listen", error)),
                    Err(_) => return Err(DbError::Unavailable("no answer within 5 s".to_owned())),
                }
            }
        };
        let Some(payload) = payload else {
            drop(guard);
            return Err(DbError::Unavailable("the connection was closed".to_owned()));
        };
        let (word, seq) = payload.split_once(' ').unwrap_or((&payload, ""));
        let said = Heard::Changed(Change::parse(word), seq.parse().unwrap_or(i64::MAX));
        if heard.send(said).await.is_err() {
            return Ok(());
        }
    }
}
