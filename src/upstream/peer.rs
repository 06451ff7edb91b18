//! The driver for another server of this kind: its signed index, by difference where that is known, and its payloads,
//! resumed where they broke off.
//!
//! Nothing it brings is believed for where it comes from: a head is believed by its signature, a state by the head's digest, a
//! payload by the state's. What comes is bounded by what was announced.

use super::http::{Http, Pace, ReadError};
use super::{Body, Listing, Offered, Question, Upstream, UpstreamError};
use crate::bundle::BundleName;
use crate::config::PatchSync;
use crate::domain::{PublicKey, Secret, Sha256};
use crate::index::{self, MAX_HEAD, Refusal, State};
use crate::wire::sync::{DIFFERENCE, Head, PeerReport, SignedHead, WHOLE};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, IF_MATCH, RANGE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use std::io;
use std::time::Duration;

/// How often an index is asked for that changes while it is read.
const LOOKS: usize = 4;
/// How often a request is tried that did not get an answer.
const TRIES: u32 = 3;
/// How often a payload is asked for in all, counting where it broke off.
const PAYLOAD_TRIES: u32 = 10;
/// The pause before the second try; it doubles with each.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Another server.
#[derive(Debug, Clone)]
pub struct Peer {
    http: Http,
    base: Url,
    token: Secret,
    trusted: Vec<PublicKey>,
}

impl Peer {
    /// Reads `patch-sync.*`. `trusted` are the keys that are good besides `patch-sync.upstream-key`; if there are none at all, the
    /// key of the first contact is taken.
    pub fn new(config: &PatchSync, trusted: Vec<PublicKey>) -> Result<Self, UpstreamError> {
        let wrong = |key: &str, why: String| UpstreamError::Local(format!("{key}: {why}"));
        let base: Url = config
            .upstream_url
            .parse()
            .map_err(|e| wrong("patch-sync.upstream-url", format!("not a URL: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            let why = "http://HOST or https://HOST expected".to_owned();
            return Err(wrong("patch-sync.upstream-url", why));
        }
        let mut trusted = trusted;
        if !config.upstream_key.is_empty() {
            let key = config
                .upstream_key
                .parse()
                .map_err(|e| wrong("patch-sync.upstream-key", format!("{e}")))?;
            trusted.push(key);
        }
        Ok(Self {
            http: Http::upstream(config)?.hiding(config.token.expose()),
            base,
            token: config.token.clone(),
            trusted,
        })
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        // `new` lets only URLs with a host through; those have segments.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "sync"]).extend(segments);
        }
        url
    }

    fn get(&self, url: Url) -> RequestBuilder {
        let request = self.http.client().get(url);
        request.bearer_auth(self.token.expose())
    }

    /// Says which server it is about.
    fn about(&self, error: UpstreamError) -> UpstreamError {
        let of = |text: String| format!("{}: {text}", self.base.as_str().trim_end_matches('/'));
        match error {
            UpstreamError::Unreachable(text) => UpstreamError::Unreachable(of(text)),
            UpstreamError::Denied(text) => UpstreamError::Denied(of(text)),
            UpstreamError::Nonsense(text) => UpstreamError::Nonsense(of(text)),
            other => other,
        }
    }

    /// Sends a request until it is answered, within bounds.
    async fn ask(&self, request: impl Fn() -> RequestBuilder) -> Result<Response, UpstreamError> {
        let mut tried = 1;
        loop {
            let error = match self.http.send(request()).await {
                Ok(response) if is_busy(response.status()) => {
                    UpstreamError::Unreachable(self.http.explained(response).await)
                }
                Ok(response) => return Ok(response),
                Err(error @ UpstreamError::Unreachable(_)) => error,
                Err(error) => return Err(error),
            };
            if tried == TRIES {
                return Err(error);
            }
            pause(tried).await;
            tried += 1;
        }
    }

    /// An answer that is not the one hoped for.
    async fn refusal(&self, response: Response) -> UpstreamError {
        let status = response.status();
        let told = self.http.explained(response).await;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                UpstreamError::Denied(format!("{told} (patch-sync.token)"))
            }
            StatusCode::NOT_FOUND => UpstreamError::Denied(told),
            status if status.is_server_error() => UpstreamError::Unreachable(told),
            _ => UpstreamError::Nonsense(told),
        }
    }

    async fn head(&self) -> Result<SignedHead, UpstreamError> {
        let response = self.ask(|| self.get(self.url(&["head"]))).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let body = match self.http.read(response, MAX_HEAD as u64).await {
            Ok(body) => body,
            Err(ReadError::TooLong) => return Err(Refusal::TooLong(MAX_HEAD as u64 + 1).into()),
            Err(ReadError::Broke(error)) => return Err(error),
        };
        serde_json::from_slice(&body)
            .map_err(|e| Refusal::Unreadable(format!("its head is not as expected: {e}")).into())
    }

    /// The state that a head was signed for; `None` if it changed meanwhile.
    async fn state(
        &self,
        head: &Head,
        known: Option<(u64, &State)>,
    ) -> Result<Option<State>, UpstreamError> {
        let mut url = self.url(&["state"]);
        url.query_pairs_mut()
            .append_pair("version", &head.version.to_string());
        if let Some((since, _)) = known {
            url.query_pairs_mut()
                .append_pair("since", &since.to_string());
        }
        let response = self.ask(|| self.get(url.clone())).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::CONFLICT => return Ok(None),
            _ => return Err(self.refusal(response).await),
        }
        let form = response.headers().get(CONTENT_TYPE).cloned();
        let form = form.as_ref().map_or(&b""[..], |form| form.as_bytes());
        let (most, old) = if form == WHOLE.as_bytes() {
            (head.bytes, None)
        } else if form == DIFFERENCE.as_bytes()
            && let Some((_, old)) = known
        {
            // A difference that is longer than what it leads to is worth nothing.
            (head.bytes, Some(old))
        } else {
            let why = "it sends the index in a form that is not known here".to_owned();
            return Err(UpstreamError::Nonsense(why));
        };
        let body = match self.http.read(response, most).await {
            Ok(body) => body,
            Err(ReadError::TooLong) => {
                let why = format!("more than the {most} bytes came that the head announces");
                return Err(Refusal::OtherState(why).into());
            }
            Err(ReadError::Broke(error)) => return Err(error),
        };
        let head = head.clone();
        let old = old.cloned();
        tokio::task::spawn_blocking(move || read_state(&head, body, old.as_ref()))
            .await
            .map_err(|e| UpstreamError::Local(format!("reading the index failed: {e}")))?
            .map(Some)
            .map_err(Into::into)
    }

    async fn listing(&self, question: Question<'_>) -> Result<Listing, UpstreamError> {
        let mut trusted = self.trusted.clone();
        trusted.extend(question.known.iter().flat_map(|(known, _)| &known.keys));
        let known = question.known.map(|(known, _)| known);
        for _ in 0..LOOKS {
            let sealed = self.head().await?;
            let head = index::accept(&sealed, &trusted, known, question.now)?;
            let old = question
                .known
                .filter(|(known, state)| state.digest() == known.digest);
            if let Some((known, state)) = old
                && known.digest == head.digest
            {
                return Ok(listed(head, state.clone()));
            }
            let since = old.map(|(known, state)| (known.version, state));
            let state = match self.state(&head, since).await {
                // The difference was of something else than what is here; the whole settles it.
                Err(UpstreamError::Index(Refusal::OtherState(_))) if since.is_some() => {
                    self.state(&head, None).await?
                }
                result => result?,
            };
            if let Some(state) = state {
                return Ok(listed(head, state));
            }
        }
        Err(UpstreamError::Unreachable(
            "its index changes faster than it can be read".to_owned(),
        ))
    }

    /// Tells the other server how things stand here.
    pub async fn report(&self, report: &PeerReport) -> Result<(), UpstreamError> {
        let url = self.url(&["report"]);
        let request = || {
            let request = self.http.client().post(url.clone());
            request.bearer_auth(self.token.expose()).json(report)
        };
        let sent = async {
            let response = self.ask(request).await?;
            if response.status().is_success() {
                Ok(())
            } else {
                Err(self.refusal(response).await)
            }
        };
        sent.await.map_err(|error| self.about(error))
    }
}

/// Whether trying again soon is right.
fn is_busy(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT
    )
}

async fn pause(tried: u32) {
    let pause = PAUSE.saturating_mul(1 << (tried - 1).min(10));
    tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
}

fn read_state(head: &Head, body: Vec<u8>, old: Option<&State>) -> Result<State, Refusal> {
    let other = |why: String| Refusal::OtherState(why);
    let text = String::from_utf8(body).map_err(|e| other(e.to_string()))?;
    let state = match old {
        None => {
            let digest = Sha256::of(text.as_bytes());
            if digest != head.digest {
                return Err(other(format!(
                    "their SHA-256 is {digest}, {} was signed",
                    head.digest
                )));
            }
            State::parse(&text)
        }
        Some(old) => old.apply(&text),
    };
    let state = state.map_err(|e| other(e.to_string()))?;
    let (digest, bytes) = (state.digest(), state.bytes());
    if digest != head.digest || bytes != head.bytes {
        return Err(other(format!(
            "they have {bytes} bytes and SHA-256 {digest}, {} bytes and {} were signed",
            head.bytes, head.digest
        )));
    }
    let payloads = state.payloads().count() as u64;
    if payloads != head.payloads {
        return Err(other(format!(
            "they hold {payloads} payloads, {} were signed",
            head.payloads
        )));
    }
    Ok(state)
}

fn listed(head: Head, state: State) -> Listing {
    let mut payloads = Vec::new();
    let mut unreadable = Vec::new();
    for payload in state.payloads() {
        match payload.filename.parse::<BundleName>() {
            Ok(name) => payloads.push(Offered {
                name,
                sha256: Some(payload.sha256),
                size: Some(payload.size),
            }),
            Err(error) => unreadable.push((payload.filename, error.to_string())),
        }
    }
    Listing {
        payloads,
        unreadable,
        index: Some((head, state)),
    }
}

impl Upstream for Peer {
    fn name(&self) -> String {
        format!("peer {}", self.base.as_str().trim_end_matches('/'))
    }

    fn list<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Listing, UpstreamError>> {
        Box::pin(async move {
            let listing = self.listing(question).await;
            listing.map_err(|error| self.about(error))
        })
    }

    fn open<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, Result<Body, UpstreamError>> {
        Box::pin(async move {
            let (Some(sha256), Some(size)) = (payload.sha256, payload.size) else {
                return Err(UpstreamError::Local(format!(
                    "{} is not from a signed index",
                    payload.name
                )));
            };
            let mut fetch = Fetch {
                peer: self.clone(),
                url: self.url(&["payloads", &payload.name.to_string()]),
                tag: format!("\"{sha256}\""),
                name: payload.name.to_string(),
                at: 0,
                size,
                tried: 0,
                pace: Pace::new(self.http.patience()),
                response: None,
            };
            fetch.begin().await.map_err(|error| self.about(error))?;
            let body = stream::try_unfold(fetch, |mut fetch| async move {
                match fetch.next().await {
                    Ok(Some(chunk)) => Ok(Some((chunk, fetch))),
                    Ok(None) => Ok(None),
                    Err(error) => {
                        let error = fetch.peer.about(error);
                        Err(io::Error::other(error.to_string()))
                    }
                }
            });
            Ok(Box::pin(body) as Body)
        })
    }
}

/// A payload on its way.
struct Fetch {
    peer: Peer,
    url: Url,
    tag: String,
    name: String,
    at: u64,
    size: u64,
    tried: u32,
    pace: Pace,
    response: Option<Response>,
}

impl Fetch {
    /// Asks for what is missing, until an answer begins.
    async fn begin(&mut self) -> Result<(), UpstreamError> {
        loop {
            self.tried += 1;
            let first = self.tried == 1;
            let error = match self.request().await {
                Ok(response) => {
                    self.response = Some(response);
                    return Ok(());
                }
                Err(error @ UpstreamError::Unreachable(_)) => error,
                Err(error) => return Err(error),
            };
            // A server that is not there at all is not waited for at every payload.
            let most = if self.at == 0 { TRIES } else { PAYLOAD_TRIES };
            if self.tried >= most {
                return Err(if first { error } else { self.broke(error) });
            }
            pause(self.tried).await;
        }
    }

    fn broke(&self, error: UpstreamError) -> UpstreamError {
        match error {
            UpstreamError::Unreachable(text) => UpstreamError::Unreachable(format!(
                "{} came only to {} of {} bytes in {} tries: {text}",
                self.name, self.at, self.size, self.tried
            )),
            other => other,
        }
    }

    async fn request(&self) -> Result<Response, UpstreamError> {
        let mut request = self.peer.get(self.url.clone()).header(IF_MATCH, &self.tag);
        if self.at > 0 {
            request = request.header(RANGE, format!("bytes={}-", self.at));
        }
        let response = self.peer.http.send(request).await?;
        let nonsense = |why: String| UpstreamError::Nonsense(format!("{}: {why}", self.name));
        match (response.status(), self.at) {
            (StatusCode::OK, 0) => {}
            (StatusCode::PARTIAL_CONTENT, 1..) => {
                let range = header(response.headers(), CONTENT_RANGE.as_str());
                let expected = format!("bytes {}-{}/{}", self.at, self.size - 1, self.size);
                if range != expected {
                    return Err(nonsense(format!(
                        "asked to go on, it sends {range:?} instead of {expected:?}"
                    )));
                }
            }
            (StatusCode::OK, _) => {
                return Err(nonsense(
                    "asked to go on where it broke off, it begins anew".to_owned(),
                ));
            }
            (StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE, _) => {
                return Err(nonsense(
                    "it has another content than its index says".to_owned(),
                ));
            }
            _ => return Err(self.peer.refusal(response).await),
        }
        let length = header(response.headers(), CONTENT_LENGTH.as_str());
        let rest = self.size - self.at;
        if !length.is_empty() && length != rest.to_string() {
            return Err(nonsense(format!(
                "it announces {length} bytes where its index says {rest}"
            )));
        }
        Ok(response)
    }

    /// The next piece; asks again for what is missing where it breaks off.
    async fn next(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            let Some(response) = &mut self.response else {
                return Ok(None);
            };
            match self.pace.chunk(&self.peer.http, response).await {
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.at += chunk.len() as u64;
                    if self.at > self.size {
                        return Err(UpstreamError::Nonsense(format!(
                            "{}: more than the {} bytes came that its index says (endless data)",
                            self.name, self.size
                        )));
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.at == self.size => {
                    self.response = None;
                    return Ok(None);
                }
                Ok(None) => {
                    let early = UpstreamError::Unreachable("it ended early".to_owned());
                    self.again(early).await?;
                }
                Err(error) => self.again(error).await?,
            }
        }
    }

    async fn again(&mut self, error: UpstreamError) -> Result<(), UpstreamError> {
        self.response = None;
        if self.at == self.size {
            // All of it is here; how the connection ended does not matter.
            return Ok(());
        }
        if self.tried >= PAYLOAD_TRIES {
            return Err(self.broke(error));
        }
        tracing::info!(payload = self.name, at = self.at, %error, "a payload broke off and is resumed");
        pause(self.tried).await;
        self.pace = Pace::new(self.peer.http.patience());
        self.begin().await
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}
