//! Where payloads come from: one trait, a driver each for another server, Canonical's downloader and a folder of tarballs.
//!
//! A driver only lists and opens. Whether what it brings is served is decided by ingest; in which order, when it becomes visible,
//! and what becomes of what is no longer there, by `service::sync`.

pub mod address;
pub mod archive;
mod build;
pub mod collector;
pub mod contracts;
mod directory;
pub mod downloader;
mod downloader_command;
mod downloader_list;
mod downloader_run;
pub mod http;
mod jws;
pub mod oidc;
pub mod oidc_code;
mod peer;
mod tls;
pub mod volume;
pub mod webhook;

pub use build::build;
pub use directory::Directory;
pub use peer::Peer;

use crate::bundle::BundleName;
use crate::domain::Sha256;
use crate::index::{IntakeFilter, Known, Refusal, State};
use crate::wire::sync::Head;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use std::fmt::Debug;
use std::io;

/// The bytes of a payload as they come; an error means that it broke off.
pub type Body = BoxStream<'static, io::Result<Bytes>>;

/// A source of payloads.
pub trait Upstream: Debug + Send + Sync {
    /// The driver and the place, without secrets; stays the same for as long as the place does. What is known of an upstream is
    /// kept under this name.
    fn name(&self) -> String;

    /// What there is now. `filter` may be used to ask for less; what comes is filtered again.
    fn list<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Listing, UpstreamError>>;

    /// How many payloads are prepared together.
    fn batch(&self) -> usize {
        1
    }

    /// Makes a batch ready to be opened.
    fn prepare<'a>(&'a self, _batch: &'a [Offered]) -> BoxFuture<'a, Result<(), UpstreamError>> {
        Box::pin(async { Ok(()) })
    }

    /// Opens a payload of a batch that is ready. Breaks on the way are mended inside, within bounds.
    fn open<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, Result<Body, UpstreamError>>;

    /// A payload of a batch that was made ready is not needed any more: it was taken in, or nobody will.
    fn done<'a>(&'a self, _payload: &'a Offered) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

/// What a listing is asked with.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What is wanted.
    pub filter: &'a IntakeFilter,
    /// What was believed of this upstream before, and the state of then.
    pub known: Option<(&'a Known, &'a State)>,
    /// Now.
    pub now: Timestamp,
}

/// A payload that an upstream has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Which.
    pub name: BundleName,
    /// Its content, where the upstream says.
    pub sha256: Option<Sha256>,
    /// Its length in bytes, where the upstream says.
    pub size: Option<u64>,
}

/// What an upstream has.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Payloads, wanted or not.
    pub payloads: Vec<Offered>,
    /// Names that are no bundle's, with the reason; they are reported and left alone.
    pub unreadable: Vec<(String, String)>,
    /// The signed index it comes from, believed already; `None` from drivers that have none.
    pub index: Option<(Head, State)>,
}

/// Why an upstream did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It cannot be reached, or broke off, or was too slow; trying again later is right.
    #[error("{0}")]
    Unreachable(String),
    /// It does not let us in, or does not know what we ask for.
    #[error("{0}")]
    Denied(String),
    /// Its index is not believed.
    #[error(transparent)]
    Index(#[from] Refusal),
    /// It says something that makes no sense.
    #[error("{0}")]
    Nonsense(String),
    /// Something on this machine is in the way: a command that is missing, a full disk.
    #[error("{0}")]
    Local(String),
}

impl UpstreamError {
    /// A word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Denied(_) => "denied",
            Self::Index(refusal) => refusal.code(),
            Self::Nonsense(_) => "nonsense",
            Self::Local(_) => "local",
        }
    }
}
