//! Signatures made to deceive, and what is said to each. Tests only.

use super::cms::{Digest, Message, SignerId};
use super::der::{self, encode};
use super::signature::append;
use super::trust::Trusted;
use super::*;
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use openssl::x509::extension::SubjectKeyIdentifier;
use openssl::x509::{X509, X509NameBuilder};
use proptest::prelude::*;

const MODULE: &[u8] = b"\x7fELF and what follows";

struct Pair {
    key: PKey<Private>,
    cert: X509,
}

impl Pair {
    fn new(key: PKey<Private>, serial: u32) -> Self {
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "Test").unwrap();
        let name = name.build();
        let mut cert = X509::builder().unwrap();
        cert.set_version(2).unwrap();
        cert.set_subject_name(&name).unwrap();
        cert.set_issuer_name(&name).unwrap();
        let serial = BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap();
        cert.set_serial_number(&serial).unwrap();
        // Long past: the end of validity is not enforced.
        cert.set_not_before(&Asn1Time::from_unix(0).unwrap())
            .unwrap();
        cert.set_not_after(&Asn1Time::from_unix(86_400).unwrap())
            .unwrap();
        cert.set_pubkey(&key).unwrap();
        let id = SubjectKeyIdentifier::new()
            .build(&cert.x509v3_context(None, None))
            .unwrap();
        cert.append_extension(id).unwrap();
        cert.sign(&key, MessageDigest::sha256()).unwrap();
        Self {
            key,
            cert: cert.build(),
        }
    }

    fn rsa(serial: u32) -> Self {
        Self::new(
            PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap(),
            serial,
        )
    }

    fn ec(serial: u32) -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        Self::new(
            PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap(),
            serial,
        )
    }

    fn trust(&self) -> TrustStore {
        let mut trust = TrustStore::new();
        trust.add(&self.cert.to_der().unwrap()).unwrap();
        trust
    }

    fn sign(&self) -> Vec<u8> {
        let key = self.key.private_key_to_pem_pkcs8().unwrap();
        sign(MODULE, &key, &self.cert.to_pem().unwrap()).unwrap()
    }

    fn value(&self, digest: Digest, data: &[u8]) -> Vec<u8> {
        Signer::new(digest.openssl(), &self.key)
            .unwrap()
            .sign_oneshot_to_vec(data)
            .unwrap()
    }

    /// A message over `attributes`, or over the module if there are none.
    fn message(&self, attributes: Option<&[u8]>) -> Vec<u8> {
        let trusted = Trusted::new(&self.cert).unwrap();
        let signed = attributes.map_or(MODULE.to_vec(), |a| encode(der::SET, &[a]));
        Message {
            digest: Digest::Sha512,
            digest_null: true,
            signer: SignerId::Issuer {
                name: &trusted.issuer,
                serial: &trusted.serial,
            },
            attributes,
            ecdsa: false,
            value: &self.value(Digest::Sha512, &signed),
        }
        .encode()
    }

    fn verdict(&self, message: &[u8]) -> Result<Signature, SignatureError> {
        verify(&append(MODULE, message), &self.trust())
    }
}

/// Puts `extra` at the end of the element reached by taking, at each level, the child of this index.
fn grafted(element: &[u8], path: &[usize], extra: &[u8], before_last: bool) -> Vec<u8> {
    let (tag, content, _) = der::Reader::new(element).element().unwrap();
    let mut children = Vec::new();
    let mut reader = der::Reader::new(content);
    while reader.peek().is_some() {
        children.push(reader.element().unwrap().2.to_vec());
    }
    match path {
        [] => {
            let at = children.len() - usize::from(before_last);
            children.insert(at, extra.to_vec());
        }
        [first, rest @ ..] => {
            children[*first] = grafted(&children[*first], rest, extra, before_last);
        }
    }
    let children: Vec<&[u8]> = children.iter().map(Vec::as_slice).collect();
    encode(tag, &children)
}

fn attribute(oid: &[u8], value: &[u8]) -> Vec<u8> {
    encode(
        der::SEQUENCE,
        &[&encode(der::OID, &[oid]), &encode(der::SET, &[value])],
    )
}

const CONTENT_TYPE: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x03";
const MESSAGE_DIGEST: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x04";
const DATA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";

#[test]
fn both_kinds_of_keys_sign() {
    for pair in [Pair::rsa(1), Pair::ec(0x80)] {
        let signed = pair.sign();
        let signature = verify(&signed, &pair.trust()).unwrap();
        assert_eq!(signature.signer, "CN=Test");
        assert_eq!(signature.digest, "sha512");
        assert_eq!(
            pair.trust()
                .certificates()
                .next()
                .unwrap()
                .not_after
                .as_second(),
            86_400
        );
        // The same name and serial number, another key.
        let other = if pair.key.rsa().is_ok() {
            Pair::rsa(1)
        } else {
            Pair::ec(0x80)
        };
        assert!(matches!(
            verify(&signed, &other.trust()),
            Err(SignatureError::Mismatch { .. })
        ));
        // A certificate of the other kind of key.
        let other = if pair.key.rsa().is_ok() {
            Pair::ec(1)
        } else {
            Pair::rsa(0x80)
        };
        assert!(matches!(
            verify(&signed, &other.trust()),
            Err(SignatureError::Mismatch { .. })
        ));
        // Both installed: the right one is found.
        let mut trust = other.trust();
        trust.add(&pair.cert.to_pem().unwrap()).unwrap();
        assert_eq!(verify(&signed, &trust), Ok(signature));
    }
}

#[test]
fn signed_attributes_must_hold_the_digest() {
    let pair = Pair::rsa(1);
    let kind = attribute(CONTENT_TYPE, &encode(der::OID, &[DATA]));
    let digest_of = |data: &[u8]| {
        let digest = openssl::hash::hash(MessageDigest::sha512(), data).unwrap();
        attribute(MESSAGE_DIGEST, &encode(der::OCTET_STRING, &[&digest]))
    };
    let good = [kind.clone(), digest_of(MODULE)].concat();
    assert!(pair.verdict(&pair.message(Some(&good))).is_ok());
    let other = [kind.clone(), digest_of(b"another module")].concat();
    assert!(matches!(
        pair.verdict(&pair.message(Some(&other))),
        Err(SignatureError::Mismatch { .. })
    ));
    for bad in [
        kind.clone(),
        digest_of(MODULE),
        [kind.clone(), digest_of(MODULE), digest_of(b"x")].concat(),
        [kind.clone(), kind.clone(), digest_of(MODULE)].concat(),
        Vec::new(),
        b"\x05\x00".to_vec(),
    ] {
        let found = pair.verdict(&pair.message(Some(&bad)));
        assert!(
            matches!(found, Err(SignatureError::Malformed { .. })),
            "{found:?}"
        );
    }
    // A signature over attributes must not pass as one over a module made of those attributes.
    let as_module = encode(der::SET, &[&good]);
    let mut message = pair.message(Some(&good));
    let bare = pair.message(None);
    assert!(verify(&append(&as_module, &message), &pair.trust()).is_err());
    message.truncate(bare.len());
    assert!(verify(&append(&as_module, &message), &pair.trust()).is_err());
}

#[test]
fn parts_that_nothing_covers_are_refused() {
    let pair = Pair::rsa(1);
    let message = pair.message(None);
    assert!(pair.verdict(&message).is_ok());
    let signer = [1, 0, 3, 0];
    let note = encode(0xa1, &[&attribute(MESSAGE_DIGEST, b"\x05\x00")]);
    let certificates = encode(0xa0, &[&pair.cert.to_der().unwrap()]);
    let content = encode(0xa0, &[&encode(der::OCTET_STRING, &[MODULE])]);
    let digest = encode(der::SEQUENCE, &[&encode(der::OID, &[Digest::Sha256.oid()])]);
    for (what, forged, why) in [
        (
            "unsigned attributes",
            grafted(&message, &signer, &note, false),
            "unsigned attributes",
        ),
        (
            "certificates",
            grafted(&message, &[1, 0], &certificates, true),
            "embeds certificates",
        ),
        (
            "revocation lists",
            grafted(&message, &[1, 0], &encode(0xa1, &[]), true),
            "embeds certificates",
        ),
        (
            "content",
            grafted(&message, &[1, 0, 2], &content, false),
            "content of its own",
        ),
        (
            "two digests",
            grafted(&message, &[1, 0, 1], &digest, false),
            "several digest",
        ),
        (
            "two signers",
            grafted(&message, &[1, 0, 3], &digest, false),
            "several signers",
        ),
        (
            "a tail in the signed data",
            grafted(&message, &[1], b"\x05\x00", false),
            "bytes follow",
        ),
        (
            "a tail",
            [message.as_slice(), b"\0"].concat(),
            "bytes follow",
        ),
        (
            "a parameter",
            grafted(&message, &[1, 0, 3, 0, 2], b"\x05\x00", false),
            "has parameters",
        ),
    ] {
        match pair.verdict(&forged) {
            Err(SignatureError::Malformed { why: found }) => {
                assert!(found.contains(why), "{what}: {found}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    // Lengths written longer than needed, and versions that do not fit.
    let mut loose = vec![0x30, 0x83, 0];
    loose.extend_from_slice(&message[2..]);
    assert!(matches!(
        pair.verdict(&loose),
        Err(SignatureError::Malformed { .. })
    ));
    let version = message.windows(3).position(|w| w == [2, 1, 1]).unwrap();
    let mut other = message.clone();
    other[version + 2] = 3;
    assert!(matches!(
        pair.verdict(&other),
        Err(SignatureError::Malformed { why }) if why.contains("encoding")
    ));
}

#[test]
fn weak_and_unknown_algorithms_are_refused() {
    let pair = Pair::rsa(1);
    let message = pair.message(None);
    let replaced = |from: &[u8], to: &[u8]| {
        let mut changed = message.clone();
        for at in 0..changed.len() - from.len() {
            if changed[at..].starts_with(from) {
                changed[at..at + to.len()].copy_from_slice(to);
            }
        }
        assert_ne!(changed, message);
        pair.verdict(&changed)
    };
    let sha224 = b"\x60\x86\x48\x01\x65\x03\x04\x02\x04";
    assert!(matches!(
        replaced(Digest::Sha512.oid(), sha224),
        Err(SignatureError::Unsupported { what }) if what.contains("digest")
    ));
    // Another digest than the one that was signed.
    assert!(matches!(
        replaced(Digest::Sha512.oid(), Digest::Sha256.oid()),
        Err(SignatureError::Mismatch { .. })
    ));
    let rsa = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    let pss = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
    assert!(matches!(
        replaced(rsa, pss),
        Err(SignatureError::Unsupported { what }) if what.contains("signature algorithm")
    ));
}

#[test]
fn certificates_come_as_pem_or_der_and_must_be_strong() {
    let (one, two) = (Pair::rsa(1), Pair::ec(2));
    let mut trust = TrustStore::new();
    let pem = [one.cert.to_pem().unwrap(), two.cert.to_pem().unwrap()].concat();
    assert_eq!(trust.add(&pem), Ok(2));
    assert_eq!(trust.add(&pem), Ok(0));
    let der = [one.cert.to_der().unwrap(), two.cert.to_der().unwrap()].concat();
    assert_eq!(trust.add(&der), Ok(0));
    assert_eq!(trust.len(), 2);
    let key = one.key.private_key_to_pem_pkcs8().unwrap();
    for bad in [
        &b""[..],
        b"hello",
        &key,
        &der[..der.len() - 1],
        b"-----BEGIN CERTIFICATE-----\nx",
    ] {
        assert!(matches!(trust.add(bad), Err(TrustError::Unreadable(_))));
    }
    let weak = Pair::new(PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap(), 3);
    assert!(matches!(
        trust.add(&weak.cert.to_der().unwrap()),
        Err(TrustError::Key { why, .. }) if why.contains("1024 bits")
    ));
    assert_eq!(trust.len(), 2);
    assert!(!format!("{trust:?}").is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_signature_panics(message in proptest::collection::vec(any::<u8>(), 0..300), tail in proptest::collection::vec(any::<u8>(), 0..60)) {
        let trust = TrustStore::new();
        prop_assert!(verify(&append(MODULE, &message), &trust).is_err());
        prop_assert!(verify(&[&tail, &b"~Module signature appended~\n"[..]].concat(), &trust).is_err());
        prop_assert!(TrustStore::new().add(&tail).is_err());
    }
}
