//! Objects in an S3-compatible bucket.
//!
//! Requests are signed over their content, so the server sees damage on the way; after a write the returned tag is
//! compared with the MD5 of what was sent, and where the tag is something else (encryption, other formulas) the object
//! is read back and hashed. Redirects are never followed: an object comes from the configured host or not at all.

use super::backend::{Area, Backend, ByteStream, Listed, Object, check_size, deadline, within};
use super::content::{Content, Expect, INLINE, Reading};
use super::error::BlobError;
use super::key::{FoundPath, Key};
use super::s3_client;
use crate::config::S3;
use crate::domain::Sha256;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{
    Attribute, Attributes, MultipartUpload as _, ObjectStore as _, ObjectStoreExt as _,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use openssl::hash::MessageDigest;
use std::sync::Arc;
use std::time::Duration;

/// Content up to this size is sent in one request; more is sent in parts of [`PART`], so memory stays bounded.
const SINGLE: u64 = 16 << 20;
/// Bytes in one part of a large upload. S3 wants at least 5 MiB.
const PART: usize = 8 << 20;
/// A prefix that nothing is stored under: listing it proves address, credentials, rights and bucket in one request.
const PROBE: &str = "livepatch-health-probe";

/// The backend.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    place: Arc<str>,
    timeout: Duration,
}

impl Bucket {
    /// Prepares the backend; nothing is sent yet.
    pub(super) fn open(config: &S3) -> Result<Self, BlobError> {
        let (store, place) = s3_client::build(config)?;
        Ok(Self {
            store: Arc::new(store),
            place: place.into(),
            timeout: config.timeout,
        })
    }

    /// Bounds a request that moves `bytes` and sorts its errors.
    async fn request<T>(
        &self,
        operation: &'static str,
        key: Option<&Key>,
        bytes: u64,
        work: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, BlobError> {
        within(
            &self.place,
            operation,
            deadline(self.timeout, bytes),
            async { work.await.map_err(|e| self.sorted(operation, key, e)) },
        )
        .await
    }

    fn sorted(
        &self,
        operation: &'static str,
        key: Option<&Key>,
        error: object_store::Error,
    ) -> BlobError {
        sort(&self.place, operation, key, error)
    }

    /// Sends what fits into one request. The content is verified before the first byte is sent.
    async fn put_single(
        &self,
        key: &Key,
        content: &Content,
        expect: Expect,
    ) -> Result<(), BlobError> {
        // One byte more than allowed shows content that is longer than it was said to be.
        let most = (expect.size as usize).saturating_add(1);
        let (reading, bytes) = self.next(content.reading(), most).await?;
        reading.finish(key, expect)?;
        let tag = tag(bytes.clone()).await;
        let options = PutOptions {
            attributes: attributes(),
            ..PutOptions::default()
        };
        let path = self.path(key)?;
        let payload = PutPayload::from_bytes(bytes);
        let work = self.store.put_opts(&path, payload, options);
        let result = self
            .request("store an object", Some(key), expect.size, work)
            .await?;
        self.confirm(key, expect, &result, tag.as_deref()).await
    }

    /// Sends the content in parts; it becomes an object only after all of it was seen and compared.
    async fn put_parts(
        &self,
        key: &Key,
        content: &Content,
        expect: Expect,
    ) -> Result<(), BlobError> {
        const OPERATION: &str = "store an object";
        let options = PutMultipartOptions {
            attributes: attributes(),
            ..PutMultipartOptions::default()
        };
        let path = self.path(key)?;
        let begin = self.store.put_multipart_opts(&path, options);
        let mut upload = self.request(OPERATION, Some(key), 0, begin).await?;
        let sent = async {
            let mut reading = content.reading();
            let mut sums = Some(Vec::new());
            let mut parts = 0_u32;
            loop {
                let part;
                (reading, part) = self.next(reading, PART).await?;
                if part.is_empty() {
                    break;
                }
                parts += 1;
                sums = sums.zip(md5(&part)).map(|(mut sums, sum)| {
                    sums.extend_from_slice(&sum);
                    sums
                });
                let size = part.len() as u64;
                let work = upload.put_part(part.into());
                self.request(OPERATION, Some(key), size, work).await?;
            }
            reading.finish(key, expect)?;
            let tag = sums
                .and_then(|sums| md5(&sums))
                .map(|sum| format!("{}-{parts}", hex::encode(sum)));
            let work = upload.complete();
            let result = self.request(OPERATION, Some(key), 0, work).await?;
            Ok((result, tag))
        }
        .await;
        match sent {
            Ok((result, tag)) => self.confirm(key, expect, &result, tag.as_deref()).await,
            Err(error) => {
                let abort = self.request("abort an upload", Some(key), 0, upload.abort());
                if let Err(left) = abort.await {
                    tracing::warn!(%key, error = %left, "parts of an aborted upload may be left in the bucket");
                }
                Err(error)
            }
        }
    }

    /// Believes a write whose tag is the one computed here; reads anything else back.
    async fn confirm(
        &self,
        key: &Key,
        expect: Expect,
        result: &PutResult,
        tag: Option<&str>,
    ) -> Result<(), BlobError> {
        let given = result.e_tag.as_deref().map(|t| t.trim_matches('"'));
        if tag.is_some() && given == tag {
            return Ok(());
        }
        tracing::debug!(%key, tag = given, "the tag does not tell; reading the object back");
        let mut object = self.read(key).await?;
        check_size(&self.place, key, expect.size, object.size)?;
        let mut hasher = openssl::sha::Sha256::new();
        while let Some(chunk) = object.chunks.try_next().await? {
            hasher.update(&chunk);
        }
        let got = Sha256(hasher.finish());
        if got == expect.sha256 {
            return Ok(());
        }
        self.delete(key).await?;
        Err(BlobError::Corrupt {
            key: key.clone(),
            place: self.place.clone(),
            expected: expect.sha256,
            got,
        })
    }

    async fn next(&self, reading: Reading, most: usize) -> Result<(Reading, Bytes), BlobError> {
        reading
            .next_async(most)
            .await
            .map_err(|e| BlobError::from_io(&self.place, "read the spooled file", e))
    }

    fn path(&self, key: &Key) -> Result<Path, BlobError> {
        Path::parse(key.to_string())
            .map_err(|e| BlobError::unavailable(&self.place, "name an object", e))
    }
}

fn attributes() -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, "application/x-bzip2")])
}

/// MD5, which S3's tags are made with; `None` where the platform forbids it (FIPS).
fn md5(bytes: &[u8]) -> Option<[u8; 16]> {
    let sum = openssl::hash::hash(MessageDigest::md5(), bytes).ok()?;
    sum.as_ref().try_into().ok()
}

/// The tag of an object that is sent in one request, computed off the async threads when it is large.
async fn tag(bytes: Bytes) -> Option<String> {
    let large = bytes.len() > INLINE;
    let tag = move || md5(&bytes).map(hex::encode);
    if !large {
        return tag();
    }
    tokio::task::spawn_blocking(tag).await.ok().flatten()
}

/// The text of an error and of everything below it, with the request's noise first and the cause last.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

/// The status that a server answered with, which not every error of the library tells in its type.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.rsplit_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The code and message of an S3 error document, else the text as it is.
fn reason(text: String) -> String {
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    match (part("Code"), part("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text,
    }
}

fn sort(
    place: &Arc<str>,
    operation: &'static str,
    key: Option<&Key>,
    error: object_store::Error,
) -> BlobError {
    let place = place.clone();
    let text = chain(&error);
    // The store answers 404 for both; only one of them says something about the object.
    if text.contains("NoSuchBucket") {
        return BlobError::unavailable(
            &place,
            operation,
            "the bucket does not exist; create it or correct patch-storage.s3-bucket",
        );
    }
    match (error, key, status(&text)) {
        (object_store::Error::NotFound { .. }, Some(key), _) => BlobError::NotFound {
            key: key.clone(),
            place,
        },
        (_, _, Some(401 | 403)) => BlobError::Denied {
            place,
            operation,
            why: reason(text),
        },
        (_, _, Some(507)) => BlobError::Full {
            place,
            source: reason(text).into(),
        },
        _ => BlobError::unavailable(&place, operation, text),
    }
}

impl Backend for Bucket {
    fn place(&self) -> &Arc<str> {
        &self.place
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        content: &'a Content,
        expect: Expect,
    ) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            if expect.size <= SINGLE {
                self.put_single(key, content, expect).await
            } else {
                self.put_parts(key, content, expect).await
            }
        })
    }

    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<u64>, BlobError>> {
        Box::pin(async move {
            let path = self.path(key)?;
            let work = self.store.head(&path);
            match self.request("look for an object", Some(key), 0, work).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(BlobError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Object, BlobError>> {
        const OPERATION: &str = "read an object";
        Box::pin(async move {
            let path = self.path(key)?;
            let work = self.store.get(&path);
            let result = self.request(OPERATION, Some(key), 0, work).await?;
            let size = result.meta.size;
            // The whole body must arrive in time, not only each piece: a trickle would hold a download for ever.
            let until = tokio::time::Instant::now() + deadline(self.timeout, size);
            let (place, key) = (self.place.clone(), key.clone());
            let chunks: ByteStream = stream::try_unfold(result.into_stream(), move |mut body| {
                let (place, key) = (place.clone(), key.clone());
                async move {
                    match tokio::time::timeout_at(until, body.try_next()).await {
                        Ok(Ok(chunk)) => Ok(chunk.map(|chunk| (chunk, body))),
                        Ok(Err(e)) => Err(sort(&place, OPERATION, Some(&key), e)),
                        Err(_) => Err(BlobError::unavailable(
                            &place,
                            OPERATION,
                            "the object did not arrive in time",
                        )),
                    }
                }
            })
            .boxed();
            Ok(Object { size, chunks })
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(async move {
            let path = self.path(key)?;
            let work = self.store.delete(&path);
            match self.request("delete an object", Some(key), 0, work).await {
                Err(BlobError::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn list(&self, area: Area) -> BoxStream<'static, Result<Listed, BlobError>> {
        const OPERATION: &str = "list objects";
        let bucket = self.clone();
        let below = move |bucket: Bucket, prefix: Path| {
            bucket
                .store
                .list(Some(&prefix))
                .map_ok(|meta| (meta.location.to_string(), meta.size))
                .map_err(move |e| bucket.sorted(OPERATION, None, e))
        };
        let prefix = match area {
            Area::Below(prefix) => return below(bucket, Path::from(prefix)).boxed(),
            Area::Foreign => None,
        };
        // Our own objects may be tens of thousands; asking by folder passes them over without listing them.
        stream::once(async move {
            let work = bucket.store.list_with_delimiter(prefix);
            let top = bucket.request(OPERATION, None, 0, work).await?;
            let plain = top
                .objects
                .into_iter()
                .map(|meta| Ok((meta.location.to_string(), meta.size)));
            let folders = top
                .common_prefixes
                .into_iter()
                .filter(|folder| !FoundPath::is_ours(folder.as_ref()));
            let deep = stream::iter(folders).flat_map(move |folder| below(bucket.clone(), folder));
            Ok::<_, BlobError>(stream::iter(plain).chain(deep))
        })
        .try_flatten()
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            let prefix = Path::from(PROBE);
            let work = self.store.list_with_delimiter(Some(&prefix));
            self.request("reach the bucket", None, 0, work).await?;
            Ok(())
        })
    }

    fn presign<'a>(
        &'a self,
        key: &'a Key,
        valid: Duration,
    ) -> BoxFuture<'a, Result<Option<reqwest::Url>, BlobError>> {
        Box::pin(async move {
            let path = self.path(key)?;
            let work = self.store.signed_url(http::Method::GET, &path, valid);
            let url = self.request("sign a URL", Some(key), 0, work).await?;
            Ok(Some(url))
        })
    }
}
