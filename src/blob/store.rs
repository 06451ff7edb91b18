//! The store as the rest of the program sees it: one type over all backends, with verification and observation.

use super::backend::{Area, Backend, Listed, Object};
use super::body::Source;
use super::buffers::Buffers;
use super::content::{Content, Expect, digest};
use super::error::BlobError;
use super::filesystem::Filesystem;
use super::key::{FoundPath, Key, PAYLOADS, QUARANTINE};
use super::postgres::Table;
use super::s3::Bucket;
use crate::config::{Database, PatchStorage, StorageKind};
use crate::domain::Sha256;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// Told of every operation on the storage: its name, the seconds it took, and whether it succeeded. Names are `put`,
/// `head`, `get`, `open`, `read`, `delete`, `presign` and `health`; `get` is the one that fetches a whole payload.
pub type Observer = Arc<dyn Fn(&'static str, f64, bool) + Send + Sync>;

/// What a [`Store::put`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is new.
    Stored,
    /// An object of that name was there and was not the right one; it was replaced.
    Replaced,
    /// The object was there already; nothing was written.
    AlreadyThere,
}

/// The object store. Cloning is cheap; all clones share connections and memory.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
    buffers: Buffers,
    observer: Option<Observer>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.backend).finish()
    }
}

impl Store {
    /// Opens the configured storage. `database` is used by `postgres` alone, when the storage has no connection string
    /// of its own. With S3 nothing is sent yet: ask [`Store::health`].
    pub async fn open(config: &PatchStorage, database: &Database) -> Result<Self, BlobError> {
        let backend: Arc<dyn Backend> = match config.kind {
            StorageKind::Filesystem => Arc::new(Filesystem::open(&config.filesystem_path).await?),
            StorageKind::S3 => Arc::new(Bucket::open(&config.s3)?),
            StorageKind::Postgres => {
                Arc::new(Table::open(&config.postgres_connection_string, database).await?)
            }
        };
        Ok(Self {
            backend,
            buffers: Buffers::default(),
            observer: None,
        })
    }

    /// Has every operation reported to `observer`, for metrics.
    #[must_use]
    pub fn with_observer(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The storage in words, e.g. `bucket patches at http://...`; holds no secret.
    pub fn place(&self) -> &str {
        self.backend.place()
    }

    async fn observed<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let start = Instant::now();
        let result = work.await;
        if let Some(observer) = &self.observer {
            // That there is no such object is an answer; the store is well.
            let well = matches!(&result, Ok(_) | Err(BlobError::NotFound { .. }));
            observer(operation, start.elapsed().as_secs_f64(), well);
        }
        result
    }

    /// Stores `content` under `key` if it is what `expect` says. An object of that name and size is believed to be the
    /// right one and left alone, so that storing again is cheap; see [`Store::put_again`] for one that may be damaged.
    ///
    /// Fails with [`BlobError::WrongContent`], and stores nothing, if the content differs; for the keys that name their
    /// content, also if `expect` differs from the key.
    pub async fn put(
        &self,
        key: &Key,
        content: Content,
        expect: Expect,
    ) -> Result<PutOutcome, BlobError> {
        check_name(key, expect)?;
        match self.head(key).await? {
            Some(size) if size == expect.size => Ok(PutOutcome::AlreadyThere),
            there => self.write(key, &content, expect, there.is_some()).await,
        }
    }

    /// As [`Store::put`], but an object that is there is read and hashed before it is believed.
    pub async fn put_again(
        &self,
        key: &Key,
        content: Content,
        expect: Expect,
    ) -> Result<PutOutcome, BlobError> {
        check_name(key, expect)?;
        let there = self.head(key).await?;
        if there == Some(expect.size) {
            match self.rehash(key, expect.size).await {
                Ok(found) if found == expect => return Ok(PutOutcome::AlreadyThere),
                Ok(_) => {}
                Err(error) if error.is_bad_object() => {}
                Err(error) => return Err(error),
            }
        }
        self.write(key, &content, expect, there.is_some()).await
    }

    /// As [`Store::put`], but without looking what is there: `content` is written in any case. For what nobody is known to have
    /// stored, so that one way to the storage and back is enough.
    pub async fn put_over(
        &self,
        key: &Key,
        content: Content,
        expect: Expect,
    ) -> Result<(), BlobError> {
        check_name(key, expect)?;
        self.write(key, &content, expect, false).await.map(|_| ())
    }

    async fn write(
        &self,
        key: &Key,
        content: &Content,
        expect: Expect,
        replaces: bool,
    ) -> Result<PutOutcome, BlobError> {
        self.observed("put", self.backend.put(key, content, expect))
            .await?;
        Ok(if replaces {
            PutOutcome::Replaced
        } else {
            PutOutcome::Stored
        })
    }

    /// Reads an object whole. Nothing is returned unless it has `size` bytes and their digest is `sha256`; at most
    /// `size` bytes are held.
    pub async fn get_verified(
        &self,
        key: &Key,
        sha256: Sha256,
        size: u64,
    ) -> Result<Bytes, BlobError> {
        self.observed("get", async {
            let bytes = self.backend.read_whole(key, size).await?;
            let got = digest(&bytes).await;
            if got == sha256 {
                return Ok(bytes);
            }
            Err(BlobError::Corrupt {
                key: key.clone(),
                place: self.backend.place().clone(),
                expected: sha256,
                got,
            })
        })
        .await
    }

    /// Opens an object as a verified file; `None` where objects are not files.
    pub(super) async fn open_verified(
        &self,
        key: &Key,
        expect: Expect,
    ) -> Result<Option<Source>, BlobError> {
        let open = self.backend.open_verified(key, expect);
        let file = self.observed("open", open).await?;
        Ok(file.map(|file| Source {
            file: Arc::new(file),
            buffers: self.buffers.clone(),
        }))
    }

    /// Reads an object of at most `most` bytes piece by piece, **unverified**: for intake and archives, which hash for
    /// themselves. The stream ends in [`BlobError::TooLarge`] instead of giving more than `most` bytes, and in
    /// [`BlobError::Truncated`] if the storage gives fewer than it announced.
    pub async fn read_unverified(&self, key: &Key, most: u64) -> Result<Object, BlobError> {
        let Object { size, chunks } = self.observed("read", self.backend.read(key)).await?;
        let too_large = BlobError::TooLarge {
            key: key.clone(),
            place: self.backend.place().clone(),
            limit: most,
        };
        if size > most {
            return Err(too_large);
        }
        let (key, place) = (key.clone(), self.backend.place().clone());
        let mut too_large = Some(too_large);
        let mut given = 0;
        // The end of the stream is chained as one more item, so that a short object is noticed.
        let bounded = chunks
            .map_ok(Some)
            .chain(futures_util::stream::iter([Ok(None)]))
            .map(move |item| match item? {
                Some(chunk) => {
                    given += chunk.len() as u64;
                    if given > most {
                        return Err(too_large.take().unwrap_or(BlobError::Busy));
                    }
                    Ok(chunk)
                }
                None if given < size => Err(BlobError::Truncated {
                    key: key.clone(),
                    place: place.clone(),
                    expected: size,
                    got: given,
                }),
                None => Ok(Bytes::new()),
            })
            .try_filter(|chunk| std::future::ready(!chunk.is_empty()));
        // After the first error nothing more may come.
        let fused = futures_util::stream::try_unfold(bounded.boxed(), |mut rest| async move {
            Ok(rest.try_next().await?.map(|chunk| (chunk, rest)))
        });
        Ok(Object {
            size,
            chunks: fused.boxed(),
        })
    }

    /// Copies an object of at most `most` bytes into `to` and says what it was. **Unverified**: compare the answer.
    pub async fn copy_unverified(
        &self,
        key: &Key,
        most: u64,
        to: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<Expect, BlobError> {
        let mut object = self.read_unverified(key, most).await?;
        let mut hasher = openssl::sha::Sha256::new();
        let mut size = 0;
        let failed = |e| BlobError::from_io(self.backend.place(), "write the spooled copy", e);
        while let Some(chunk) = object.chunks.try_next().await? {
            hasher.update(&chunk);
            size += chunk.len() as u64;
            to.write_all(&chunk).await.map_err(failed)?;
        }
        to.flush().await.map_err(failed)?;
        Ok(Expect {
            sha256: Sha256(hasher.finish()),
            size,
        })
    }

    /// Copies a tarball that lies in the storage under its own name into a spool; see [`Store::list_found`].
    pub async fn read_found(
        &self,
        path: &FoundPath,
        most: u64,
        to: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<Expect, BlobError> {
        self.copy_unverified(&Key::Found(path.clone()), most, to)
            .await
    }

    /// Reads an object of at most `most` bytes and says what it is.
    pub async fn rehash(&self, key: &Key, most: u64) -> Result<Expect, BlobError> {
        self.copy_unverified(key, most, &mut tokio::io::sink())
            .await
    }

    /// The size of an object, if it is there.
    pub async fn head(&self, key: &Key) -> Result<Option<u64>, BlobError> {
        self.observed("head", self.backend.head(key)).await
    }

    /// Removes an object; a missing one is no error.
    pub async fn delete(&self, key: &Key) -> Result<(), BlobError> {
        self.observed("delete", self.backend.delete(key)).await
    }

    /// A URL by which anyone may read this one object for `valid`, and do nothing else; `None` where the storage has no
    /// such thing. S3 bounds `valid` to seven days.
    pub async fn presign_get(
        &self,
        key: &Key,
        valid: Duration,
    ) -> Result<Option<reqwest::Url>, BlobError> {
        self.observed("presign", self.backend.presign(key, valid))
            .await
    }

    /// One cheap round trip: fails if the storage cannot be reached, is read-only or refuses the credentials.
    pub async fn health(&self) -> Result<(), BlobError> {
        self.observed("health", self.backend.health()).await
    }

    /// Tarballs that lie in the storage outside our own folders, with their sizes in bytes, in no promised order.
    pub fn list_found(&self) -> BoxStream<'static, Result<(FoundPath, u64), BlobError>> {
        self.list(Area::Foreign, |path| path.parse().ok())
    }

    /// Digests and sizes of all payloads. What lies among them under another kind of name is passed over.
    pub fn list_payloads(&self) -> BoxStream<'static, Result<(Sha256, u64), BlobError>> {
        self.list(Area::Below(PAYLOADS), |path| Key::digest_in(PAYLOADS, path))
    }

    /// Digests and sizes of all quarantined files.
    pub fn list_quarantine(&self) -> BoxStream<'static, Result<(Sha256, u64), BlobError>> {
        self.list(Area::Below(QUARANTINE), |path| {
            Key::digest_in(QUARANTINE, path)
        })
    }

    fn list<T: Send + 'static>(
        &self,
        area: Area,
        read: impl Fn(&str) -> Option<T> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<(T, u64), BlobError>> {
        let named = move |(path, size): Listed| {
            std::future::ready(Ok(read(&path).map(|name| (name, size))))
        };
        self.backend.list(area).try_filter_map(named).boxed()
    }
}

/// Refuses to store under a digest what is promised to be something else.
fn check_name(key: &Key, expect: Expect) -> Result<(), BlobError> {
    match key.sha256() {
        Some(sha256) if sha256 != expect.sha256 => Err(BlobError::WrongContent {
            key: key.clone(),
            expected: Expect {
                sha256,
                size: expect.size,
            },
            got: expect,
        }),
        _ => Ok(()),
    }
}
