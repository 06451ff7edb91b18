//! The signature appended to a kernel module: reading, verifying and making it.
//!
//! Layout (`include/linux/module_signature.h`): module, PKCS#7 message, a 12-byte structure, and a line of magic.
//! The message is CMS `SignedData` (RFC 5652) with one signer, detached, as the kernel's `sign-file` writes it.
//! Invariant: what verifies has one encoding only. The message is parsed strictly, encoded again from what was
//! understood, and compared, so no byte of it can be changed, added or left unread; parts that no signature covers
//! (embedded certificates, revocation lists, unsigned attributes) are refused. Only the ECDSA value itself has, by its
//! mathematics, a second valid form.

use super::der::{self, DerError, Reader};
use super::trust::{self, TrustStore, Trusted, colons, name_text};
use openssl::hash::{MessageDigest, hash};
use openssl::pkey::{Id, PKey, PKeyRef, Private};
use openssl::sign::{Signer, Verifier};
use openssl::x509::X509Name;
use std::fmt;

const MAGIC: &[u8] = b"~Module signature appended~\n";
const INFO: usize = 12;
const ID_TYPE_PKCS7: u8 = 2;
/// The largest PKCS#7 message read, in bytes. With RSA of 4096 bits one has about 700.
pub const MAX_SIGNATURE_BYTES: usize = 16 << 10;

// Object identifiers, as the content of their DER element.
const SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const CONTENT_TYPE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
const MESSAGE_DIGEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

/// A digest that is accepted in a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn openssl(self) -> MessageDigest {
        match self {
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    const fn oid(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"\x60\x86\x48\x01\x65\x03\x04\x02\x01",
            Self::Sha384 => b"\x60\x86\x48\x01\x65\x03\x04\x02\x02",
            Self::Sha512 => b"\x60\x86\x48\x01\x65\x03\x04\x02\x03",
        }
    }

    const fn ecdsa_oid(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"\x2a\x86\x48\xce\x3d\x04\x03\x02",
            Self::Sha384 => b"\x2a\x86\x48\xce\x3d\x04\x03\x03",
            Self::Sha512 => b"\x2a\x86\x48\xce\x3d\x04\x03\x04",
        }
    }
}

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

/// Why a module's signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No signature at the module's end.
    #[error("the module carries no signature")]
    Missing,
    /// A signature is there, but its structure is wrong.
    #[error("the module's signature is malformed: {why}")]
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// The signature is larger than any real one.
    #[error("the module's signature claims {size} bytes; at most {limit} are read")]
    TooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An algorithm that is too weak or unknown.
    #[error(
        "the module's signature uses {what}, which is not accepted; sign with SHA-256, SHA-384 or SHA-512 and RSA or ECDSA"
    )]
    Unsupported {
        /// The algorithm, as far as it is known.
        what: String,
    },
    /// The signer is none of the installed certificates.
    #[error(
        "the module is signed by {signer}, which is none of the {installed} installed certificates; if it is to be trusted, add its certificate"
    )]
    UntrustedSigner {
        /// The signer's issuer and serial number or key id, as the signature claims.
        signer: String,
        /// How many certificates are installed.
        installed: usize,
    },
    /// The signature names an installed certificate, but is not that key's signature of this module.
    #[error(
        "the module's signature claims {signer}, but does not fit the module: one of the two was changed"
    )]
    Mismatch {
        /// The subject of the certificate it names.
        signer: String,
    },
}

impl From<DerError> for SignatureError {
    fn from(e: DerError) -> Self {
        Self::Malformed {
            why: e.0.to_owned(),
        }
    }
}

fn malformed(why: impl Into<String>) -> SignatureError {
    SignatureError::Malformed { why: why.into() }
}

/// Whom a signature names as signer.
enum SignerId<'a> {
    /// DER of the issuer's name, content of the serial number.
    Issuer { name: &'a [u8], serial: &'a [u8] },
    /// Subject key id.
    KeyId(&'a [u8]),
}

impl SignerId<'_> {
    fn is(&self, trusted: &Trusted) -> bool {
        match self {
            Self::Issuer { name, serial } => trusted.issuer == *name && trusted.serial == *serial,
            Self::KeyId(id) => trusted.key_id.as_deref() == Some(*id),
        }
    }

    /// The version numbers of `SignedData` and `SignerInfo` follow from the kind of identifier (RFC 5652, 5.1 and 5.3).
    const fn version(&self) -> u8 {
        match self {
            Self::Issuer { .. } => 1,
            Self::KeyId(_) => 3,
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Issuer { name, serial } => der::encode(
                der::SEQUENCE,
                &[name, &der::encode(der::INTEGER, &[serial])],
            ),
            Self::KeyId(id) => der::encode(der::CONTEXT_0, &[id]),
        }
    }
}

impl fmt::Display for SignerId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Issuer { name, serial } => {
                let text = X509Name::from_der(name).map(|name| name_text(&name));
                let text = text.unwrap_or_else(|_| "an unreadable name".to_owned());
                let serial = &serial[..serial.len().min(20)];
                write!(f, "a key of {text:?} with serial {}", colons(serial))
            }
            Self::KeyId(id) => write!(f, "key id {}", colons(&id[..id.len().min(64)])),
        }
    }
}

/// What was understood of a message; [`Message::encode`] gives exactly the bytes it was read from.
struct Message<'a> {
    digest: Digest,
    /// Whether the digest's parameters are an explicit NULL (both forms are in use) rather than absent.
    digest_null: bool,
    signer: SignerId<'a>,
    /// Content of the signed attributes, if there are any.
    attributes: Option<&'a [u8]>,
    ecdsa: bool,
    value: &'a [u8],
}

impl<'a> Message<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, SignatureError> {
        let mut outer = Reader::new(bytes);
        let mut info = Reader::new(outer.expect(der::SEQUENCE, "it is not a CMS message")?);
        outer.finish("bytes follow the message")?;
        if info.expect(der::OID, "it is not a CMS message")? != SIGNED_DATA {
            return Err(malformed(
                "it is a CMS message of another kind than signed data",
            ));
        }
        let content = info.expect(der::CONTEXT_0_CONSTRUCTED, "it has no signed data")?;
        info.finish("bytes follow the signed data")?;
        let mut wrapped = Reader::new(content);
        let mut data = Reader::new(wrapped.expect(der::SEQUENCE, "it has no signed data")?);
        wrapped.finish("bytes follow the signed data")?;

        data.expect(der::INTEGER, "the version is missing")?;
        let mut digests = Reader::new(data.expect(der::SET, "the digest algorithms are missing")?);
        let (digest, digest_null) = digest(&mut digests)?;
        digests.finish("it names several digest algorithms")?;
        let mut encapsulated =
            Reader::new(data.expect(der::SEQUENCE, "the content type is missing")?);
        if encapsulated.expect(der::OID, "the content type is missing")? != DATA {
            return Err(malformed("the signed content is of another type than data"));
        }
        encapsulated.finish("it carries content of its own")?;
        if data.peek() != Some(der::SET) {
            return Err(malformed(
                "it embeds certificates or revocation lists, which no signature covers",
            ));
        }
        let mut signers = Reader::new(data.expect(der::SET, "the signers are missing")?);
        data.finish("bytes follow the signers")?;
        let mut signer = Reader::new(signers.expect(der::SEQUENCE, "it has no signer")?);
        signers.finish("it has several signers")?;

        signer.expect(der::INTEGER, "the signer's version is missing")?;
        let message = Self {
            digest,
            digest_null,
            signer: signer_id(&mut signer)?,
            attributes: {
                // The digest stands here again; that it is the same is seen when the message is encoded again.
                self::digest(&mut signer)?;
                match signer.peek() {
                    Some(der::CONTEXT_0_CONSTRUCTED) => Some(signer.element()?.1),
                    _ => None,
                }
            },
            ecdsa: signature_algorithm(&mut signer, digest)?,
            value: signer.expect(der::OCTET_STRING, "the signature's value is missing")?,
        };
        signer.finish("it has unsigned attributes, which no signature covers")?;
        if message.encode() != bytes {
            return Err(malformed(
                "its encoding is not the one and only for its content",
            ));
        }
        Ok(message)
    }

    fn encode(&self) -> Vec<u8> {
        use der::{INTEGER, OID, SEQUENCE, SET, encode};
        let null = encode(der::NULL, &[]);
        let digest_oid = encode(OID, &[self.digest.oid()]);
        let digest = if self.digest_null {
            encode(SEQUENCE, &[&digest_oid, &null])
        } else {
            encode(SEQUENCE, &[&digest_oid])
        };
        let algorithm = if self.ecdsa {
            encode(SEQUENCE, &[&encode(OID, &[self.digest.ecdsa_oid()])])
        } else {
            encode(SEQUENCE, &[&encode(OID, &[RSA_ENCRYPTION]), &null])
        };
        let version = encode(INTEGER, &[&[self.signer.version()]]);
        let attributes = self
            .attributes
            .map(|attributes| encode(der::CONTEXT_0_CONSTRUCTED, &[attributes]));
        let signer = encode(
            SEQUENCE,
            &[
                &version,
                &self.signer.encode(),
                &digest,
                attributes.as_deref().unwrap_or_default(),
                &algorithm,
                &encode(der::OCTET_STRING, &[self.value]),
            ],
        );
        let data = encode(
            SEQUENCE,
            &[
                &version,
                &encode(SET, &[&digest]),
                &encode(SEQUENCE, &[&encode(OID, &[DATA])]),
                &encode(SET, &[&signer]),
            ],
        );
        encode(
            SEQUENCE,
            &[
                &encode(OID, &[SIGNED_DATA]),
                &encode(der::CONTEXT_0_CONSTRUCTED, &[&data]),
            ],
        )
    }
}

/// An algorithm identifier: its OID and whether its parameters are an explicit NULL.
fn algorithm<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], bool), SignatureError> {
    let mut inner = Reader::new(reader.expect(der::SEQUENCE, "an algorithm is missing")?);
    let oid = inner.expect(der::OID, "an algorithm is missing")?;
    let null = inner.peek().is_some();
    if null
        && !inner
            .expect(der::NULL, "an algorithm has parameters")?
            .is_empty()
    {
        return Err(malformed("an algorithm has parameters"));
    }
    inner.finish("an algorithm has parameters")?;
    Ok((oid, null))
}

fn unsupported(what: &str, oid: &[u8]) -> SignatureError {
    SignatureError::Unsupported {
        what: format!("{what} {}", colons(&oid[..oid.len().min(16)])),
    }
}

fn digest(reader: &mut Reader<'_>) -> Result<(Digest, bool), SignatureError> {
    let (oid, null) = algorithm(reader)?;
    let digest = Digest::ALL.into_iter().find(|d| d.oid() == oid);
    let digest = digest.ok_or_else(|| unsupported("the digest algorithm with object id", oid))?;
    Ok((digest, null))
}

/// Whether the signature is ECDSA rather than RSA.
fn signature_algorithm(reader: &mut Reader<'_>, digest: Digest) -> Result<bool, SignatureError> {
    let (oid, _) = algorithm(reader)?;
    if oid == digest.ecdsa_oid() {
        Ok(true)
    } else if oid == RSA_ENCRYPTION {
        Ok(false)
    } else {
        Err(unsupported("the signature algorithm with object id", oid))
    }
}

fn signer_id<'a>(reader: &mut Reader<'a>) -> Result<SignerId<'a>, SignatureError> {
    match reader.element()? {
        (der::CONTEXT_0, id, _) => Ok(SignerId::KeyId(id)),
        (der::SEQUENCE, content, _) => {
            let mut inner = Reader::new(content);
            let (tag, _, name) = inner.element()?;
            if tag != der::SEQUENCE {
                return Err(malformed("the signer's issuer is missing"));
            }
            let serial = inner.expect(der::INTEGER, "the signer's serial number is missing")?;
            inner.finish("bytes follow the signer's serial number")?;
            Ok(SignerId::Issuer { name, serial })
        }
        _ => Err(malformed("the signer is named in an unknown way")),
    }
}

/// Checks that signed attributes name the content's type and digest, each once. Others, such as a signing time, are
/// covered by the signature and say nothing that matters here.
fn check_attributes(attributes: &[u8], expected: &[u8]) -> Result<bool, SignatureError> {
    let mut reader = Reader::new(attributes);
    let (mut types, mut digests) = (Vec::new(), Vec::new());
    while reader.peek().is_some() {
        let mut inner = Reader::new(reader.expect(der::SEQUENCE, "a signed attribute is wrong")?);
        let oid = inner.expect(der::OID, "a signed attribute is wrong")?;
        let values = inner.expect(der::SET, "a signed attribute is wrong")?;
        inner.finish("a signed attribute is wrong")?;
        match oid {
            CONTENT_TYPE => types.push(values),
            MESSAGE_DIGEST => digests.push(values),
            _ => {}
        }
    }
    if types != [der::encode(der::OID, &[DATA])] || digests.len() != 1 {
        return Err(malformed(
            "the signed attributes do not name type and digest of the content, each once",
        ));
    }
    Ok(digests[0] == der::encode(der::OCTET_STRING, &[expected]))
}

/// Cuts a module into its content and the PKCS#7 message behind it.
fn split(module: &[u8]) -> Result<(&[u8], &[u8]), SignatureError> {
    let rest = module.strip_suffix(MAGIC).ok_or(SignatureError::Missing)?;
    let (rest, info) = rest
        .split_last_chunk::<INFO>()
        .ok_or_else(|| malformed("the file is too short for a signature"))?;
    let [algo, hash, id_type, signer_len, key_id_len, pad @ ..] = *info;
    let [p0, p1, p2, s0, s1, s2, s3] = pad;
    if id_type != ID_TYPE_PKCS7 {
        return Err(malformed(format!(
            "it is of type {id_type}, not PKCS#7 (2)"
        )));
    }
    if [algo, hash, signer_len, key_id_len, p0, p1, p2] != [0; 7] {
        return Err(malformed("fields that must be zero with PKCS#7 are not"));
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
        _ => Err(malformed(format!(
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
    let actual = hash(digest, content).map_err(|e| malformed(e.to_string()))?;
    // What is signed is the attributes under the tag of a SET (RFC 5652, 5.4).
    Ok(check_attributes(attributes, &actual)? && verified(&der::encode(der::SET, &[attributes])))
}

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
    if module.ends_with(MAGIC) {
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
    let mut signed = module.to_vec();
    signed.extend_from_slice(&message);
    signed.extend_from_slice(&[0, 0, ID_TYPE_PKCS7, 0, 0, 0, 0, 0]);
    signed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    signed.extend_from_slice(MAGIC);
    Ok(signed)
}

/// Whether a signature of any kind stands at the module's end.
pub(super) fn is_signed(module: &[u8]) -> bool {
    module.ends_with(MAGIC)
}

fn signature_value(
    digest: Digest,
    key: &PKeyRef<Private>,
    module: &[u8],
) -> Result<Vec<u8>, openssl::error::ErrorStack> {
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
