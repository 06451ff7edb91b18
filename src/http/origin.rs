//! Where a request comes from, and how it reached us.

use crate::service::Core;
use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use std::net::SocketAddr;

/// The address of whoever asks.
pub(super) fn source(extensions: &Extensions) -> String {
    extensions.get::<ConnectInfo<SocketAddr>>().map_or_else(
        || "unknown".to_owned(),
        |ConnectInfo(peer)| peer.ip().to_canonical().to_string(),
    )
}

/// `https` if the caller speaks TLS, with this server or with a proxy before it that says so.
pub(super) fn scheme(core: &Core, headers: &HeaderMap) -> &'static str {
    let forwarded = headers.get("x-forwarded-proto");
    if core.config.server.tls.is_some() || forwarded.is_some_and(|proto| proto == "https") {
        "https"
    } else {
        "http"
    }
}
