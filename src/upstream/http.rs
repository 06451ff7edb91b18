//! The client for what this server asks of others by HTTP: upstream servers and webhooks.
//!
//! Invariants: a redirect to another scheme, host or port is an error; proxies are those of `patch-sync.proxy.*` and never
//! the environment's; nothing secret (proxy credentials, tokens) is in an error's text; nothing waits for ever, and what
//! comes more slowly than [`SLOWEST`] is given up.

use super::UpstreamError;
use super::tls::TlsFiles;
use crate::config::{PatchSync, Proxy};
use bytes::Bytes;
use reqwest::{ClientBuilder, NoProxy, Response, Url, redirect};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The least that must come, in bytes per second of waiting.
pub const SLOWEST: u64 = 1 << 10;
/// Redirects within the same server.
const MAX_REDIRECTS: usize = 3;
/// The most of a server's own explanation that is repeated, in characters.
const MAX_TOLD: usize = 300;

/// A client, and what must not be repeated.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    secrets: Vec<String>,
    patience: Duration,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// The client for the upstream server: with the authorities and the certificate that are configured for it, following
    /// redirects within it only.
    pub fn upstream(config: &PatchSync) -> Result<Self, UpstreamError> {
        let same_server = redirect::Policy::custom(|attempt| {
            let from = attempt.previous().last().map(Url::origin);
            if from.as_ref() != Some(&attempt.url().origin()) {
                attempt.error("it redirects to another host, which is not followed")
            } else if attempt.previous().len() > MAX_REDIRECTS {
                attempt.error("it redirects too often")
            } else {
                attempt.follow()
            }
        });
        let files = TlsFiles::of_upstream(config);
        Self::with(&files, &config.proxy, config.stall_timeout, |client| {
            client.redirect(same_server)
        })
    }

    /// A client with TLS as these files say, that goes through `proxy` if that is enabled, and waits at most `patience` for
    /// an answer to begin. `adapt` says which redirects are followed, and whatever else is not common to all.
    pub(super) fn with(
        files: &TlsFiles<'_>,
        proxy: &Proxy,
        patience: Duration,
        adapt: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Self, UpstreamError> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("livepatch-onprem/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT.min(patience))
            .pool_idle_timeout(Duration::from_secs(20))
            .no_proxy();
        let mut builder = adapt(builder);
        let mut secrets = Vec::new();
        if proxy.enabled {
            let except = NoProxy::from_string(&proxy.no_proxy.join(","));
            for (scheme, secret, https) in
                [("http", &proxy.http, false), ("https", &proxy.https, true)]
            {
                if secret.is_empty() {
                    continue;
                }
                let key = format!("{}.{scheme}", proxy.keys);
                let url = proxy_url(secret.expose()).ok_or_else(|| {
                    UpstreamError::Local(format!(
                        "{key} is not the URL of a proxy; expected e.g. http://proxy.example:3128"
                    ))
                })?;
                secrets.extend(secrets_of(secret.expose(), &url));
                let made = if https {
                    reqwest::Proxy::https(url.as_str())
                } else {
                    reqwest::Proxy::http(url.as_str())
                };
                // The error would repeat the URL with its password.
                let made = made.map_err(|_| {
                    UpstreamError::Local(format!("{key} cannot be used as a proxy's URL"))
                })?;
                builder = builder.proxy(made.no_proxy(except.clone()));
            }
        }
        builder = files.apply(builder)?;
        let client = builder
            .build()
            .map_err(|e| UpstreamError::Local(format!("no HTTP client: {}", chain(&e))))?;
        Ok(Self {
            client,
            secrets,
            patience,
        })
    }

    /// The same, which never repeats this either, e.g. a token.
    #[must_use]
    pub fn hiding(mut self, secret: &str) -> Self {
        if !secret.is_empty() {
            self.secrets.push(secret.to_owned());
        }
        self
    }

    /// How long it waits.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The client underneath.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Sends a request and waits for its answer to begin.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, UpstreamError> {
        match tokio::time::timeout(self.patience, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failed(error)),
            Err(_) => Err(UpstreamError::Unreachable(format!(
                "it did not begin to answer within {}",
                humantime::format_duration(self.patience)
            ))),
        }
    }

    /// Reads a body of at most `most` bytes; what comes too slowly is given up.
    pub async fn read(&self, response: Response, most: u64) -> Result<Vec<u8>, ReadError> {
        let mut response = response;
        let mut pace = Pace::new(self.patience);
        let mut body = Vec::new();
        while let Some(chunk) = pace.chunk(self, &mut response).await? {
            if (body.len() + chunk.len()) as u64 > most {
                return Err(ReadError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// What a server says is wrong (problem details, or the beginning of a text), for people.
    pub async fn explained(&self, response: Response) -> String {
        let status = response.status();
        let problem = self.read(response, 64 << 10).await.ok();
        let told = problem
            .as_deref()
            .and_then(|body| serde_json::from_slice::<crate::wire::Problem>(body).ok())
            .map(|problem| problem.detail)
            .or_else(|| problem.and_then(|body| String::from_utf8(body).ok()))
            .unwrap_or_default();
        let told: String = told
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_TOLD)
            .collect();
        if told.is_empty() {
            format!("it answers {status}")
        } else {
            self.hide(&format!("it answers {status}: {told}"))
        }
    }

    /// An error of the client, for people: without the URL's query, and without secrets.
    pub fn failed(&self, error: reqwest::Error) -> UpstreamError {
        let denied = error.is_redirect();
        let text = self.hide(&chain(&error.without_url()));
        if denied {
            UpstreamError::Nonsense(text)
        } else {
            UpstreamError::Unreachable(text)
        }
    }

    fn hide(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "[secret]");
        }
        text
    }
}

/// A proxy's URL; `http://` may be left out.
pub(super) fn proxy_url(text: &str) -> Option<Url> {
    let text = text.trim();
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url: Url = whole.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.has_host()).then_some(url)
}

/// What of a proxy's URL must not be repeated: all of it if it holds credentials, and those themselves.
fn secrets_of(text: &str, url: &Url) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(password) = url.password() {
        secrets.push(text.to_owned());
        secrets.push(format!("{}:{password}", url.username()));
        // One or two letters would be found everywhere.
        if password.len() > 2 {
            secrets.push(password.to_owned());
        }
    }
    secrets
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// It is longer than allowed.
    TooLong,
    /// It broke off, or came too slowly.
    Broke(UpstreamError),
}

impl From<UpstreamError> for ReadError {
    fn from(error: UpstreamError) -> Self {
        Self::Broke(error)
    }
}

/// Watches that something comes. Only the time spent waiting counts: whoever reads slowly is not the sender's fault.
#[derive(Debug)]
pub struct Pace {
    window: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Gives up what brings less than [`SLOWEST`] over `window`.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// The next piece of a body, or its end.
    pub async fn chunk(
        &mut self,
        http: &Http,
        response: &mut Response,
    ) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let began = Instant::now();
            let rest = self.window.saturating_sub(self.waited);
            let came = tokio::time::timeout(rest, response.chunk()).await;
            self.waited += began.elapsed();
            if let Ok(Ok(Some(chunk))) = &came {
                self.bytes += chunk.len() as u64;
            }
            if self.waited >= self.window {
                self.check()?;
                self.waited = Duration::ZERO;
                self.bytes = 0;
            }
            match came {
                Ok(Ok(chunk)) => return Ok(chunk),
                Ok(Err(error)) => return Err(http.failed(error)),
                Err(_) => {}
            }
        }
    }

    fn check(&self) -> Result<(), UpstreamError> {
        let least = (self.window.as_secs_f64() * SLOWEST as f64) as u64;
        if self.bytes >= least {
            return Ok(());
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "it is too slow: {} bytes came within {}, less than {SLOWEST} in a second",
            self.bytes,
            humantime::format_duration(self.window)
        );
        Err(UpstreamError::Unreachable(text))
    }
}

/// An error with its causes, which reqwest leaves out of `Display`.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;

    #[test]
    fn proxies_are_taken_with_and_without_a_scheme_and_never_repeated() {
        for good in [
            "http://proxy:3128",
            "proxy:3128",
            "http://user:hunter2@proxy:3128",
        ] {
            let url = proxy_url(good).unwrap();
            assert_eq!(url.host_str(), Some("proxy"), "{good}");
        }
        for wrong in ["", "socks5://proxy", "http://", "::"] {
            assert!(proxy_url(wrong).is_none(), "{wrong}");
        }
        let proxy = Proxy {
            enabled: true,
            http: Secret::new("http://user:hunter2@proxy:3128"),
            ..Proxy::default()
        };
        let through = |proxy: Proxy| {
            Http::upstream(&PatchSync {
                proxy,
                ..PatchSync::default()
            })
        };
        let http = through(proxy).unwrap().hiding("lpy_token");
        let told = http.hide("tunnel to http://user:hunter2@proxy:3128 with lpy_token and hunter2");
        assert!(
            !told.contains("hunter2") && !told.contains("lpy_token"),
            "{told}"
        );
        let wrong = Proxy {
            enabled: true,
            keys: "patch-sync.proxy",
            https: Secret::new("ftp://user:hunter2@proxy"),
            ..Proxy::default()
        };
        let error = through(wrong).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("patch-sync.proxy.https") && !text.contains("hunter2"),
            "{text}"
        );
    }

    #[test]
    fn what_brings_less_than_a_kibibyte_a_second_is_too_slow() {
        let mut pace = Pace::new(Duration::from_secs(30));
        pace.bytes = 30 << 10;
        assert!(pace.check().is_ok());
        pace.bytes -= 1;
        assert!(pace.check().unwrap_err().to_string().contains("too slow"));
    }
}
