//! The HTTP client of the admin API: one place that authenticates, bounds and reads answers.
//!
//! Invariants: credentials go to the given server only (no redirect to another scheme, host or port is followed);
//! every request has a time limit; an answer is read up to [`MAX_ANSWER`] bytes.

use super::error::{CliError, chain};
use super::tls::{self, TlsFiles};
use crate::domain::Secret;
use crate::wire::Problem;
use crate::wire::admin::{BASE, Limit, Page};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// The longest answer that is read.
pub const MAX_ANSWER: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How requests authenticate.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Not at all.
    None,
    /// With a token: of a session, of a service or of the identity provider.
    Bearer(Secret),
    /// With name and password.
    Basic(String, Secret),
}

/// A client for one server.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    credentials: Credentials,
    timeout: Duration,
}

/// Reads the server's URL: `http` or `https`, a host, perhaps a path; no user, query or fragment.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|e| format!("not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("http://HOST or https://HOST expected".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "credentials do not belong into the URL; use `livepatch-admin login`".to_owned(),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a URL without query and fragment expected".to_owned());
    }
    Ok(url)
}

/// Whether a URL stays on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    }
}

/// A path below the admin API, from segments that are encoded as needed.
fn under(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // `parse_url` lets only URLs with a host through; those have segments.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty()
            .extend(BASE.split('/').filter(|s| !s.is_empty()))
            .extend(segments);
    }
    url
}

impl Client {
    /// A client for the server at `base`.
    pub fn new(
        base: Url,
        files: &TlsFiles<'_>,
        timeout: Duration,
        credentials: Credentials,
    ) -> Result<Self, CliError> {
        let same_server = redirect::Policy::custom(|attempt| {
            let from = attempt.previous().last().map(Url::origin);
            if from.as_ref() == Some(&attempt.url().origin()) && attempt.previous().len() < 5 {
                attempt.follow()
            } else {
                attempt.error("a redirect to another server is not followed")
            }
        });
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("livepatch-admin/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(same_server);
        if is_loopback(&base) {
            builder = builder.no_proxy();
        }
        builder = files.apply(builder)?;
        let http = builder.build().map_err(|e| CliError::Usage(chain(&e)))?;
        Ok(Self {
            http,
            base,
            credentials,
            timeout,
        })
    }

    /// The server's URL.
    pub fn url(&self) -> &Url {
        &self.base
    }

    /// `GET`, answered with JSON.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &impl Serialize,
    ) -> Result<T, CliError> {
        let request = self.request(Method::GET, path)?.query(query);
        self.read(request).await
    }

    /// All of a list, read page by page.
    pub async fn all<T: DeserializeOwned, Q: Serialize>(
        &self,
        path: &[&str],
        mut query: impl FnMut(Option<String>, Limit) -> Q,
    ) -> Result<Page<T>, CliError> {
        let mut items = Vec::new();
        let mut cursor = None;
        loop {
            let page: Page<T> = self.get(path, &query(cursor, Limit::MAX)).await?;
            items.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(Page::whole(items));
            }
        }
    }

    /// A request with a JSON body, answered with JSON.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CliError> {
        let request = self.request(method, path)?.json(body);
        self.read(request).await
    }

    /// A request without a body, answered with JSON.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
    ) -> Result<T, CliError> {
        let request = self.request(method, path)?;
        self.read(request).await
    }

    /// A request without a body whose answer, if any, does not matter.
    pub async fn tell(&self, method: Method, path: &[&str]) -> Result<(), CliError> {
        let request = self.request(method, path)?;
        self.checked(request).await.map(drop)
    }

    /// A request with a JSON body whose answer, if any, does not matter.
    pub async fn tell_with(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<(), CliError> {
        let request = self.request(method, path)?.json(body);
        self.checked(request).await.map(drop)
    }

    /// A request to be completed by the caller; authenticated, with the time limit set.
    pub fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, CliError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = self.authorization()? {
            headers.insert(AUTHORIZATION, value);
        }
        Ok(self
            .http
            .request(method, under(&self.base, path))
            .timeout(self.timeout)
            .headers(headers))
    }

    /// The time limit of one request.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    fn authorization(&self) -> Result<Option<HeaderValue>, CliError> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let text = match &self.credentials {
            Credentials::None => return Ok(None),
            Credentials::Bearer(token) => format!("Bearer {}", token.expose()),
            Credentials::Basic(user, password) => format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("{user}:{}", password.expose()))
            ),
        };
        let mut value = HeaderValue::try_from(text)
            .map_err(|_| CliError::Usage("the token holds characters that no token has".into()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Sends, and reads the JSON answer.
    pub async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CliError> {
        let (what, response) = self.checked(request).await?;
        let body = self.body(&what, response).await?;
        serde_json::from_slice(&body).map_err(|e| CliError::Answer {
            what,
            why: e.to_string(),
        })
    }

    /// Sends a request whose answer has no body, and says whether what it asks for is there.
    pub async fn exists(&self, request: RequestBuilder) -> Result<bool, CliError> {
        let (what, response) = self.execute(request).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            status => Err(CliError::Problem(Box::new(problem(
                status,
                false,
                &[],
                &what,
            )))),
        }
    }

    async fn execute(&self, request: RequestBuilder) -> Result<(String, Response), CliError> {
        let request = request.build().map_err(|e| CliError::Usage(chain(&e)))?;
        let what = format!("{} {}", request.method(), request.url().path());
        let response = self
            .http
            .execute(request)
            .await
            .map_err(|e| self.transport(e))?;
        Ok((what, response))
    }

    async fn checked(&self, request: RequestBuilder) -> Result<(String, Response), CliError> {
        let (what, response) = self.execute(request).await?;
        if response.status().is_success() {
            return Ok((what, response));
        }
        let status = response.status();
        let is_json = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.contains("json"));
        let body = self.body(&what, response).await?;
        Err(CliError::Problem(Box::new(problem(
            status, is_json, &body, &what,
        ))))
    }

    async fn body(&self, what: &str, mut response: Response) -> Result<Vec<u8>, CliError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(e))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(CliError::Answer {
                    what: what.to_owned(),
                    why: "it is longer than 64 MiB".to_owned(),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn transport(&self, error: reqwest::Error) -> CliError {
        let url = self.base.as_str().trim_end_matches('/').to_owned();
        // The message names the server; the rest of the URL says nothing more.
        let error = error.without_url();
        let why = chain(&error);
        if error.is_timeout() {
            return CliError::Unreachable {
                url,
                why: format!("timed out ({why}); --timeout sets how long to wait"),
            };
        }
        tls::failed(&url, &why).unwrap_or(CliError::Unreachable { url, why })
    }
}

/// What a refusal says; a body that is not a problem (a proxy's page, say) is not shown beyond its first line.
fn problem(status: StatusCode, is_json: bool, body: &[u8], what: &str) -> Problem {
    if is_json && let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return problem;
    }
    let line = String::from_utf8_lossy(body);
    let line: String = line
        .lines()
        .map(str::trim)
        .find(|l| !l.is_empty())
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    let title = status.canonical_reason().unwrap_or("refused");
    let mut detail = format!("{what} was answered with {} {title}", status.as_u16());
    if !line.is_empty() {
        detail = format!("{detail}: {line}");
    }
    Problem::new(status.as_u16(), "unknown", title, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_segments_encoded() {
        for bad in [
            "",
            "host:80",
            "ftp://h",
            "http://u:p@h",
            "http://h/?x=1",
            "http://h/#x",
        ] {
            assert!(parse_url(bad).is_err(), "{bad:?} was accepted");
        }
        let url = under(&parse_url("http://h:1/sub/").unwrap(), &["tiers", "a/b ?"]);
        assert_eq!(url.as_str(), "http://h:1/sub/v1/admin/tiers/a%2Fb%20%3F");
        let url = under(&parse_url("https://h").unwrap(), &["tiers"]);
        assert_eq!(url.as_str(), "https://h/v1/admin/tiers");
        for (url, loopback) in [
            ("http://127.0.0.1:8080", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_loopback(&parse_url(url).unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn foreign_error_pages_are_cut_short() {
        let page = "\n<html>\u{7}\nmore";
        let problem = problem(StatusCode::BAD_GATEWAY, false, page.as_bytes(), "GET /x");
        assert_eq!(
            problem.detail,
            "GET /x was answered with 502 Bad Gateway: <html>"
        );
    }
}
