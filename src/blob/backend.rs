//! The contract that every storage backend keeps, and that `tests/it/blob_contract.rs` holds them to.

use super::content::{Content, Expect};
use super::error::BlobError;
use super::key::Key;
use super::verified::VerifiedFile;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;

/// Pieces of an object as they arrive.
pub type ByteStream = BoxStream<'static, Result<Bytes, BlobError>>;

/// An object being read, unverified.
pub struct Object {
    /// The size that the storage gives for it, in bytes.
    pub size: u64,
    /// Its bytes.
    pub chunks: ByteStream,
}

/// Which part of the storage to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    /// Everything below this prefix, which ends in `/`.
    Below(&'static str),
    /// Everything that is not ours.
    Foreign,
}

/// A path in the storage and its size in bytes.
pub(super) type Listed = (String, u64);

/// A place that keeps objects.
///
/// # Contract
///
/// - [`put`](Backend::put) is atomic: readers see the old object, or none, until all of the new one is there. When it
///   returns `Ok`, the object survives a crash of this process and, as far as the storage promises, of the machine. It
///   compares the content with `expect` *before* it becomes visible and leaves nothing behind when it differs
///   ([`BlobError::WrongContent`]) or when writing fails. An object of that name is replaced. Two writers of one key at
///   once both succeed, and one of their objects, whole, stays.
/// - [`head`](Backend::head) after a `put` sees it. A missing object is `None`, a missing bucket or folder is an error.
/// - [`read`](Backend::read) reports a missing object as [`BlobError::NotFound`], gives at most the bytes that are there,
///   and holds a bounded amount of memory. Bytes are **not** verified; an object replaced while it is read ends in an
///   error or in a mixture, never in a hang: callers compare hashes.
/// - [`delete`](Backend::delete) of a missing object is `Ok`.
/// - [`list`](Backend::list) may or may not show what changes while it runs, shows everything else exactly once, and
///   nothing that is half written.
/// - Every call ends within the backend's timeout plus a second per 256 KiB to move, with an error if need be.
/// - Errors name the storage and never hold a secret.
pub(super) trait Backend: Send + Sync + std::fmt::Debug {
    /// The storage in words, for messages, e.g. `bucket patches at http://...`.
    fn place(&self) -> &Arc<str>;

    /// Stores `content` under `key`, replacing what is there.
    fn put<'a>(
        &'a self,
        key: &'a Key,
        content: &'a Content,
        expect: Expect,
    ) -> BoxFuture<'a, Result<(), BlobError>>;

    /// The size of the object, if there is one.
    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<u64>, BlobError>>;

    /// Opens the object for reading.
    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Object, BlobError>>;

    /// Reads the object whole. It must have exactly `size` bytes; nothing beyond is read.
    fn read_whole<'a>(
        &'a self,
        key: &'a Key,
        size: u64,
    ) -> BoxFuture<'a, Result<Bytes, BlobError>> {
        Box::pin(async move {
            let mut object = self.read(key).await?;
            check_size(self.place(), key, size, object.size)?;
            let mut gathered = BytesMut::with_capacity(size as usize);
            while let Some(chunk) = object.chunks.next().await {
                let chunk = chunk?;
                if gathered.len() as u64 + chunk.len() as u64 > size {
                    return Err(BlobError::TooLarge {
                        key: key.clone(),
                        place: self.place().clone(),
                        limit: size,
                    });
                }
                gathered.extend_from_slice(&chunk);
            }
            check_size(self.place(), key, size, gathered.len() as u64)?;
            Ok(gathered.freeze())
        })
    }

    /// Removes the object if it is there.
    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), BlobError>>;

    /// Paths and sizes, in no promised order.
    fn list(&self, area: Area) -> BoxStream<'static, Result<Listed, BlobError>>;

    /// One cheap round trip that fails if a download or an intake would.
    fn health(&self) -> BoxFuture<'_, Result<(), BlobError>>;

    /// A URL that lets anyone read this object, and nothing else, for `valid`; `None` where there is no such thing.
    fn presign<'a>(
        &'a self,
        _key: &'a Key,
        _valid: Duration,
    ) -> BoxFuture<'a, Result<Option<reqwest::Url>, BlobError>> {
        Box::pin(async { Ok(None) })
    }

    /// Opens the object as a file whose bytes were compared with `expect`; `None` where objects are not files.
    fn open_verified<'a>(
        &'a self,
        _key: &'a Key,
        _expect: Expect,
    ) -> BoxFuture<'a, Result<Option<VerifiedFile>, BlobError>> {
        Box::pin(async { Ok(None) })
    }
}

/// Refuses an object whose size is not the one expected.
pub(super) fn check_size(
    place: &Arc<str>,
    key: &Key,
    expected: u64,
    got: u64,
) -> Result<(), BlobError> {
    match got.cmp(&expected) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(BlobError::Truncated {
            key: key.clone(),
            place: place.clone(),
            expected,
            got,
        }),
        std::cmp::Ordering::Greater => Err(BlobError::TooLarge {
            key: key.clone(),
            place: place.clone(),
            limit: expected,
        }),
    }
}

/// How long an operation that moves `bytes` may take: `base`, and a second for every 256 KiB.
pub(super) fn deadline(base: Duration, bytes: u64) -> Duration {
    base + Duration::from_millis(bytes / 262)
}

/// Bounds an operation in time.
pub(super) async fn within<T>(
    place: &Arc<str>,
    operation: &'static str,
    limit: Duration,
    work: impl Future<Output = Result<T, BlobError>>,
) -> Result<T, BlobError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(BlobError::unavailable(
            place,
            operation,
            format!("no answer within {limit:?}"),
        ))
    })
}
