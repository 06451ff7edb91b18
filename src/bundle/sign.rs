//! Signs a kernel module as the kernel's `sign-file` does.

use super::cms::{Digest, Message, SignerId};
use super::signature::{self, is_signed};
use super::trust::{self, Trusted};
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, PKeyRef, Private};
use openssl::sign::Signer;

/// Why a module could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The private key cannot be read.
    #[error("the private key cannot be used: {0}; give an unencrypted RSA or EC key as PEM")]
    Key(String),
    /// The certificate cannot be read or used.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// Key and certificate are not a pair.
    #[error("the private key does not belong to the certificate {subject:?}")]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
    },
    /// There is a signature already.
    #[error(
        "the module carries a signature already; sign the unsigned module, or keep its signature"
    )]
    AlreadySigned,
}

/// Appends a signature to a module: SHA-512, detached, no attributes and no certificates, the signer named by issuer
/// and serial number. For one key and module the result equals that of the kernel's `sign-file` with `sha512`.
pub fn sign(module: &[u8], key_pem: &[u8], cert_pem: &[u8]) -> Result<Vec<u8>, SignError> {
    if is_signed(module) {
        return Err(SignError::AlreadySigned);
    }
    let certificates = trust::read(cert_pem).map_err(|e| SignError::Certificate(e.to_string()))?;
    let [certificate] = certificates.as_slice() else {
        return Err(SignError::Certificate(
            "it holds several certificates; give the signer's alone".to_owned(),
        ));
    };
    let signer = Trusted::new(certificate).map_err(|e| SignError::Certificate(e.to_string()))?;
    let key = private_key(key_pem)?;
    if !signer.key.public_eq(&key) {
        return Err(SignError::KeyMismatch {
            subject: signer.info.subject,
        });
    }
    let digest = Digest::Sha512;
    let value = signature_value(digest, &key, module).map_err(|e| SignError::Key(e.to_string()))?;
    let message = Message {
        digest,
        digest_null: false,
        signer: SignerId::Issuer {
            name: &signer.issuer,
            serial: &signer.serial,
        },
        attributes: None,
        ecdsa: key.id() == Id::EC,
        value: &value,
    }
    .encode();
    Ok(signature::append(module, &message))
}

fn signature_value(
    digest: Digest,
    key: &PKeyRef<Private>,
    module: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    Signer::new(digest.openssl(), key)?.sign_oneshot_to_vec(module)
}

/// Reads a private key. An encrypted one is refused: openssl would ask for the passphrase on the terminal.
fn private_key(pem: &[u8]) -> Result<PKey<Private>, SignError> {
    let mut asked = false;
    let key = PKey::private_key_from_pem_callback(pem, |_| {
        asked = true;
        Ok(0)
    });
    match key {
        Ok(key) if matches!(key.id(), Id::RSA | Id::EC) => Ok(key),
        Ok(_) => Err(SignError::Key("it is neither RSA nor EC".to_owned())),
        Err(_) if asked => Err(SignError::Key("it is encrypted".to_owned())),
        Err(e) => Err(SignError::Key(e.to_string())),
    }
}
