//! The PKCS#7 message of a module signature: CMS `SignedData` (RFC 5652) with one signer, detached, as the kernel's
//! `sign-file` writes it.
//!
//! Invariant: what is parsed has one encoding only. The message is read strictly, encoded again from what was
//! understood, and compared, so no byte of it can be changed, added or left unread; parts that no signature covers
//! (embedded certificates, revocation lists, unsigned attributes) are refused.

use super::der::{self, DerError, Reader};
use super::error::SignatureError;
use super::trust::{Trusted, colons, name_text};
use openssl::hash::MessageDigest;
use openssl::x509::X509Name;
use std::fmt;

// Object identifiers, as the content of their DER element.
const SIGNED_DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
const CONTENT_TYPE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
const MESSAGE_DIGEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
const RSA_ENCRYPTION: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

/// A digest that is accepted in a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

impl Digest {
    const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    pub(super) fn openssl(self) -> MessageDigest {
        match self {
            Self::Sha256 => MessageDigest::sha256(),
            Self::Sha384 => MessageDigest::sha384(),
            Self::Sha512 => MessageDigest::sha512(),
        }
    }

    pub(super) const fn oid(self) -> &'static [u8] {
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

impl From<DerError> for SignatureError {
    fn from(e: DerError) -> Self {
        Self::Malformed {
            why: e.0.to_owned(),
        }
    }
}

/// Whom a signature names as signer.
pub(super) enum SignerId<'a> {
    /// DER of the issuer's name, content of the serial number.
    Issuer { name: &'a [u8], serial: &'a [u8] },
    /// Subject key id.
    KeyId(&'a [u8]),
}

impl SignerId<'_> {
    pub(super) fn is(&self, trusted: &Trusted) -> bool {
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
pub(super) struct Message<'a> {
    pub(super) digest: Digest,
    /// Whether the digest's parameters are an explicit NULL (both forms are in use) rather than absent.
    pub(super) digest_null: bool,
    pub(super) signer: SignerId<'a>,
    /// Content of the signed attributes, if there are any.
    pub(super) attributes: Option<&'a [u8]>,
    pub(super) ecdsa: bool,
    pub(super) value: &'a [u8],
}

impl<'a> Message<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, SignatureError> {
        let mut outer = Reader::new(bytes);
        let mut info = Reader::new(outer.expect(der::SEQUENCE, "it is not a CMS message")?);
        outer.finish("bytes follow the message")?;
        if info.expect(der::OID, "it is not a CMS message")? != SIGNED_DATA {
            return Err(SignatureError::malformed(
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
            return Err(SignatureError::malformed(
                "the signed content is of another type than data",
            ));
        }
        encapsulated.finish("it carries content of its own")?;
        if data.peek() != Some(der::SET) {
            return Err(SignatureError::malformed(
                "it embeds certificates or revocation lists, which no signature covers",
            ));
        }
        let mut signers = Reader::new(data.expect(der::SET, "the signers are missing")?);
        data.finish("bytes follow the signers")?;
        let mut signer = Reader::new(signers.expect(der::SEQUENCE, "it has no signer")?);
        signers.finish("it has several signers")?;

        signer.expect(der::INTEGER, "the signer's version is missing")?;
        let id = signer_id(&mut signer)?;
        // The digest stands here again; that it is the same is seen when the message is encoded again.
        self::digest(&mut signer)?;
        let attributes = match signer.peek() {
            Some(der::CONTEXT_0_CONSTRUCTED) => Some(signer.element()?.1),
            _ => None,
        };
        let message = Self {
            digest,
            digest_null,
            signer: id,
            attributes,
            ecdsa: signature_algorithm(&mut signer, digest)?,
            value: signer.expect(der::OCTET_STRING, "the signature's value is missing")?,
        };
        signer.finish("it has unsigned attributes, which no signature covers")?;
        if message.encode() != bytes {
            return Err(SignatureError::malformed(
                "its encoding is not the one and only for its content",
            ));
        }
        Ok(message)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
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
        return Err(SignatureError::malformed("an algorithm has parameters"));
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
                return Err(SignatureError::malformed("the signer's issuer is missing"));
            }
            let serial = inner.expect(der::INTEGER, "the signer's serial number is missing")?;
            inner.finish("bytes follow the signer's serial number")?;
            Ok(SignerId::Issuer { name, serial })
        }
        _ => Err(SignatureError::malformed(
            "the signer is named in an unknown way",
        )),
    }
}

/// Checks that signed attributes name the content's type and digest, each once. Others, such as a signing time, are
/// covered by the signature and say nothing that matters here.
pub(super) fn check_attributes(attributes: &[u8], expected: &[u8]) -> Result<bool, SignatureError> {
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
        return Err(SignatureError::malformed(
            "the signed attributes do not name type and digest of the content, each once",
        ));
    }
    Ok(digests[0] == der::encode(der::OCTET_STRING, &[expected]))
}
