//! openssl as the cryptography of object_store's request signing, so that the program carries one implementation.

use object_store::client::{
    CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm,
};
use openssl::error::ErrorStack;
use openssl::hash::{Hasher, MessageDigest};
use openssl::pkey::{PKey, Private};

/// The provider.
#[derive(Debug)]
pub(super) struct Openssl;

fn failed(error: ErrorStack) -> object_store::Error {
    object_store::Error::Generic {
        store: "openssl",
        source: error.into(),
    }
}

fn digest(algorithm: &DigestAlgorithm) -> object_store::Result<MessageDigest> {
    match algorithm {
        DigestAlgorithm::Sha256 => Ok(MessageDigest::sha256()),
        other => Err(object_store::Error::NotSupported {
            source: format!("digest algorithm {other:?}").into(),
        }),
    }
}

impl CryptoProvider for Openssl {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        let hasher = Hasher::new(digest(&algorithm)?).map_err(failed)?;
        Ok(Box::new(Digest {
            hasher,
            error: None,
            out: Vec::new(),
        }))
    }

    fn hmac(
        &self,
        algorithm: DigestAlgorithm,
        secret: &[u8],
    ) -> object_store::Result<Box<dyn HmacContext>> {
        Ok(Box::new(Hmac {
            digest: digest(&algorithm)?,
            key: PKey::hmac(secret).map_err(failed)?,
            data: Vec::new(),
            out: Vec::new(),
        }))
    }

    fn sign(
        &self,
        algorithm: SigningAlgorithm,
        pem: &[u8],
    ) -> object_store::Result<Box<dyn Signer>> {
        match algorithm {
            SigningAlgorithm::RS256 => {
                let key = PKey::private_key_from_pem(pem).map_err(failed)?;
                Ok(Box::new(Rsa(key)))
            }
            other => Err(object_store::Error::NotSupported {
                source: format!("signing algorithm {other:?}").into(),
            }),
        }
    }
}

struct Digest {
    hasher: Hasher,
    error: Option<ErrorStack>,
    out: Vec<u8>,
}

impl DigestContext for Digest {
    fn update(&mut self, data: &[u8]) {
        if let Err(error) = self.hasher.update(data) {
            self.error = Some(error);
        }
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        if let Some(error) = self.error.take() {
            return Err(failed(error));
        }
        self.out = self.hasher.finish().map_err(failed)?.to_vec();
        Ok(&self.out)
    }
}

/// What is signed is a few hundred bytes, so it is gathered and signed at once.
struct Hmac {
    digest: MessageDigest,
    key: PKey<Private>,
    data: Vec<u8>,
    out: Vec<u8>,
}

impl HmacContext for Hmac {
    fn update(&mut self, data: &[u8]) {
        self.data.extend_from_slice(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        let mut signer = openssl::sign::Signer::new(self.digest, &self.key).map_err(failed)?;
        self.out = signer.sign_oneshot_to_vec(&self.data).map_err(failed)?;
        Ok(&self.out)
    }
}

struct Rsa(PKey<Private>);

impl Signer for Rsa {
    fn sign(&self, string_to_sign: &[u8]) -> object_store::Result<Vec<u8>> {
        openssl::sign::Signer::new(MessageDigest::sha256(), &self.0)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(string_to_sign))
            .map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_macs_match_published_vectors() {
        // FIPS 180-2, appendix B.1, given in two pieces; RFC 4231, test case 2.
        let mut context = Openssl.digest(DigestAlgorithm::Sha256).unwrap();
        context.update(b"a");
        context.update(b"bc");
        assert_eq!(
            hex::encode(context.finish().unwrap()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut context = Openssl.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        context.update(b"what do ya want ");
        context.update(b"for nothing?");
        assert_eq!(
            hex::encode(context.finish().unwrap()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn signatures_verify_with_the_public_key() {
        let key = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
        let pem = key.private_key_to_pem_pkcs8().unwrap();
        let signer = Openssl.sign(SigningAlgorithm::RS256, &pem).unwrap();
        let signature = signer.sign(b"text").unwrap();
        let mut verifier = openssl::sign::Verifier::new(MessageDigest::sha256(), &key).unwrap();
        assert!(verifier.verify_oneshot(&signature, b"text").unwrap());
        assert!(Openssl.sign(SigningAlgorithm::RS256, b"no key").is_err());
    }
}
