//! Certificates and keys that the configuration names: read within a bound, and judged before anything uses them.
//!
//! A pair that clients could not use is refused with its reason: unreadable, not PEM, of two halves that do not belong
//! together, too weak, expired. A key's text is in no message.

use super::error::{ConfigError, ErrorKind};
use super::model::{ClientAuth, Tls};
use crate::domain::certificate::{self, timestamp};
use jiff::{SignedDuration, Timestamp};
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use std::io::Read;
use std::path::Path;

/// The largest file of certificates or keys, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// The least strength of a server's key, in bits of security; an RSA key of 2048 bits has 112.
const LEAST_BITS: u32 = 112;
/// How long before its end a certificate is worth a warning.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

const CERTIFICATE: &str = "server.tls.certificate";
const KEY: &str = "server.tls.key";
const CLIENT_CA: &str = "server.tls.client-ca";

/// What a server shows its clients, and whom it believes of them.
#[derive(Debug)]
pub struct Identity {
    /// The certificate.
    pub certificate: X509,
    /// Those between it and its authority.
    pub chain: Vec<X509>,
    /// Its private key.
    pub key: PKey<Private>,
    /// The authorities of clients' certificates; empty: clients are not asked.
    pub clients: Vec<X509>,
    /// When the certificate ends.
    pub not_after: Timestamp,
}

impl Identity {
    /// Reads and judges what `server.tls.*` names.
    pub fn read(tls: &Tls, now: Timestamp) -> Result<Self, ConfigError> {
        let mut found = pem(CERTIFICATE, &tls.certificate)?.into_iter();
        let wrong =
            |key: &str, path: &Path, why: &str| Err(ConfigError::file(key, path, why.to_owned()));
        let Some(certificate) = found.next() else {
            let why = "holds no certificate in PEM form";
            return wrong(CERTIFICATE, &tls.certificate, why);
        };
        let chain: Vec<X509> = found.collect();
        let key = private_key(&tls.key)?;
        let belongs =
            |certificate: &X509| certificate.public_key().is_ok_and(|of| of.public_eq(&key));
        if !belongs(&certificate) {
            let why = if chain.iter().any(belongs) {
                "its first certificate is not that of server.tls.key, but a later one is; put the server's own first"
            } else {
                "is not the certificate of the key in server.tls.key; the two must have been made together"
            };
            return wrong(CERTIFICATE, &tls.certificate, why);
        }
        if key.security_bits() < LEAST_BITS {
            let why =
                "the key is too weak for clients of today; use ECDSA P-256, or RSA of 2048 bits";
            return wrong(KEY, &tls.key, why);
        }
        let (begins, ends) = validity(&certificate)
            .map_err(|why| ConfigError::file(CERTIFICATE, &tls.certificate, why))?;
        if ends <= now {
            let why = format!("expired at {ends}; renew it");
            return wrong(CERTIFICATE, &tls.certificate, &why);
        }
        if begins > now {
            let why = format!("is not valid before {begins}; is this machine's clock right?");
            return wrong(CERTIFICATE, &tls.certificate, &why);
        }
        let clients = match (&tls.client_ca, tls.client_auth) {
            (Some(path), ClientAuth::Optional | ClientAuth::Required) => {
                let found = pem(CLIENT_CA, path)?;
                if found.is_empty() {
                    return wrong(CLIENT_CA, path, "holds no certificate in PEM form");
                }
                found
            }
            _ => Vec::new(),
        };
        Ok(Self {
            certificate,
            chain,
            key,
            clients,
            not_after: ends,
        })
    }

    /// What an operator should know of a pair that can be used.
    pub fn remarks(&self, now: Timestamp) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.not_after.duration_since(now) < SOON {
            remarks.push(format!(
                "{CERTIFICATE} expires at {}; renew it",
                self.not_after
            ));
        }
        if self.certificate.subject_alt_names().is_none() {
            remarks.push(format!(
                "{CERTIFICATE} names no host (subjectAltName), so clients will not accept it"
            ));
        }
        let expired = |of: &&X509| validity(of).is_ok_and(|(_, ends)| ends <= now);
        let authorities = self.clients.iter().filter(expired).count();
        if authorities > 0 {
            remarks.push(format!(
                "{CLIENT_CA}: {authorities} of its {} certificates expired",
                self.clients.len()
            ));
        }
        remarks
    }

    /// Whose certificate it is, for people.
    pub fn subject(&self) -> String {
        certificate::name(self.certificate.subject_name())
    }
}

fn validity(certificate: &X509) -> Result<(Timestamp, Timestamp), String> {
    let moments = timestamp(certificate.not_before())
        .and_then(|begins| Ok((begins, timestamp(certificate.not_after())?)));
    moments.map_err(|_| "its validity cannot be read".to_owned())
}

fn pem(key: &str, path: &Path) -> Result<Vec<X509>, ConfigError> {
    let bytes = read(path).map_err(|why| ConfigError::file(key, path, why))?;
    X509::stack_from_pem(&bytes)
        .map_err(|_| ConfigError::file(key, path, "holds a certificate that cannot be read"))
}

fn private_key(path: &Path) -> Result<PKey<Private>, ConfigError> {
    let wrong = |why: &str| ConfigError::file(KEY, path, why);
    let bytes = read(path).map_err(|why| ConfigError::file(KEY, path, why))?;
    let mut asked = false;
    // Without an answer of ours OpenSSL would ask on the terminal.
    let key = PKey::private_key_from_pem_callback(&bytes, |_| {
        asked = true;
        Ok(0)
    });
    match key {
        Ok(key) => Ok(key),
        Err(_) if asked => Err(wrong(
            "is protected by a passphrase, which nobody is there to type; write it without one (openssl pkey -in FILE -out NEW) and protect the file",
        )),
        Err(_) => Err(wrong("holds no private key in PEM form")),
    }
}

/// The content of a file of certificates or keys.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

impl ConfigError {
    /// An error about a file that a key names.
    pub(super) fn file(key: &str, path: &Path, why: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::File, key, format!("{}: {why}", path.display()))
    }
}
