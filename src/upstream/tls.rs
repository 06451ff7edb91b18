//! Files for TLS to others: whom to believe, and what to show to a server that asks for it.

use super::UpstreamError;
use super::http::chain;
use crate::config::PatchSync;
use crate::domain::certificate::pkcs8;
use reqwest::{Certificate, ClientBuilder, Identity};
use std::path::Path;

/// Files for TLS, each with the configuration key that names it, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct TlsFiles<'a> {
    /// Authorities (PEM) to trust besides the system's.
    ca: Option<(&'a str, &'a Path)>,
    /// A certificate to show and its key.
    identity: Option<[(&'a str, &'a Path); 2]>,
}

impl<'a> TlsFiles<'a> {
    /// Only an authority.
    pub(super) fn authority(key: &'a str, path: Option<&'a Path>) -> Self {
        Self {
            ca: path.map(|path| (key, path)),
            identity: None,
        }
    }

    /// Those of `patch-sync.*`.
    pub(super) fn of_upstream(config: &'a PatchSync) -> Self {
        let certificate = config.upstream_tls_certificate.as_deref();
        let key = config.upstream_tls_key.as_deref();
        Self {
            identity: certificate.zip(key).map(|(certificate, key)| {
                [
                    ("patch-sync.upstream-tls-certificate", certificate),
                    ("patch-sync.upstream-tls-key", key),
                ]
            }),
            ..Self::authority("patch-sync.upstream-ca", config.upstream_ca.as_deref())
        }
    }

    /// A client that believes and shows them.
    pub(super) fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, UpstreamError> {
        let wrong = |(key, path): (&str, &Path), why: &str| {
            UpstreamError::Local(format!("{key}: {}: {why}", path.display()))
        };
        let read = |file: (&str, &Path)| {
            std::fs::read(file.1).map_err(|error| wrong(file, &error.to_string()))
        };
        if let Some(file) = self.ca {
            let certificates =
                Certificate::from_pem_bundle(&read(file)?).map_err(|e| wrong(file, &chain(&e)))?;
            if certificates.is_empty() {
                return Err(wrong(file, "there is no PEM certificate in it"));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some([certificate, key]) = self.identity {
            let private = pkcs8(&read(key)?).ok_or_else(|| {
                wrong(key, "holds no private key in PEM form without a passphrase")
            })?;
            let identity = Identity::from_pkcs8_pem(&read(certificate)?, &private)
                .map_err(|_| wrong(certificate, "holds no certificate in PEM form of that key"))?;
            builder = builder.identity(identity);
        }
        Ok(builder)
    }
}
