//! Ed25519 keys that servers of this kind sign for each other with, and their signatures as text.
//!
//! What is signed always begins with a context of its own, so that a signature made for one purpose is worth nothing for
//! another. Randomness is an argument: this module is pure.

use super::{ParseError, Sha256, serde_as_str};
use openssl::pkey::{Id, PKey, Private};
use openssl::sign::{Signer, Verifier};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "ed25519:";

/// A key that signatures are checked with; written `ed25519:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// A signature; written as 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey(PKey<Private>);

impl PublicKey {
    /// A short name of the key, for people and lists: the first 16 hexadecimal digits of its SHA-256.
    pub fn id(&self) -> String {
        let mut digest = Sha256::of(&self.0).to_string();
        digest.truncate(16);
        digest
    }

    /// Whether `signature` was made with this key over exactly this content in this context.
    pub fn verifies(&self, context: &str, content: &[u8], signature: &Signature) -> bool {
        let check = || {
            let key = PKey::public_key_from_raw_bytes(&self.0, Id::ED25519)?;
            let mut verifier = Verifier::new_without_digest(&key)?;
            verifier.verify_oneshot(&signature.0, &framed(context, content))
        };
        // openssl reports a malformed point or scalar as an error; both mean: not signed with this key.
        check().unwrap_or(false)
    }
}

impl SigningKey {
    /// Makes a key of 32 random bytes. Fails only if openssl itself does.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, String> {
        PKey::private_key_from_raw_bytes(seed, Id::ED25519)
            .map(Self)
            .map_err(|e| e.to_string())
    }

    /// The key that its signatures are checked with. Fails only if openssl itself does.
    pub fn public(&self) -> Result<PublicKey, String> {
        let raw = self.0.raw_public_key().map_err(|e| e.to_string())?;
        raw.try_into()
            .map(PublicKey)
            .map_err(|raw: Vec<u8>| format!("a public key of {} bytes", raw.len()))
    }

    /// Signs this content in this context. Fails only if openssl itself does.
    pub fn sign(&self, context: &str, content: &[u8]) -> Result<Signature, String> {
        let mut signer = Signer::new_without_digest(&self.0).map_err(|e| e.to_string())?;
        let raw = signer
            .sign_oneshot_to_vec(&framed(context, content))
            .map_err(|e| e.to_string())?;
        raw.try_into()
            .map(Signature)
            .map_err(|raw: Vec<u8>| format!("a signature of {} bytes", raw.len()))
    }
}

/// A context cannot run into the content, because its length stands before it.
fn framed(context: &str, content: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(8 + context.len() + content.len());
    framed.extend_from_slice(&(context.len() as u64).to_be_bytes());
    framed.extend_from_slice(context.as_bytes());
    framed.extend_from_slice(content);
    framed
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([secret])")
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Signature {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseError::new("signature", text, "128 hexadecimal digits expected"))?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError::new(
                "public key",
                text,
                "expected ed25519: and 64 hexadecimal digits, as `livepatch-server keys show` prints",
            )
        };
        let mut bytes = [0; 32];
        let digits = text.trim().strip_prefix(PREFIX).ok_or_else(wrong)?;
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| wrong())?;
        Ok(Self(bytes))
    }
}

serde_as_str!(PublicKey);
serde_as_str!(Signature);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_one_key_context_and_content() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let other = SigningKey::from_seed(&[8; 32]).unwrap();
        let public = key.public().unwrap();
        let signature = key.sign("index", b"content").unwrap();
        assert!(public.verifies("index", b"content", &signature));
        assert!(!public.verifies("archive", b"content", &signature));
        assert!(!public.verifies("indexc", b"ontent", &signature));
        assert!(!public.verifies("index", b"contents", &signature));
        assert!(
            !other
                .public()
                .unwrap()
                .verifies("index", b"content", &signature)
        );
        for at in 0..64 {
            let mut bytes = signature.0;
            bytes[at] ^= 1;
            assert!(
                !public.verifies("index", b"content", &Signature(bytes)),
                "{at}"
            );
        }
    }

    #[test]
    fn keys_and_signatures_survive_as_text() {
        let key = SigningKey::from_seed(&[7; 32]).unwrap();
        let public = key.public().unwrap();
        assert_eq!(public.to_string().parse::<PublicKey>().unwrap(), public);
        let signature = key.sign("index", b"").unwrap();
        assert_eq!(
            signature.to_string().parse::<Signature>().unwrap(),
            signature
        );
        for wrong in ["", "ed25519:", "ed25519:00", "00", "rsa:00"] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
            assert!(wrong.parse::<Signature>().is_err(), "{wrong}");
        }
        assert_eq!(public.id().len(), 16);
        assert_eq!(format!("{key:?}"), "SigningKey([secret])");
    }
}
