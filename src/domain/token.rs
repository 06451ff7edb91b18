//! Tokens: what they look like, how they are stored and how a machine token proves itself without a query.
//!
//! * Random tokens (auth, session, sync) are 256 bits with a prefix that names their kind; only their SHA-256 is
//!   stored. A fast hash suffices because they cannot be guessed.
//! * A machine token is a MAC over the machine, the auth token it registered with and the time of registration:
//!   `lpm_` + base64url(machine id 16 | auth token id be32 | unix microseconds be64 | HMAC-SHA256 32).
//!
//! Randomness is an argument, as the clock is: this module is pure.

use super::{MachineId, Sha256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use openssl::sha;

/// Prefix of auth tokens.
pub const AUTH_PREFIX: &str = "lpa_";
/// Prefix of machine tokens.
pub const MACHINE_PREFIX: &str = "lpm_";
/// Prefix of session tokens of administrators.
pub const SESSION_PREFIX: &str = "lps_";
/// Prefix of service tokens: of programs that use the admin API.
pub const SERVICE_PREFIX: &str = "lpv_";
/// Prefix of sync tokens of other servers.
pub const SYNC_PREFIX: &str = "lpy_";

/// A random token as text: prefix and 256 bits in base64url.
pub fn random_token(prefix: &str, random: [u8; 32]) -> String {
    format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// What is stored of a random token. Surrounding white space does not count.
pub fn token_hash(token: &str) -> Sha256 {
    Sha256::of(token.trim().as_bytes())
}

/// The key that machine tokens are signed with; the same on every replica.
///
/// Kept as what HMAC (RFC 2104) makes of a key: SHA-256 after the key's block, once for each of its two passes. Setting
/// them up anew for each token costs ten times as much as the MAC itself.
#[derive(Clone)]
pub struct MachineTokenKey {
    inner: sha::Sha256,
    outer: sha::Sha256,
}

impl std::fmt::Debug for MachineTokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MachineTokenKey([secret])")
    }
}

/// What a valid machine token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineClaims {
    /// The machine it was given to.
    pub machine: MachineId,
    /// Database id of the auth token the machine registered with.
    pub auth_token: i32,
    /// When it was given out, in unix microseconds.
    pub issued_at: i64,
}

const CLAIMS_LEN: usize = 16 + 4 + 8;
const TOKEN_LEN: usize = CLAIMS_LEN + 32;
/// What the MAC of a download begins with.
const DOWNLOAD: &[u8] = b"livepatch download\0";
/// What SHA-256 reads at a time, in bytes.
const SHA256_BLOCK: usize = 64;

impl MachineTokenKey {
    /// Takes the key's bytes; at least 32 are required.
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < 32 {
            return Err(format!(
                "the machine token key has {} bytes; at least 32 are needed",
                bytes.len()
            ));
        }
        let mut block = [0u8; SHA256_BLOCK];
        if bytes.len() <= SHA256_BLOCK {
            block[..bytes.len()].copy_from_slice(bytes);
        } else {
            block[..32].copy_from_slice(&sha::sha256(bytes));
        }
        let keyed = |pad: u8| {
            let mut state = sha::Sha256::new();
            state.update(&block.map(|byte| byte ^ pad));
            state
        };
        Ok(Self {
            inner: keyed(0x36),
            outer: keyed(0x5c),
        })
    }

    fn mac(&self, claims: &[u8]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        inner.update(claims);
        let mut outer = self.outer.clone();
        outer.update(&inner.finish());
        outer.finish()
    }

    /// Makes a machine token.
    pub fn issue(&self, claims: &MachineClaims) -> String {
        let mut bytes = [0u8; TOKEN_LEN];
        bytes[..16].copy_from_slice(&claims.machine.0);
        bytes[16..20].copy_from_slice(&claims.auth_token.to_be_bytes());
        bytes[20..CLAIMS_LEN].copy_from_slice(&claims.issued_at.to_be_bytes());
        let mac = self.mac(&bytes[..CLAIMS_LEN]);
        bytes[CLAIMS_LEN..].copy_from_slice(&mac);
        format!("{MACHINE_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The MAC of a download: that this machine may fetch this file until then, in unix seconds.
    fn download_mac(&self, filename: &str, machine: &MachineId, until: i64) -> [u8; 32] {
        let mut text = Vec::with_capacity(DOWNLOAD.len() + 24 + filename.len());
        // Longer than the claims of a machine token, whose MACs are made with the same key.
        text.extend_from_slice(DOWNLOAD);
        text.extend_from_slice(&machine.0);
        text.extend_from_slice(&until.to_be_bytes());
        text.extend_from_slice(filename.as_bytes());
        self.mac(&text)
    }

    /// The signature of a download's address.
    pub fn sign_download(&self, filename: &str, machine: &MachineId, until: i64) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.download_mac(filename, machine, until))
    }

    /// Whether a download's address was signed with this key, for exactly this file, machine and time.
    pub fn is_download(
        &self,
        signature: &str,
        filename: &str,
        machine: &MachineId,
        until: i64,
    ) -> bool {
        let mut given = [0u8; 32];
        let len = BASE64_URL_SAFE_NO_PAD.decode_slice(signature, &mut given);
        len == Ok(32) && openssl::memcmp::eq(&self.download_mac(filename, machine, until), &given)
    }

    /// Checks a machine token and returns its claims; `None` for anything not issued with this key.
    pub fn verify(&self, token: &str) -> Option<MachineClaims> {
        let encoded = token.trim().strip_prefix(MACHINE_PREFIX)?;
        let mut bytes = [0u8; TOKEN_LEN];
        let len = BASE64_URL_SAFE_NO_PAD
            .decode_slice(encoded, &mut bytes)
            .ok()?;
        if len != TOKEN_LEN {
            return None;
        }
        let (claims, mac) = bytes.split_at(CLAIMS_LEN);
        if !openssl::memcmp::eq(&self.mac(claims), mac) {
            return None;
        }
        Some(MachineClaims {
            machine: MachineId(claims[..16].try_into().ok()?),
            auth_token: i32::from_be_bytes(claims[16..20].try_into().ok()?),
            issued_at: i64::from_be_bytes(claims[20..28].try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> MachineClaims {
        MachineClaims {
            machine: MachineId([7; 16]),
            auth_token: 42,
            issued_at: 1_700_000_000,
        }
    }

    #[test]
    fn a_machine_token_proves_its_claims() {
        let key = MachineTokenKey::new(&[1; 32]).unwrap();
        let token = key.issue(&claims());
        assert_eq!(key.verify(&token), Some(claims()));
        assert_eq!(MachineTokenKey::new(&[2; 32]).unwrap().verify(&token), None);
        assert!(MachineTokenKey::new(&[1; 31]).is_err());
    }

    /// Keys shorter than a block, of a block, and longer: what openssl's own HMAC says of them.
    #[test]
    fn the_mac_is_hmac_sha256() {
        use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};
        for len in [32, 63, 64, 65, 131] {
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let pkey = PKey::hmac(&bytes).unwrap();
            let mut signer = Signer::new(MessageDigest::sha256(), &pkey).unwrap();
            for text in [b"".as_slice(), b"claims", &[7; 200]] {
                let theirs = signer.sign_oneshot_to_vec(text).unwrap();
                let ours = MachineTokenKey::new(&bytes).unwrap().mac(text);
                assert_eq!(ours.as_slice(), theirs, "a key of {len} bytes");
                signer = Signer::new(MessageDigest::sha256(), &pkey).unwrap();
            }
        }
    }

    #[test]
    fn every_changed_character_breaks_it() {
        let key = MachineTokenKey::new(&[1; 32]).unwrap();
        let token = key.issue(&claims());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                key.verify(&String::from_utf8(bytes).unwrap()),
                None,
                "position {at}"
            );
        }
        assert_eq!(key.verify(&token[..token.len() - 1]), None);
        assert_eq!(key.verify(""), None);
    }

    #[test]
    fn a_download_is_signed_for_one_file_machine_and_time() {
        let key = MachineTokenKey::new(&[1; 32]).unwrap();
        let (ours, other) = (MachineId([7; 16]), MachineId([8; 16]));
        let signature = key.sign_download("a.tar.bz2", &ours, 1000);
        assert!(key.is_download(&signature, "a.tar.bz2", &ours, 1000));
        assert!(!key.is_download(&signature, "b.tar.bz2", &ours, 1000));
        assert!(!key.is_download(&signature, "a.tar.bz2", &other, 1000));
        assert!(!key.is_download(&signature, "a.tar.bz2", &ours, 1001));
        for bad in ["", "x", &signature[1..], &format!("{signature}A")] {
            assert!(!key.is_download(bad, "a.tar.bz2", &ours, 1000), "{bad}");
        }
        let others = MachineTokenKey::new(&[2; 32]).unwrap();
        assert!(!others.is_download(&signature, "a.tar.bz2", &ours, 1000));
    }

    #[test]
    fn random_tokens_carry_their_kind() {
        let token = random_token(AUTH_PREFIX, [0xff; 32]);
        assert!(token.starts_with("lpa_") && token.len() == 4 + 43);
        assert_eq!(token_hash(&format!(" {token}\n")), token_hash(&token));
    }
}
