//! The answer to a download: status, headers and body, by RFC 9110 (ranges, conditions) and RFC 9530 (digests).
//!
//! The payload is verified before the first byte is sent, also when only a part of it is asked for. Answers may be
//! stored but must be revalidated (`no-cache`), so that a withdrawn patch stops at once and an unchanged one costs a 304.

use super::body::{Body, Piece, Source};
use super::cache::PatchCache;
use super::conditional::{Verdict, decide};
use super::content::Expect;
use super::error::BlobError;
use super::key::Key;
use super::range::Wanted;
use crate::domain::Sha256;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/x-bzip2");
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// What the catalog knows of a payload that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadRef<'a> {
    /// Canonical's file name, for the name under which a browser saves it.
    pub filename: &'a str,
    /// The digest of its bytes.
    pub sha256: Sha256,
    /// Its bytes.
    pub size: u64,
}

/// Where a payload's bytes come from.
enum Bytes_ {
    Memory(Bytes),
    File(Source),
}

/// Answers `GET` or `HEAD` for a payload that the caller has found and allowed; other methods get 405. `HEAD` and
/// conditions that hold are answered without touching the storage.
///
/// An error means that nothing was sent: [`BlobError::is_bad_object`] says whether the payload must be quarantined and
/// fetched again, [`BlobError::is_transient`] whether the client should try again. Only a file that is changed while it
/// is sent makes the body itself end in an error, after fewer bytes than announced.
pub async fn respond(
    method: &Method,
    headers: &HeaderMap,
    payload: &PayloadRef<'_>,
    cache: &PatchCache,
) -> Result<Response<Body>, Arc<BlobError>> {
    let tag = format!("\"{}\"", payload.sha256);
    if method != Method::GET && method != Method::HEAD {
        let mut response = Response::new(Body::default());
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        return Ok(response);
    }
    let verdict = decide(method, headers, &tag, payload.size);
    let wanted = match verdict {
        Verdict::Send(Wanted::Unsatisfiable) => {
            let mut response = answer(StatusCode::RANGE_NOT_SATISFIABLE, &tag, Body::default());
            let range = text(format!("bytes */{}", payload.size));
            response.headers_mut().insert(header::CONTENT_RANGE, range);
            return Ok(response);
        }
        Verdict::NotModified => {
            return Ok(answer(StatusCode::NOT_MODIFIED, &tag, Body::default()));
        }
        Verdict::Failed => {
            return Ok(answer(
                StatusCode::PRECONDITION_FAILED,
                &tag,
                Body::default(),
            ));
        }
        Verdict::Send(Wanted::Whole) => Vec::new(),
        Verdict::Send(Wanted::Parts(parts)) => parts,
    };
    let digest = base64::engine::general_purpose::STANDARD.encode(payload.sha256.0);
    let digest = text(format!("sha-256=:{digest}:"));
    let mut response = if method == Method::HEAD {
        answer(StatusCode::OK, &tag, Body::default())
    } else {
        let bytes = fetch(payload, cache).await?;
        match wanted.as_slice() {
            [] => {
                let whole = 0..payload.size;
                let body = bytes.body(VecDeque::from([bytes.piece(&whole)]));
                let mut response = answer(StatusCode::OK, &tag, body);
                let headers = response.headers_mut();
                headers.insert(CONTENT_DIGEST, digest.clone());
                response
            }
            [part] => {
                let body = bytes.body(VecDeque::from([bytes.piece(part)]));
                let mut response = answer(StatusCode::PARTIAL_CONTENT, &tag, body);
                let range = text(content_range(part, payload.size));
                response.headers_mut().insert(header::CONTENT_RANGE, range);
                response
            }
            parts => {
                let boundary = boundary(payload.sha256);
                let body = bytes.body(multipart(&bytes, parts, payload.size, &boundary));
                let mut response = answer(StatusCode::PARTIAL_CONTENT, &tag, body);
                let kind = text(format!("multipart/byteranges; boundary={boundary}"));
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
        }
    };
    let length = match *method {
        Method::HEAD => payload.size,
        _ => response.body().len(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(REPR_DIGEST, digest);
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if payload.filename.bytes().all(plain) {
        let name = format!("attachment; filename=\"{}\"", payload.filename);
        headers.insert(header::CONTENT_DISPOSITION, text(name));
    }
    headers.entry(header::CONTENT_TYPE).or_insert(CONTENT_TYPE);
    Ok(response)
}

/// The bytes from memory, or as a file where the cache would not keep them and the storage has files.
async fn fetch(payload: &PayloadRef<'_>, cache: &PatchCache) -> Result<Bytes_, Arc<BlobError>> {
    if !cache.keeps(payload.size) {
        let expect = Expect {
            sha256: payload.sha256,
            size: payload.size,
        };
        let key = Key::Payload(payload.sha256);
        if let Some(source) = cache.store().open_verified(&key, expect).await? {
            return Ok(Bytes_::File(source));
        }
    }
    let bytes = cache.get(payload.sha256, payload.size).await?;
    Ok(Bytes_::Memory(bytes))
}

impl Bytes_ {
    fn piece(&self, part: &Range<u64>) -> Piece {
        match self {
            Self::Memory(bytes) => {
                Piece::Bytes(bytes.slice(part.start as usize..part.end as usize))
            }
            Self::File(_) => Piece::File {
                from: part.start,
                to: part.end,
            },
        }
    }

    fn body(&self, mut pieces: VecDeque<Piece>) -> Body {
        match self {
            Self::File(source) => Body::pieces(pieces, Some(source.clone())),
            Self::Memory(_) => match (pieces.pop_front(), pieces.is_empty()) {
                (Some(Piece::Bytes(only)), true) => Body::of(only),
                (Some(first), _) => {
                    pieces.push_front(first);
                    Body::pieces(pieces, None)
                }
                (None, _) => Body::default(),
            },
        }
    }
}

/// Several parts in one body (RFC 9110, section 14.6).
fn multipart(bytes: &Bytes_, parts: &[Range<u64>], size: u64, boundary: &str) -> VecDeque<Piece> {
    let mut pieces = VecDeque::with_capacity(parts.len() * 2 + 1);
    let mut lead = String::new();
    for part in parts {
        let range = content_range(part, size);
        // Writing to a String cannot fail.
        let _ = write!(
            lead,
            "--{boundary}\r\nContent-Type: application/x-bzip2\r\nContent-Range: {range}\r\n\r\n"
        );
        pieces.push_back(Piece::Bytes(std::mem::take(&mut lead).into()));
        pieces.push_back(bytes.piece(part));
        lead.push_str("\r\n");
    }
    let _ = write!(lead, "--{boundary}--\r\n");
    pieces.push_back(Piece::Bytes(lead.into()));
    pieces
}

/// A line that cannot stand in the payload: it holds half of the payload's own digest.
fn boundary(sha256: Sha256) -> String {
    format!("livepatch-{}", hex::encode(&sha256.0[..16]))
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

/// An answer with the headers that all of them carry.
fn answer(status: StatusCode, tag: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(8);
    headers.insert(header::ETAG, text(tag.to_owned()));
    let no_cache = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, no_cache);
    let bytes = HeaderValue::from_static("bytes");
    headers.insert(header::ACCEPT_RANGES, bytes);
    response
}

/// A header value of text made here, which is plain ASCII.
fn text(value: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(value))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}
