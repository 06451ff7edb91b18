//! `server.tls.*` and the addresses of the listeners: their types, and what cannot be together.

use super::checks::Checker;
use super::error::NoticeLevel;
use super::model::{Config, Server};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// `server.tls.*`: what the server shows its clients, and what it asks of them. With it every listener speaks TLS only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `server.tls.certificate`: PEM file with the server's certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// `server.tls.key`: PEM file with its private key.
    pub key: PathBuf,
    /// `server.tls.client-ca`: PEM file with the authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// `server.tls.client-auth`: what is asked of clients.
    pub client_auth: ClientAuth,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// Who shows one must show a good one.
    Optional,
    /// Who shows none is refused.
    Required,
}

impl ClientAuth {
    /// By the word of the configuration; `auto`: required as soon as there is an authority to check with.
    pub(super) fn choose(word: &str, has_authority: bool) -> Self {
        match word {
            "none" => Self::None,
            "optional" => Self::Optional,
            "required" => Self::Required,
            _ if has_authority => Self::Required,
            _ => Self::None,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: None,
            client_auth: ClientAuth::None,
        }
    }
}

const CERTIFICATE: &str = "server.tls.certificate";
const KEY: &str = "server.tls.key";
const CLIENT_CA: &str = "server.tls.client-ca";
const CLIENT_AUTH: &str = "server.tls.client-auth";

pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let server = &config.server;
    let forever = "without a bound slow clients could hold connections forever";
    checker.lasting(
        "server.tls.handshake-timeout",
        server.handshake_timeout,
        forever,
    );
    match &server.tls {
        Some(tls) => given(tls, checker),
        None => plain(server, checker),
    }
    for (key, address) in [
        ("server.admin-address", server.admin_address),
        ("server.ops-address", server.ops_address),
    ] {
        // Ports that are not known before they are taken are not the same.
        if address == Some(server.address) && server.address.port() != 0 {
            checker.wrong(
                key,
                "is the same as server.server-address; leave it out to have both on one address",
            );
        }
    }
}

fn given(tls: &Tls, checker: &mut Checker<'_>) {
    let empty = |path: &PathBuf| path.as_os_str().is_empty();
    if empty(&tls.certificate) {
        let why = "is required for TLS; give the PEM file with the server's certificate and those between it and its authority";
        checker.wrong(CERTIFICATE, why);
    }
    if empty(&tls.key) {
        checker.wrong(
            KEY,
            "is required beside server.tls.certificate; give the PEM file with its private key",
        );
    }
    match (tls.client_auth, &tls.client_ca) {
        (ClientAuth::Optional | ClientAuth::Required, None) => checker.wrong(
            CLIENT_AUTH,
            "asks clients for certificates, and there is nothing to check them with; give server.tls.client-ca, or set it to none",
        ),
        (ClientAuth::None, Some(_)) => checker.notice(
            NoticeLevel::Warning,
            CLIENT_CA,
            "clients are not asked for certificates, because server.tls.client-auth is none",
        ),
        _ => {}
    }
}

/// Says where tokens and passwords travel as they are.
fn plain(server: &Server, checker: &mut Checker<'_>) {
    for (key, address) in [
        ("server.server-address", Some(server.address)),
        ("server.admin-address", server.admin_address),
        ("server.ops-address", server.ops_address),
    ] {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            checker.notice(
                NoticeLevel::Warning,
                key,
                &format!(
                    "{address} is reachable from other machines and speaks plain HTTP: whatever passes can be read and altered on the way; give server.tls.certificate and server.tls.key, or put a TLS proxy in front of it"
                ),
            );
        }
    }
}

impl Server {
    /// What `server.tls.*` says; `None` where none of its files is given.
    pub(super) fn tls_of(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
        client_auth: &str,
    ) -> Option<Tls> {
        let asked = matches!(client_auth, "optional" | "required");
        if certificate.is_none() && key.is_none() && client_ca.is_none() && !asked {
            return None;
        }
        Some(Tls {
            client_auth: ClientAuth::choose(client_auth, client_ca.is_some()),
            certificate: certificate.unwrap_or_default(),
            key: key.unwrap_or_default(),
            client_ca,
        })
    }

    /// Where administrators connect.
    pub fn admin(&self) -> SocketAddr {
        self.admin_address.unwrap_or(self.address)
    }

    /// Where health and metrics are asked for.
    pub fn ops(&self) -> SocketAddr {
        self.ops_address.unwrap_or(self.address)
    }
}

/// How long a client may take for the TLS handshake, unless configured otherwise.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
