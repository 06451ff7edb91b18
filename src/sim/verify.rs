//! Whether a downloaded payload may be used: name against content, signature, and the module it yields.

use super::error::{Error, file};
use crate::bundle::{self, BundleName, Limits, TrustStore};
use crate::domain::Sha256;
use std::path::{Path, PathBuf};

/// Whose signatures count.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those of these certificates.
    Certificates(TrustStore),
    /// Nobody looks. For trials only.
    Skip,
}

/// A module that passed.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The module with its signature.
    pub module: Vec<u8>,
    /// Its digest.
    pub sha256: Sha256,
    /// Its name in the kernel.
    pub name: String,
    /// The kernel release it was built for, if it says so.
    pub release: Option<String>,
    /// Who signed it; nothing if that was not checked.
    pub signer: Option<String>,
}

impl Trust {
    /// Reads the certificates; each file must hold at least one.
    pub fn read(files: &[PathBuf]) -> Result<Self, Error> {
        let mut store = TrustStore::new();
        for path in files {
            let pem = std::fs::read(path)
                .map_err(|e| file("read the certificate", path, format!("{e}; see --cert")))?;
            store
                .add(&pem)
                .map_err(|e| file("use the certificate", path, format!("{e}; see --cert")))?;
        }
        Ok(Self::Certificates(store))
    }
}

/// Examines a payload. Blocking: it reads and decompresses the whole file.
pub fn verify(path: &Path, name: &BundleName, trust: &Trust) -> Result<Verified, Error> {
    let reader = std::fs::File::open(path).map_err(|e| file("read", path, e))?;
    let store = match trust {
        Trust::Certificates(store) => Some(store),
        Trust::Skip => None,
    };
    let (examined, module) = bundle::extract_module(name, reader, &Limits::default(), store)
        .map_err(|e| {
            if e.is_source() {
                file("read", path, e)
            } else {
                Error::Verification(format!("{name} was refused: {e}"))
            }
        })?;
    let signer = match (trust, examined.signature) {
        (Trust::Skip, _) => None,
        (Trust::Certificates(_), Ok(signature)) => Some(signature.signer),
        (Trust::Certificates(store), Err(why)) => {
            let hint = if store.is_empty() {
                "; no certificate was given, see --cert"
            } else {
                ""
            };
            return Err(Error::Verification(format!(
                "{name} was refused: {why}{hint}"
            )));
        }
    };
    let release = examined
        .vermagic
        .as_deref()
        .and_then(|v| v.split_ascii_whitespace().next())
        .map(str::to_owned);
    Ok(Verified {
        module,
        sha256: examined.module_sha256,
        name: examined.module_name,
        release,
        signer,
    })
}
