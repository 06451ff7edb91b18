//! Files for TLS: whom to believe, and what to show to a server that asks for it.

use super::error::{Error, causes, file};
use crate::domain::certificate::pkcs8;
use reqwest::{Certificate, ClientBuilder, Identity};
use std::path::PathBuf;

/// The options that name them.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TlsFiles {
    /// PEM file with the certificates to trust for TLS, instead of the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_CA_CRT",
        hide_env_values = true
    )]
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate to show to a server that asks for one
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_TLS_CERT",
        hide_env_values = true,
        requires = "tls_key"
    )]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_TLS_KEY",
        hide_env_values = true,
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
}

/// What was in them.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    certificates: Option<Vec<Certificate>>,
    identity: Option<Identity>,
}

impl TlsFiles {
    /// The same, with paths that do not depend on where one is.
    pub fn absolute(&self) -> Result<Self, Error> {
        let absolute = |path: &Option<PathBuf>| {
            let path = path.as_ref();
            path.map(|path| std::path::absolute(path).map_err(|e| file("find", path, e)))
                .transpose()
        };
        Ok(Self {
            ca: absolute(&self.ca)?,
            tls_cert: absolute(&self.tls_cert)?,
            tls_key: absolute(&self.tls_key)?,
        })
    }

    /// Reads them.
    pub fn read(&self) -> Result<Tls, Error> {
        let read = |option: &str, path: &PathBuf| {
            std::fs::read(path).map_err(|e| file("read", path, format!("{e}; see {option}")))
        };
        let unusable =
            |option: &str, why: String| Error::Usage(format!("the file given with {option} {why}"));
        let mut tls = Tls::default();
        if let Some(path) = &self.ca {
            let found = Certificate::from_pem_bundle(&read("--ca", path)?);
            let found = found.map_err(|e| {
                let why = format!("cannot be read as PEM certificates: {}", causes(&e));
                unusable("--ca", why)
            })?;
            if found.is_empty() {
                return Err(unusable("--ca", "holds no PEM certificate".to_owned()));
            }
            tls.certificates = Some(found);
        }
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let private = pkcs8(&read("--tls-key", key)?).ok_or_else(|| {
                let why = "holds no PEM key without a passphrase".to_owned();
                unusable("--tls-key", why)
            })?;
            let identity = Identity::from_pkcs8_pem(&read("--tls-cert", certificate)?, &private);
            let wrong = || "holds no PEM certificate of the key in --tls-key".to_owned();
            tls.identity = Some(identity.map_err(|_| unusable("--tls-cert", wrong()))?);
        }
        Ok(tls)
    }
}

impl Tls {
    /// A client that does so.
    pub(super) fn apply(&self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(certificates) = &self.certificates {
            builder = builder.tls_certs_only(certificates.iter().cloned());
        }
        match &self.identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        }
    }
}
