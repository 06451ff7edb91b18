//! Objects in an S3-compatible bucket.
//!
//! Requests are signed over their content, so the server sees damage on the way; after a write the returned tag is
//! compared with the MD5 of what was sent, and where the tag is something else (encryption, other formulas) the object
//! is read back and hashed. Redirects are never followed: an object comes from the configured host or not at all.

use super::backend::{Area, Backend, ByteStream, Listed, Object, check_size, deadline, within};
use super::content::{Content, Expect, Reading};
use super::crypto::Openssl;
use super::error::BlobError;
use super::key::{FoundPath, Key};
use crate::config::S3;
use crate::domain::Sha256;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Option_};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::signer::Signer as _;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientConfigKey, ClientOptions, MultipartUpload as _,
    ObjectStore as _, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    RetryConfig,
};
use openssl::hash::MessageDigest;
use std::sync::Arc;
use std::time::Duration;

/// Content up to this size is sent in one request; more is sent in parts of [`PART`], so memory stays bounded.
const SINGLE: u64 = 16 << 20;
/// Bytes in one part of a large upload. S3 wants at least 5 MiB.
const PART: usize = 8 << 20;
/// A server that does not accept a connection for so long is not there.
const CONNECT: Duration = Duration::from_secs(5);
/// A prefix that nothing is stored under: listing it proves address, credentials, rights and bucket in one request.
const PROBE: &str = "livepatch-health-probe";

/// The backend.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    place: Arc<str>,
    timeout: Duration,
}

/// Makes HTTP clients that follow no redirect and trust the configured authority besides the system's.
#[derive(Debug)]
struct Connector {
    authorities: Vec<reqwest::Certificate>,
    timeout: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|v| v == "true");
        reqwest::Client::builder()
            .user_agent(concat!("livepatch-onprem/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_merge(self.authorities.iter().cloned())
            .connect_timeout(self.timeout.min(CONNECT))
            .read_timeout(self.timeout)
            .http1_only()
            .https_only(!plain)
            .build()
            .map(HttpClient::new)
            .map_err(|e| object_store::Error::Generic {
                store: "S3",
                source: e.into(),
            })
    }
}

/// The endpoint as a URL without a path; `None` means AWS.
fn endpoint(config: &S3) -> Result<Option<String>, BlobError> {
    let given = config.endpoint.trim();
    if given.is_empty() {
        return Ok(None);
    }
    let refuse = |why: &str| {
        Err(BlobError::Setup {
            what: format!("s3-endpoint {given:?} {why}; give a host, host:port or http(s) URL"),
        })
    };
    let (scheme, host) = match given.split_once("://") {
        Some((scheme @ ("http" | "https"), host)) => (scheme, host),
        Some(_) => return refuse("has an unknown scheme"),
        None if config.secure => ("https", given),
        None => ("http", given),
    };
    let host = host.trim_end_matches('/');
    match reqwest::Url::parse(&format!("{scheme}://{host}")) {
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            // The text itself must not be shown: it may hold a password.
            Err(BlobError::Setup {
                what: "s3-endpoint holds a user name; credentials belong in s3-access-key and s3-secret-key".to_owned(),
            })
        }
        Ok(url) if url.path() != "/" || url.query().is_some() => refuse("has a path or query"),
        Ok(_) if config.path_style => Ok(Some(format!("{scheme}://{host}"))),
        Ok(_) => Ok(Some(format!("{scheme}://{}.{host}", config.bucket))),
        Err(_) => refuse("is not an address"),
    }
}

fn authorities(config: &S3) -> Result<Vec<reqwest::Certificate>, BlobError> {
    let Some(path) = &config.ca else {
        return Ok(Vec::new());
    };
    let refuse = |why: String| BlobError::Setup {
        what: format!(
            "s3-ca {}: {why}; a PEM file with the authority's certificate is expected",
            path.display()
        ),
    };
    let pem = std::fs::read(path).map_err(|e| refuse(e.to_string()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| refuse(e.to_string()))?;
    if found.is_empty() {
        return Err(refuse("it holds no certificate".to_owned()));
    }
    Ok(found)
}

impl Bucket {
    /// Prepares the backend; nothing is sent yet.
    pub(super) fn open(config: &S3) -> Result<Self, BlobError> {
        if config.bucket.is_empty() {
            return Err(BlobError::Setup {
                what: "s3-bucket is empty; name the bucket that holds the patches".to_owned(),
            });
        }
        if config.access_key.is_empty() != config.secret_key.is_empty() {
            return Err(BlobError::Setup {
                what: "s3-access-key and s3-secret-key go together; give both, or neither for instance credentials".to_owned(),
            });
        }
        let endpoint = endpoint(config)?;
        let plain = endpoint.as_deref().is_some_and(|e| e.starts_with("http:"));
        let region = match config.region.as_str() {
            "" => "us-east-1",
            region => region,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(region)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_allow_http(plain)
            .with_disable_bulk_delete(true)
            .with_crypto_provider(Arc::new(Openssl))
            .with_http_connector(Connector {
                authorities: authorities(config)?,
                timeout: config.timeout,
            })
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(50),
                    max_backoff: Duration::from_secs(1),
                    base: 3.0,
                },
                max_retries: 3,
                retry_timeout: config.timeout,
            });
        if config.access_key.is_empty() {
            builder = ambient_credentials(builder);
        } else {
            builder = builder
                .with_access_key_id(config.access_key.expose())
                .with_secret_access_key(config.secret_key.expose());
        }
        let place = match &endpoint {
            Some(url) => format!("bucket {} at {url}", config.bucket),
            None => format!("bucket {} at AWS ({region})", config.bucket),
        };
        if let Some(url) = endpoint {
            builder = builder.with_endpoint(url);
        }
        let store = builder.build().map_err(|e| BlobError::Setup {
            what: format!("the S3 settings cannot be used: {e}"),
        })?;
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
        let tag = md5(&bytes).map(hex::encode);
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

/// Takes credentials from where AWS tools look for them when none are configured: the environment, a web identity
/// token, the container's or the instance's endpoint. Nothing else is taken from the environment.
fn ambient_credentials(mut builder: AmazonS3Builder) -> AmazonS3Builder {
    for (name, option) in [
        ("AWS_ACCESS_KEY_ID", Option_::AccessKeyId),
        ("AWS_SECRET_ACCESS_KEY", Option_::SecretAccessKey),
        ("AWS_SESSION_TOKEN", Option_::Token),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", Option_::WebIdentityTokenFile),
        ("AWS_ROLE_ARN", Option_::RoleArn),
        ("AWS_ROLE_SESSION_NAME", Option_::RoleSessionName),
        ("AWS_ENDPOINT_URL_STS", Option_::StsEndpoint),
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            Option_::ContainerCredentialsRelativeUri,
        ),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            Option_::ContainerCredentialsFullUri,
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            Option_::ContainerAuthorizationTokenFile,
        ),
    ] {
        if let Ok(value) = std::env::var(name) {
            builder = builder.with_config(option, value);
        }
    }
    builder
}

fn attributes() -> Attributes {
    Attributes::from_iter([(Attribute::ContentType, "application/x-bzip2")])
}

/// MD5, which S3's tags are made with; `None` where the platform forbids it (FIPS).
fn md5(bytes: &[u8]) -> Option<[u8; 16]> {
    let sum = openssl::hash::hash(MessageDigest::md5(), bytes).ok()?;
    sum.as_ref().try_into().ok()
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

fn sort(
    place: &Arc<str>,
    operation: &'static str,
    key: Option<&Key>,
    error: object_store::Error,
) -> BlobError {
    use object_store::Error as E;
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
    match (&error, key) {
        (E::NotFound { .. }, Some(key)) => BlobError::NotFound {
            key: key.clone(),
            place,
        },
        (E::PermissionDenied { .. } | E::Unauthenticated { .. }, _) => BlobError::Denied {
            place,
            operation,
            why: text,
        },
        _ if text.contains("507 ") || text.contains("StorageFull") => BlobError::Full {
            place,
            source: text.into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;

    fn config(endpoint: &str, secure: bool, path_style: bool) -> S3 {
        S3 {
            bucket: "patches".to_owned(),
            endpoint: endpoint.to_owned(),
            secure,
            path_style,
            ..S3::default()
        }
    }

    #[test]
    fn endpoints_are_read_in_all_their_forms() {
        for (given, secure, path_style, expected) in [
            ("", true, true, None),
            ("minio:9000", false, true, Some("http://minio:9000")),
            ("minio:9000", true, true, Some("https://minio:9000")),
            ("http://minio/", true, true, Some("http://minio")),
            ("https://h:1", false, false, Some("https://patches.h:1")),
            ("[::1]:9000", false, true, Some("http://[::1]:9000")),
        ] {
            let url = endpoint(&config(given, secure, path_style)).unwrap();
            assert_eq!(url.as_deref(), expected, "{given}");
        }
        for bad in [
            "ftp://h",
            "https://h/path",
            "https://",
            "http://a b",
            "h?x=y",
        ] {
            let error = endpoint(&config(bad, false, true)).unwrap_err().to_string();
            assert!(error.contains("s3-endpoint"), "{bad}: {error}");
        }
        let error = endpoint(&config("https://u:hunter2@h", false, true)).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn contradictions_are_refused_at_once() {
        let error = |config: S3| Bucket::open(&config).unwrap_err().to_string();
        assert!(error(S3::default()).contains("s3-bucket is empty"));
        let half = S3 {
            access_key: Secret::new("key"),
            ..config("h", false, true)
        };
        assert!(error(half).contains("go together"));
        let missing = S3 {
            ca: Some("/nonexistent/ca.pem".into()),
            ..config("h", false, true)
        };
        assert!(error(missing).contains("s3-ca /nonexistent/ca.pem"));
    }
}
