//! The console's style, script and icon: in the program, under a name with their hash, so that they may be kept for ever.

use super::page::protect;
use crate::domain::Sha256;
use crate::service::Core;
use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::{Arc, LazyLock};

/// A file of the console.
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    tag: LazyLock<String>,
}

impl Asset {
    const fn new(
        name: &'static str,
        kind: &'static str,
        text: &'static str,
        tag: fn() -> String,
    ) -> Self {
        Self {
            name,
            kind,
            text,
            tag: LazyLock::new(tag),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> String {
        format!("/console/assets/{}-{}", *self.tag, self.name)
    }
}

const CSS: &str = include_str!("console.css");
const JS: &str = include_str!("console.js");
const SVG: &str = include_str!("icon.svg");

fn tag(text: &str) -> String {
    let mut tag = Sha256::of(text.as_bytes()).to_string();
    tag.truncate(12);
    tag
}

/// The style of every page.
pub(super) static STYLE: Asset =
    Asset::new("console.css", "text/css; charset=utf-8", CSS, || tag(CSS));
/// What keeps a page current.
pub(super) static SCRIPT: Asset =
    Asset::new("console.js", "text/javascript; charset=utf-8", JS, || {
        tag(JS)
    });

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/assets/{name}", get(asset))
        .layer(axum::middleware::map_response(protect_kept))
}

/// As of pages, but to be kept.
async fn protect_kept(response: Response) -> Response {
    let kept = response.headers().get(CACHE_CONTROL).cloned();
    let mut response = protect(response).await;
    if let Some(kept) = kept {
        response.headers_mut().insert(CACHE_CONTROL, kept);
    }
    response
}

async fn asset(Path(name): Path<String>) -> Response {
    if name == "icon.svg" {
        return served("image/svg+xml", "max-age=86400", SVG);
    }
    let known = [&STYLE, &SCRIPT];
    let found = known
        .into_iter()
        .find(|asset| asset.path().ends_with(&format!("/{name}")));
    match found {
        Some(asset) => served(
            asset.kind,
            "public, max-age=31536000, immutable",
            asset.text,
        ),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn served(kind: &'static str, kept: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    response
}
