//! The signature appended to a kernel module: reading and verifying it.
//!
//! Layout (`include/linux/module_signature.h`): module, PKCS#7 message, a 12-byte structure, and a line of magic.
//! Invariant: of what verifies, no byte can be changed, in the module, the message or the trailer. Only the ECDSA value
//! itself has, by its mathematics, a second valid form.

use super::cms::{Message, check_attributes};
use super::der;
use super::error::SignatureError;
use super::trust::{TrustStore, Trusted};
use openssl::hash::hash;
use openssl::pkey::Id;
use openssl::sign::Verifier;

const MAGIC: &[u8] = b"~Module signature appended~\n";
const INFO: usize = 12;
const ID_TYPE_PKCS7: u8 = 2;
/// The largest PKCS#7 message read, in bytes. With RSA of 4096 bits one has about 700.
pub const MAX_SIGNATURE_BYTES: usize = 16 << 10;

/// A signature that verified.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Signature {
    /// The subject of the certificate whose key verified it.
    pub signer: String,
    /// That certificate's subject key id, if it has one: upper-case hexadecimal pairs with colons.
    pub key_id: Option<String>,
    /// SHA-256 of that certificate's DER form.
    pub fingerprint: crate::domain::Sha256,
    /// The digest algorithm: `sha256`, `sha384` or `sha512`.
    pub digest: &'static str,
}

/// Cuts a module into its content and the PKCS#7 message behind it.
fn split(module: &[u8]) -> Result<(&[u8], &[u8]), SignatureError> {
    let rest = module.strip_suffix(MAGIC).ok_or(SignatureError::Missing)?;
    let (rest, info) = rest
        .split_last_chunk::<INFO>()
        .ok_or_else(|| SignatureError::malformed("the file is too short for a signature"))?;
    let [algo, hash, id_type, signer_len, key_id_len, pad @ ..] = *info;
    let [p0, p1, p2, s0, s1, s2, s3] = pad;
    if id_type != ID_TYPE_PKCS7 {
        return Err(SignatureError::malformed(format!(
            "it is of type {id_type}, not PKCS#7 (2)"
        )));
    }
    if [algo, hash, signer_len, key_id_len, p0, p1, p2] != [0; 7] {
        return Err(SignatureError::malformed(
            "fields that must be zero with PKCS#7 are not",
        ));
    }
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    let length = size as usize;
    if length > MAX_SIGNATURE_BYTES {
        return Err(SignatureError::TooLarge {
            size: u64::from(size),
            limit: MAX_SIGNATURE_BYTES,
        });
    }
    match rest.split_at_checked(rest.len().wrapping_sub(length)) {
        Some((content, message)) if length > 0 && !content.is_empty() => Ok((content, message)),
        _ => Err(SignatureError::malformed(format!(
            "it claims {length} bytes, which the file does not have"
        ))),
    }
}

/// Verifies the signature appended to a module.
pub fn verify(module: &[u8], trust: &TrustStore) -> Result<Signature, SignatureError> {
    let (content, bytes) = split(module)?;
    let message = Message::parse(bytes)?;
    let mut named = None;
    for trusted in trust.iter().filter(|t| message.signer.is(t)) {
        if fits(&message, content, trusted)? {
            return Ok(Signature {
                signer: trusted.info.subject.clone(),
                key_id: trusted.info.key_id.clone(),
                fingerprint: trusted.info.fingerprint,
                digest: message.digest.name(),
            });
        }
        named = Some(trusted.info.subject.clone());
    }
    Err(match named {
        Some(signer) => SignatureError::Mismatch { signer },
        None => SignatureError::UntrustedSigner {
            signer: message.signer.to_string(),
            digest: message.digest.name(),
            installed: trust.len(),
        },
    })
}

fn fits(message: &Message<'_>, content: &[u8], trusted: &Trusted) -> Result<bool, SignatureError> {
    let expected = if message.ecdsa { Id::EC } else { Id::RSA };
    if trusted.key.id() != expected {
        return Ok(false);
    }
    let digest = message.digest.openssl();
    let verified = |data: &[u8]| {
        Verifier::new(digest, &trusted.key)
            .and_then(|mut verifier| verifier.verify_oneshot(message.value, data))
            // openssl calls some wrong signatures errors, e.g. one of another length than the key's.
            .unwrap_or(false)
    };
    let Some(attributes) = message.attributes else {
        return Ok(verified(content));
    };
    let actual = hash(digest, content).map_err(|e| SignatureError::malformed(e.to_string()))?;
    // What is signed is the attributes under the tag of a SET (RFC 5652, 5.4).
    Ok(check_attributes(attributes, &actual)? && verified(&der::encode(der::SET, &[attributes])))
}

/// Whether a signature of any kind stands at the module's end.
pub(super) fn is_signed(module: &[u8]) -> bool {
    module.ends_with(MAGIC)
}

/// Puts a PKCS#7 message and its trailer behind a module; the inverse of [`split`].
pub(super) fn append(module: &[u8], message: &[u8]) -> Vec<u8> {
    let mut signed = module.to_vec();
    signed.extend_from_slice(message);
    signed.extend_from_slice(&[0, 0, ID_TYPE_PKCS7, 0, 0, 0, 0, 0]);
    signed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    signed.extend_from_slice(MAGIC);
    signed
}
