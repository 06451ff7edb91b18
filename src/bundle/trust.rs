//! The certificates whose signatures count, as the operator installs them.
//!
//! Trust is by installed certificate alone: no chain, no purpose and no `notAfter`, as in the kernel's own check of
//! modules. Invariant: every certificate here has a key strong enough to be worth trusting.

use super::der::Reader;
use super::error::shown;
use crate::domain::Sha256;
use crate::domain::certificate::{self, timestamp};
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::x509::{X509, X509NameRef};
use std::fmt;

/// The subject key ids of Canonical's public live patch signing certificates, of 2016 and 2025. They only name what an
/// operator has installed; nothing is trusted for them.
pub const CANONICAL_KEY_IDS: [&str; 2] = [
    "14:DF:34:D1:A8:7C:F3:76:25:AB:EC:03:9E:F2:BF:52:12:49:B9:69",
    "D5:41:CE:F6:1D:C7:E7:93:B7:EB:7E:89:99:70:A2:EE:F0:B5:DC:8C",
];

const MIN_RSA_BITS: u32 = 2048;
const MIN_EC_BITS: u32 = 256;

/// Why a certificate cannot be installed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Neither PEM nor DER with at least one certificate.
    #[error(
        "no X.509 certificate in it: {0}; give one or more certificates as PEM or DER, e.g. canonical-livepatch's signing certificate"
    )]
    Unreadable(String),
    /// The certificate's key is of no use for signing modules.
    #[error(
        "certificate {subject:?} cannot be used: {why}; RSA of 2048 bits or more, or ECDSA of 256 bits or more, is needed"
    )]
    Key {
        /// The certificate's subject.
        subject: String,
        /// What is wrong with its key.
        why: String,
    },
}

/// What to show of an installed certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CertificateInfo {
    /// Subject, e.g. `CN=Canonical Ltd. Live Patch Signing`.
    pub subject: String,
    /// SHA-256 of the certificate's DER form.
    pub fingerprint: Sha256,
    /// Subject key id as upper-case hexadecimal pairs with colons, if the certificate has one.
    pub key_id: Option<String>,
    /// End of validity. Shown, not enforced.
    pub not_after: jiff::Timestamp,
    /// Whether the key id is one of [`CANONICAL_KEY_IDS`].
    pub canonical: bool,
}

/// One installed certificate, with what signatures are matched by.
#[derive(Clone)]
pub(super) struct Trusted {
    pub(super) info: CertificateInfo,
    pub(super) key: PKey<Public>,
    /// DER of the issuer's name.
    pub(super) issuer: Vec<u8>,
    /// Content of the serial number's DER INTEGER.
    pub(super) serial: Vec<u8>,
    pub(super) key_id: Option<Vec<u8>>,
}

/// The installed certificates. Empty, it trusts nothing.
#[derive(Clone, Default)]
pub struct TrustStore {
    certificates: Vec<Trusted>,
}

impl fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.certificates()).finish()
    }
}

impl TrustStore {
    /// A store without certificates.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds every certificate in a PEM or DER file, and gives how many were not there before.
    pub fn add(&mut self, file: &[u8]) -> Result<usize, TrustError> {
        let mut new = Vec::new();
        for certificate in read(file)? {
            new.push(Trusted::new(&certificate)?);
        }
        let before = self.certificates.len();
        for trusted in new {
            if self.certificates().all(|known| known != &trusted.info) {
                self.certificates.push(trusted);
            }
        }
        Ok(self.certificates.len() - before)
    }

    /// What is installed, in the order of adding.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateInfo> {
        self.certificates.iter().map(|trusted| &trusted.info)
    }

    /// Whether nothing is installed.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    /// How many certificates are installed.
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Trusted> {
        self.certificates.iter()
    }
}

impl Trusted {
    pub(super) fn new(certificate: &X509) -> Result<Self, TrustError> {
        let subject = name_text(certificate.subject_name());
        let unusable = |why: String| TrustError::Key {
            subject: subject.clone(),
            why,
        };
        let broken = |e: openssl::error::ErrorStack| unusable(e.to_string());
        let key = certificate.public_key().map_err(broken)?;
        match key.id() {
            Id::RSA if key.bits() >= MIN_RSA_BITS => {}
            Id::EC if key.bits() >= MIN_EC_BITS => {}
            Id::RSA | Id::EC => {
                return Err(unusable(format!("its key has only {} bits", key.bits())));
            }
            _ => return Err(unusable("its key is neither RSA nor ECDSA".to_owned())),
        }
        let fingerprint = certificate
            .digest(MessageDigest::sha256())
            .map_err(broken)?;
        let fingerprint =
            Sha256::try_from(fingerprint.as_ref()).map_err(|e| unusable(e.to_string()))?;
        let key_id = certificate
            .subject_key_id()
            .map(|id| id.as_slice().to_vec());
        let shown_id = key_id.as_deref().map(colons);
        let serial = certificate.serial_number().to_bn().map_err(broken)?;
        Ok(Self {
            info: CertificateInfo {
                canonical: shown_id
                    .as_deref()
                    .is_some_and(|id| CANONICAL_KEY_IDS.contains(&id)),
                key_id: shown_id,
                fingerprint,
                not_after: timestamp(certificate.not_after()).map_err(broken)?,
                subject: subject.clone(),
            },
            key,
            issuer: certificate.issuer_name().to_der().map_err(broken)?,
            serial: integer(serial.to_vec(), serial.is_negative())
                .ok_or_else(|| unusable("its serial number is negative".to_owned()))?,
            key_id,
        })
    }
}

/// The content of the DER INTEGER for a magnitude; nothing for negative numbers, which no serial may be (RFC 5280).
fn integer(mut magnitude: Vec<u8>, negative: bool) -> Option<Vec<u8>> {
    if negative {
        return None;
    }
    if magnitude.first().is_none_or(|first| *first >= 0x80) {
        magnitude.insert(0, 0);
    }
    Some(magnitude)
}

/// Every certificate in a file: PEM with any number of blocks, or DER ones behind each other.
pub(super) fn read(file: &[u8]) -> Result<Vec<X509>, TrustError> {
    const PEM: &[u8] = b"-----BEGIN ";
    let unreadable = |why: &str| TrustError::Unreadable(why.to_owned());
    if file.windows(PEM.len()).any(|window| window == PEM) {
        let found = X509::stack_from_pem(file).map_err(|e| unreadable(&e.to_string()))?;
        if found.is_empty() {
            return Err(unreadable("it is PEM, but of something else"));
        }
        return Ok(found);
    }
    let mut rest = Reader::new(file);
    let mut found = Vec::new();
    while rest.peek().is_some() {
        let (_, _, whole) = rest.element().map_err(|e| unreadable(e.0))?;
        found.push(X509::from_der(whole).map_err(|e| unreadable(&e.to_string()))?);
    }
    if found.is_empty() {
        return Err(unreadable("it is empty"));
    }
    Ok(found)
}

/// A name as text, `CN=..., O=...`, fit to be shown.
pub(super) fn name_text(name: &X509NameRef) -> String {
    shown(&certificate::name(name))
}

/// Bytes as upper-case hexadecimal pairs with colons between.
pub(super) fn colons(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|b| format!("{b:02X}")).collect();
    pairs.join(":")
}
