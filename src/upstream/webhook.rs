//! Sending to webhooks: one request, answered or not within its time.
//!
//! Invariants: no redirect is followed; an address that is not public is not connected to unless the configuration allows it,
//! also if a name leads to it; nothing of the answer but its status is looked at; no error repeats the URL, which may hold what
//! only the receiver and administrators know. Through a proxy (`patch-sync.proxy.*`) it is the proxy that resolves names, and what
//! it reaches is its own business; addresses written out are checked all the same.

use super::UpstreamError;
use super::address::{Guard, NOT_PUBLIC, is_public};
use super::http::{Http, proxy_url};
use super::tls::TlsFiles;
use crate::config::{Proxy, Webhooks};
use reqwest::header::CONTENT_TYPE;
use reqwest::{StatusCode, Url, redirect};
use std::net::IpAddr;

/// The longest URL, in bytes.
const MAX_URL: usize = 2000;

/// Sends to webhooks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    http: Http,
    guard: Guard,
}

/// Headers and body of a delivery.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// `webhook-id`
    pub id: &'a str,
    /// `webhook-timestamp`, in unix seconds.
    pub timestamp: i64,
    /// `webhook-signature`
    pub signature: &'a str,
    /// JSON.
    pub body: &'a str,
}

/// Why a delivery was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Trying again may help.
    #[error("{0}")]
    Failed(String),
    /// The receiver says that it is there no more.
    #[error("{0}")]
    Gone(String),
}

impl Sender {
    /// As configured; fails if the certificates or the proxy cannot be used.
    pub fn new(config: &Webhooks, proxy: &Proxy) -> Result<Self, UpstreamError> {
        let proxies = [&proxy.http, &proxy.https];
        let except = proxies
            .into_iter()
            .filter(|_| proxy.enabled)
            .filter_map(|secret| proxy_url(secret.expose())?.host_str().map(str::to_owned));
        let guard = Guard {
            private: config.allow_private_addresses,
            except: except.collect(),
        };
        let files = TlsFiles::authority("webhooks.ca", config.ca.as_deref());
        let http = Http::with(&files, proxy, config.timeout, |client| {
            client
                .redirect(redirect::Policy::none())
                .dns_resolver(std::sync::Arc::new(guard.clone()))
        })?;
        Ok(Self { http, guard })
    }

    /// Whether this can be the URL of a webhook; says what is wrong with it.
    pub fn check(&self, text: &str) -> Result<Url, String> {
        const EXPECTED: &str = "a URL such as https://hooks.example.com/livepatch is expected";
        if text.len() > MAX_URL {
            return Err(format!("it is longer than {MAX_URL} bytes"));
        }
        let url: Url = text
            .parse()
            .map_err(|_| format!("it is no URL; {EXPECTED}"))?;
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return Err(format!("it names no host; {EXPECTED}"));
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("it is neither https nor http; {EXPECTED}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "it holds a name or a password, which are not sent; let the receiver check the \
                 signature, or put what it asks for into the path"
                    .to_owned(),
            );
        }
        if url.fragment().is_some() {
            return Err("it holds a `#`, and what follows is never sent; leave it out".to_owned());
        }
        if self.guard.private {
            return Ok(url);
        }
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>()
            && !is_public(address)
        {
            return Err(format!("it leads to {address}, {NOT_PUBLIC}"));
        }
        if self.guard.except.iter().any(|name| name == host) {
            return Err(format!("it leads to the proxy's own host, {NOT_PUBLIC}"));
        }
        Ok(url)
    }

    /// Sends once.
    pub async fn send(&self, url: &str, message: Message<'_>) -> Result<(), SendError> {
        let url = self
            .check(url)
            .map_err(|why| SendError::Failed(format!("the URL is not used: {why}")))?;
        let request = self
            .http
            .client()
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", message.timestamp)
            .header("webhook-signature", message.signature)
            .body(message.body.to_owned());
        let answer = self.http.send(request).await;
        let answer = answer.map_err(|error| SendError::Failed(error.to_string()))?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status if status.is_redirection() => Err(SendError::Failed(format!(
                "it answers {status}; redirects are not followed, the webhook's own URL is needed"
            ))),
            StatusCode::GONE => Err(SendError::Gone(format!(
                "it answers {}: the receiver wants nothing more",
                StatusCode::GONE
            ))),
            status => Err(SendError::Failed(format!("it answers {status}"))),
        }
    }
}

/// Scheme, host and port of a webhook's URL: what of it everybody may know.
pub fn origin(url: &str) -> String {
    url.parse::<Url>()
        .map(|url| url.origin().ascii_serialization())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Secret;

    fn sender(private: bool, proxy: &Proxy) -> Sender {
        let config = Webhooks {
            allow_private_addresses: private,
            ..Webhooks::default()
        };
        Sender::new(&config, proxy).unwrap()
    }

    #[test]
    fn addresses_written_out_are_checked_in_every_form() {
        let strict = sender(false, &Proxy::default());
        let free = sender(true, &Proxy::default());
        for private in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://[::1]:8080/",
            "http://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
        ] {
            let why = strict.check(private).unwrap_err();
            assert!(
                why.contains("webhooks.allow-private-addresses"),
                "{private}: {why}"
            );
            assert!(free.check(private).is_ok(), "{private}");
        }
        for public in ["https://1.1.1.1/x", "https://hooks.example/a?b=c"] {
            assert!(strict.check(public).is_ok(), "{public}");
        }
        for (wrong, says) in [
            ("", "no URL"),
            ("hooks.example/a", "no URL"),
            ("ftp://hooks.example/", "neither"),
            ("https://user:pw@hooks.example/", "password"),
            ("https://hooks.example/#a", "#"),
            ("mailto:a@hooks.example", "no host"),
        ] {
            let why = free.check(wrong).unwrap_err();
            assert!(why.contains(says), "{wrong}: {why}");
        }
        assert!(
            free.check(&format!("https://h/{}", "a".repeat(2000)))
                .is_err()
        );
    }

    #[test]
    fn what_follows_the_host_is_not_for_everybody() {
        for (url, shown) in [
            (
                "https://hooks.example/services/T0/B0/key?token=x",
                "https://hooks.example",
            ),
            ("http://[::1]:8080/a", "http://[::1]:8080"),
        ] {
            assert_eq!(origin(url), shown);
        }
    }

    #[test]
    fn the_proxys_own_host_is_no_receiver() {
        let proxy = Proxy {
            enabled: true,
            http: Secret::new("http://proxy.example:3128"),
            ..Proxy::default()
        };
        let why = sender(false, &proxy).check("http://proxy.example/");
        assert!(why.unwrap_err().contains("proxy's own host"));
        assert!(sender(true, &proxy).check("http://proxy.example/").is_ok());
        let off = Proxy {
            enabled: false,
            ..proxy
        };
        assert!(sender(false, &off).check("http://proxy.example/").is_ok());
    }
}
