//! The protocol as a client speaks it: one method for each request, typed both ways.
//!
//! Invariants: requests with a token never follow a redirect; answers are read up to a limit; a download never writes
//! more than the announced size, and its digest is compared before the caller sees success. A download may be
//! redirected to another host, since the digest came from the server, but the token is not sent there.

use super::error::{Error, NetworkFailure, causes};
use super::tls::Tls;
use crate::domain::{MachineId, Sha256};
use crate::wire::{
    InfoAnswer, LegacyError, PatchOffer, PingReport, Problem, RegisterAnswer, StatusDocument,
    UpdatesAnswer,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// The most bytes read of one answer.
const MAX_ANSWER: usize = 1 << 20;
/// The most characters of a server's words shown to a person.
const MAX_DETAIL: usize = 300;
const CONNECT: Duration = Duration::from_secs(10);
const REQUEST: Duration = Duration::from_secs(30);
const DOWNLOAD: Duration = Duration::from_mins(30);

/// How to reach a server.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// Address, `http` or `https`, with or without a path.
    pub server: String,
    /// Whom to believe, and what to show.
    pub tls: Tls,
    /// Refuse to download patches without TLS.
    pub tls_patch_download: bool,
}

/// One server. Cloning shares the connections.
#[derive(Debug, Clone)]
pub struct ServerApi {
    base: Url,
    requests: Client,
    downloads: Client,
    tls_patch_download: bool,
}

impl ServerApi {
    /// Prepares to talk to a server; nothing is sent yet.
    pub fn new(options: &ConnectOptions) -> Result<Self, Error> {
        let base = parse_base(&options.server)?;
        let tls_only = options.tls_patch_download;
        let build = |policy: redirect::Policy, total: Duration| {
            let builder = Client::builder()
                .user_agent(concat!("livepatch-client/", env!("CARGO_PKG_VERSION")))
                .redirect(policy)
                .connect_timeout(CONNECT)
                .read_timeout(REQUEST)
                .timeout(total);
            options
                .tls
                .apply(builder)
                .build()
                .map_err(|e| Error::Local(format!("cannot prepare TLS: {}", causes(&e))))
        };
        Ok(Self {
            base,
            requests: build(redirect::Policy::none(), REQUEST)?,
            downloads: build(download_redirects(tls_only), DOWNLOAD)?,
            tls_patch_download: tls_only,
        })
    }

    /// `GET /v1/client/{machine-id}/info`: what the server knows of a machine, and what a token allows.
    pub async fn info(&self, machine: MachineId, token: &str) -> Result<InfoAnswer, Error> {
        const WHAT: &str = "asking about this machine";
        let request = self.request(Method::GET, &format!("v1/client/{machine}/info"))?;
        let response = send(WHAT, request.bearer_auth(token)).await?;
        read(WHAT, response).await
    }

    /// `POST /v1/client/{machine-id}`: registers. The token stands in the header and, if the status has one, there.
    pub async fn register(
        &self,
        machine: MachineId,
        token: &str,
        status: &StatusDocument,
    ) -> Result<RegisterAnswer, Error> {
        const WHAT: &str = "registering";
        let request = self.request(Method::POST, &format!("v1/client/{machine}"))?;
        let response = send(WHAT, request.bearer_auth(token).json(status)).await?;
        read(WHAT, response).await
    }

    /// `DELETE /v1/client/{machine-id}`: the machine leaves.
    pub async fn deregister(&self, machine: MachineId, token: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &format!("v1/client/{machine}"))?;
        send("deregistering", request.bearer_auth(token))
            .await
            .map(|_| ())
    }

    /// `POST /v1/client/{machine-id}/updates`: reports and asks. `None` if the server has nothing to say (204).
    pub async fn updates(
        &self,
        machine: MachineId,
        token: &str,
        status: &StatusDocument,
    ) -> Result<Option<UpdatesAnswer>, Error> {
        const WHAT: &str = "checking for patches";
        let request = self.request(Method::POST, &format!("v1/client/{machine}/updates"))?;
        let response = send(WHAT, request.bearer_auth(token).json(status)).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        read(WHAT, response).await.map(Some)
    }

    /// `POST /v1/client/{machine-id}/pings`.
    pub async fn ping(
        &self,
        machine: MachineId,
        token: &str,
        ping: &PingReport<'_>,
    ) -> Result<(), Error> {
        let request = self.request(Method::POST, &format!("v1/client/{machine}/pings"))?;
        send("sending a ping", request.bearer_auth(token).json(ping))
            .await
            .map(|_| ())
    }

    /// Fetches what was offered into `into`: at most the announced size, and success only if size and digest agree.
    pub async fn download(
        &self,
        token: &str,
        offer: &PatchOffer,
        mut into: impl AsyncWrite + Unpin,
    ) -> Result<(), Error> {
        const WHAT: &str = "downloading a patch";
        let url = self.base.join(&offer.url).map_err(|e| Error::Answer {
            what: WHAT,
            url: self.base.to_string(),
            why: format!("the URL of {} is not valid: {e}", offer.filename),
        })?;
        if self.tls_patch_download && url.scheme() != "https" {
            return Err(Error::Verification(format!(
                "{} is offered at {url}, which is not TLS, and --tls-patch-download is set",
                offer.filename
            )));
        }
        let own = url.origin() == self.base.origin();
        let mut request = self.downloads.get(url);
        if own {
            request = request.bearer_auth(token);
        }
        let mut response = send(WHAT, request).await?;
        let url = shown(response.url());
        let differs =
            |what: String| Error::Verification(format!("{} from {url} {what}", offer.filename));
        if let Some(length) = response
            .content_length()
            .filter(|length| *length != offer.size)
        {
            return Err(differs(format!(
                "has {length} bytes, but {} were announced",
                offer.size
            )));
        }
        let mut hasher = openssl::sha::Sha256::new();
        let mut received = 0u64;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|e| network(WHAT, &url, &e))?
        {
            received += chunk.len() as u64;
            if received > offer.size {
                return Err(differs(format!(
                    "is longer than the {} bytes announced",
                    offer.size
                )));
            }
            hasher.update(&chunk);
            into.write_all(&chunk)
                .await
                .map_err(|e| write_failed(&offer.filename, &e))?;
        }
        into.flush()
            .await
            .map_err(|e| write_failed(&offer.filename, &e))?;
        if received != offer.size {
            return Err(differs(format!(
                "ended after {received} of {} bytes",
                offer.size
            )));
        }
        let digest = Sha256(hasher.finish());
        if digest != offer.sha256 {
            return Err(differs(format!(
                "has SHA-256 {digest}, but {} was announced",
                offer.sha256
            )));
        }
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Error> {
        let url = self
            .base
            .join(path)
            .map_err(|e| Error::Usage(format!("{} is not usable as a server: {e}", self.base)))?;
        Ok(self.requests.request(method, url))
    }
}

/// Reads the server's address; the path always ends with a slash, so that paths are added to it.
fn parse_base(server: &str) -> Result<Url, Error> {
    let wrong = |why: &str| {
        Error::Usage(format!(
            "{server:?} is not a server address: {why}, e.g. https://livepatch.example.com"
        ))
    };
    let mut url: Url = server.parse().map_err(|_| wrong("a URL is expected"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong(
            "it must begin with http:// or https:// and name a host",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::Usage(
            "the server address holds a user name or password; give the token as TOKEN".to_owned(),
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must have neither ? nor #"));
    }
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Downloads may go elsewhere, a few times, but never from TLS to none.
fn download_redirects(tls_only: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let secure_before = attempt
            .previous()
            .last()
            .is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > 5 {
            attempt.error("more than five redirects")
        } else if attempt.url().scheme() != "https" && (tls_only || secure_before) {
            attempt.error("redirected to an address without TLS")
        } else {
            attempt.follow()
        }
    })
}

/// Sends, and turns every status but success into an error.
async fn send(what: &'static str, request: RequestBuilder) -> Result<Response, Error> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(e) => {
            let url = e.url().map_or_else(|| "the server".to_owned(), shown);
            return Err(network(what, &url, &e));
        }
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let url = shown(response.url());
    let header = |name: http::HeaderName| {
        response
            .headers()
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let retry_after = header(http::header::RETRY_AFTER)
        .and_then(|v| v.parse().ok())
        .map(Duration::from_secs);
    let location = header(http::header::LOCATION);
    let detail = match location {
        Some(to) if status.is_redirection() => {
            format!(
                "and points to {}; if that is the server, give it with --server",
                cut(&to)
            )
        }
        _ => detail(&body(response).await.unwrap_or_default()),
    };
    let status = status.as_u16();
    Err(if matches!(status, 401 | 403) {
        Error::Refused {
            what,
            url,
            status,
            detail,
        }
    } else {
        Error::Server {
            what,
            url,
            status,
            detail,
            retry_after,
        }
    })
}

/// Reads a JSON answer within the limit.
async fn read<T: DeserializeOwned>(what: &'static str, response: Response) -> Result<T, Error> {
    let url = shown(response.url());
    match body(response).await {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            // serde_json quotes what it read; a token could stand there.
            let why = format!(
                "not the JSON expected (line {}, column {})",
                e.line(),
                e.column()
            );
            Error::Answer { what, url, why }
        }),
        Err(why) => Err(Error::Answer { what, url, why }),
    }
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| causes(&e))? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("it is longer than {MAX_ANSWER} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The server's words: a problem's detail, the old API's error, or the text itself.
fn detail(body: &[u8]) -> String {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return cut(&problem.detail);
    }
    if let Ok(legacy) = serde_json::from_slice::<LegacyError>(body) {
        return cut(&legacy.error);
    }
    cut(&String::from_utf8_lossy(body))
}

/// Shortens foreign text and takes control characters out of it.
fn cut(text: &str) -> String {
    text.trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_DETAIL)
        .collect()
}

/// A URL fit to be shown: without query, where presigned downloads carry their signature.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn network(what: &'static str, url: &str, error: &reqwest::Error) -> Error {
    let why = causes(error);
    Error::Network {
        what,
        url: url.to_owned(),
        why,
        kind: failure(error),
    }
}

fn failure(error: &reqwest::Error) -> NetworkFailure {
    if error.is_timeout() {
        return NetworkFailure::Timeout;
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return NetworkFailure::Refused;
        }
        source = cause.source();
    }
    NetworkFailure::Broken
}

fn write_failed(name: &str, error: &std::io::Error) -> Error {
    Error::Local(format!(
        "cannot write {name} to the state directory: {error}; is the disk full?"
    ))
}
