//! Signatures of JSON Web Tokens (RFC 7518), checked with openssl as all cryptography is here. Nothing is signed.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, new_error};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Verifier as OpensslVerifier};
use std::sync::Once;

/// The fewest bits of an RSA key (RFC 7518, section 3.3).
const MIN_RSA_BITS: u32 = 2048;

/// Makes `jsonwebtoken` use openssl, in the whole process; the first call counts.
pub(super) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(unsupported()),
        verifier_factory: |algorithm, key| {
            Ok(Box::new(Checked {
                algorithm: *algorithm,
                key: public_key(*algorithm, key)?,
            }))
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Nothing else in this program installs one.
        let _ = PROVIDER.install_default();
    });
}

fn unsupported() -> Error {
    new_error(ErrorKind::UnsupportedAlgorithm)
}

fn unusable(error: ErrorStack) -> Error {
    new_error(ErrorKind::Provider(error.to_string()))
}

struct Checked {
    algorithm: Algorithm,
    key: PKey<Public>,
}

fn public_key(algorithm: Algorithm, key: &DecodingKey) -> Result<PKey<Public>, Error> {
    match (algorithm, key.kind()) {
        (
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
            DecodingKeyKind::RsaModulusExponent { n, e },
        ) => {
            let number = |bytes: &[u8]| BigNum::from_slice(bytes);
            let key = number(n)
                .and_then(|n| Rsa::from_public_components(n, number(e)?))
                .map_err(unusable)?;
            if key.size() * 8 < MIN_RSA_BITS {
                return Err(new_error(ErrorKind::InvalidRsaKey(format!(
                    "has fewer than {MIN_RSA_BITS} bits"
                ))));
            }
            PKey::from_rsa(key).map_err(unusable)
        }
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
            on_curve(Nid::X9_62_PRIME256V1, point).map_err(unusable)
        }
        (Algorithm::ES384, DecodingKeyKind::SecretOrDer(point)) => {
            on_curve(Nid::SECP384R1, point).map_err(unusable)
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(raw)) => {
            PKey::public_key_from_raw_bytes(raw, Id::ED25519).map_err(unusable)
        }
        _ => Err(unsupported()),
    }
}

fn on_curve(curve: Nid, point: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let group = EcGroup::from_curve_name(curve)?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, point, &mut context)?;
    let key = EcKey::from_public_key(&group, &point)?;
    key.check_key()?;
    PKey::from_ec_key(key)
}

impl Checked {
    fn is_right(&self, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
        let digest = match self.algorithm {
            RS256 | PS256 | ES256 => MessageDigest::sha256(),
            RS384 | PS384 | ES384 => MessageDigest::sha384(),
            RS512 | PS512 => MessageDigest::sha512(),
            EdDSA => {
                return OpensslVerifier::new_without_digest(&self.key)?
                    .verify_oneshot(signature, message);
            }
            _ => return Ok(false),
        };
        let mut verifier = OpensslVerifier::new(digest, &self.key)?;
        match self.algorithm {
            PS256 | PS384 | PS512 => {
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                verifier.set_rsa_mgf1_md(digest)?;
            }
            ES256 | ES384 => {
                // A token holds the two numbers one after the other; openssl wants them as DER.
                let half = if self.algorithm == ES256 { 32 } else { 48 };
                if signature.len() != 2 * half {
                    return Ok(false);
                }
                let (r, s) = signature.split_at(half);
                let pair = EcdsaSig::from_private_components(
                    BigNum::from_slice(r)?,
                    BigNum::from_slice(s)?,
                )?;
                return verifier.verify_oneshot(&pair.to_der()?, message);
            }
            _ => {}
        }
        verifier.verify_oneshot(signature, message)
    }
}

impl Verifier<Vec<u8>> for Checked {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match self.is_right(message, signature) {
            Ok(true) => Ok(()),
            Ok(false) => Err(signature::Error::new()),
            Err(error) => Err(signature::Error::from_source(error)),
        }
    }
}

impl JwtVerifier for Checked {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
