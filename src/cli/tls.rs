//! Files for TLS to the server: whom to believe, and what to show to a server that asks for it.

use super::error::{CliError, chain};
use crate::domain::certificate::pkcs8;
use reqwest::{Certificate, ClientBuilder, Identity};
use std::path::Path;

/// What the options name.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsFiles<'a> {
    /// Authorities to trust besides the system's.
    pub ca: Option<&'a Path>,
    /// A certificate to show.
    pub certificate: Option<&'a Path>,
    /// Its key.
    pub key: Option<&'a Path>,
}

impl TlsFiles<'_> {
    /// A client that does so.
    pub fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, CliError> {
        const CA: &str = "read certificates from";
        const CERTIFICATE: &str = "read a client certificate from";
        const KEY: &str = "read a private key from";
        let read = |what, path: &Path| {
            std::fs::read(path).map_err(|error| CliError::file(what, path, error))
        };
        if let Some(path) = self.ca {
            let certificates = Certificate::from_pem_bundle(&read(CA, path)?)
                .map_err(|error| CliError::file(CA, path, chain(&error)))?;
            if certificates.is_empty() {
                let why = "there is no PEM certificate in it";
                return Err(CliError::file(CA, path, why));
            }
            builder = builder.tls_certs_merge(certificates);
        }
        match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                let private = pkcs8(&read(KEY, key)?).ok_or_else(|| {
                    CliError::file(KEY, key, "there is no PEM key without a passphrase in it")
                })?;
                let identity = Identity::from_pkcs8_pem(&read(CERTIFICATE, certificate)?, &private)
                    .map_err(|_| {
                        let why = "there is no PEM certificate of that key in it";
                        CliError::file(CERTIFICATE, certificate, why)
                    })?;
                Ok(builder.identity(identity))
            }
            (None, None) => Ok(builder),
            _ => Err(CliError::Usage(
                "--tls-cert and --tls-key go together: a certificate is shown with its key"
                    .to_owned(),
            )),
        }
    }
}

/// What OpenSSL calls the refusals that a server sends about the certificate of its client.
const REFUSALS: [&str; 6] = [
    "alert certificate required",
    "alert unknown ca",
    "alert bad certificate",
    "alert unsupported certificate",
    "alert certificate expired",
    "alert certificate unknown",
];

/// The error, if the handshake failed for one of the two certificates; `why` is the chain of causes.
pub(super) fn failed(url: &str, why: &str) -> Option<CliError> {
    let url = url.to_owned();
    if let Some((_, rest)) = why.split_once("certificate verify failed") {
        // OpenSSL names its source files first and the reason in brackets after them.
        let reason = rest.split_once('(').and_then(|(_, r)| r.split_once(')'));
        let why = reason.map_or(why, |(reason, _)| reason).to_owned();
        return Some(CliError::Untrusted { url, why });
    }
    let refusal = REFUSALS.iter().find(|words| why.contains(**words))?;
    let why = refusal.trim_start_matches("alert ").to_owned();
    Some(CliError::NotShown { url, why })
}
