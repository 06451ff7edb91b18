//! Identifiers of fixed width: machines and content.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// A machine's identity: the 32 hexadecimal digits of `/etc/machine-id` (systemd's machine-id(5)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(pub [u8; 16]);

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 32];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MachineId({self})")
    }
}

impl FromStr for MachineId {
    type Err = ParseError;

    /// Reads 32 hexadecimal digits; the hyphens of a UUID are tolerated.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0u8; 16];
        let decoded = match text.len() {
            32 => hex::decode_to_slice(text, &mut bytes).is_ok(),
            36 => uuid::Uuid::try_parse(text)
                .map(|u| bytes = u.into_bytes())
                .is_ok(),
            _ => false,
        };
        if !decoded {
            return Err(ParseError::new(
                "machine id",
                text,
                "32 hexadecimal digits expected, as in /etc/machine-id",
            ));
        }
        if bytes == [0; 16] {
            return Err(ParseError::new(
                "machine id",
                text,
                "it is all zeros; the machine has no identity yet",
            ));
        }
        Ok(Self(bytes))
    }
}

serde_as_str!(MachineId);

/// A SHA-256 digest. Objects are addressed by it, files are compared with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(openssl::sha::sha256(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 64];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl FromStr for Sha256 {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| ParseError::new("SHA-256", text, "64 hexadecimal digits expected"))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<&[u8]> for Sha256 {
    type Error = ParseError;

    fn try_from(bytes: &[u8]) -> Result<Self, ParseError> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| ParseError::new("SHA-256", &hex::encode(bytes), "32 bytes expected"))
    }
}

serde_as_str!(Sha256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_are_hex_or_uuid() {
        let plain: MachineId = "0123456789abcdef0123456789ABCDEF".parse().unwrap();
        assert_eq!(
            plain,
            "01234567-89ab-cdef-0123-456789abcdef".parse().unwrap()
        );
        assert_eq!(plain.to_string(), "0123456789abcdef0123456789abcdef");
        for bad in [
            "",
            "xyz",
            "0123456789abcdef0123456789abcde",
            &"0".repeat(32),
            &"g".repeat(32),
        ] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad}");
        }
    }
}
