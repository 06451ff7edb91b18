//! The S3 client from its configuration: address, trust, credentials, retries.

use super::crypto::Openssl;
use super::error::BlobError;
use crate::config::S3;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Option_};
use object_store::client::{HttpClient, HttpConnector};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};
use std::sync::Arc;
use std::time::Duration;

/// A server that does not accept a connection for so long is not there.
const CONNECT: Duration = Duration::from_secs(5);
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

/// A client for the configured bucket, and the bucket in words. Nothing is sent yet.
pub(super) fn build(config: &S3) -> Result<(AmazonS3, String), BlobError> {
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
    Ok((store, place))
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
        let error = |config: S3| build(&config).unwrap_err().to_string();
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
