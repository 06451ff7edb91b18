//! The little of ASN.1 DER that a module signature needs, read so strictly that one meaning has one encoding.
//!
//! Only single-byte tags and minimal definite lengths are read; everything else is an error.

/// Tags used in a signature.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
/// Context tag 0, primitive.
pub(super) const CONTEXT_0: u8 = 0x80;
/// Context tag 0, constructed.
pub(super) const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;

/// What is wrong in the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DerError(pub(super) &'static str);

/// Reads elements one after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The tag of the next element.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element: tag, content, and the whole of it with its header.
    pub(super) fn element(&mut self) -> Result<(u8, &'a [u8], &'a [u8]), DerError> {
        let short = DerError("an element ends too early");
        let tag = *self.0.first().ok_or(short)?;
        if tag & 0x1f == 0x1f {
            return Err(DerError("a tag of several bytes"));
        }
        let first = *self.0.get(1).ok_or(short)?;
        let (length, header) = if first < 0x80 {
            (usize::from(first), 2)
        } else {
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return Err(DerError("a length that is indefinite or too large"));
            }
            let digits = self.0.get(2..2 + count).ok_or(short)?;
            let length = digits.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
            if digits[0] == 0 || length < 0x80 {
                return Err(DerError("a length that is not minimal"));
            }
            (length as usize, 2 + count)
        };
        let end = header.checked_add(length).ok_or(short)?;
        let whole = self.0.get(..end).ok_or(short)?;
        self.0 = &self.0[end..];
        Ok((tag, &whole[header..], whole))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8, what: &'static str) -> Result<&'a [u8], DerError> {
        match self.element()? {
            (found, content, _) if found == tag => Ok(content),
            _ => Err(DerError(what)),
        }
    }

    /// Fails if anything is left.
    pub(super) const fn finish(&self, what: &'static str) -> Result<(), DerError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(DerError(what))
        }
    }
}

/// Encodes one element from the parts of its content.
pub(super) fn encode(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let digits = length.to_be_bytes();
        let skip = digits.iter().take_while(|b| **b == 0).count();
        out.push(0x80 | (digits.len() - skip) as u8);
        out.extend_from_slice(&digits[skip..]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn loose_encodings_are_refused() {
        for bad in [
            &b""[..],
            b"\x30",
            b"\x30\x80\x00\x00",
            b"\x30\x81\x01\x00",
            b"\x30\x82\x00\x80",
            b"\x30\x85\x01\x00\x00\x00\x00",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x02\x00",
            b"\x1f\x01\x00",
        ] {
            assert!(Reader::new(bad).element().is_err(), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_has_one_encoding(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut reader = Reader::new(&data);
            if let Ok((tag, content, whole)) = reader.element() {
                prop_assert_eq!(encode(tag, &[content]), whole);
            }
        }

        #[test]
        fn what_is_encoded_is_read(length in 0usize..70_000) {
            let content = vec![7; length];
            let encoded = encode(OCTET_STRING, &[&content]);
            let mut reader = Reader::new(&encoded);
            prop_assert_eq!(reader.expect(OCTET_STRING, "x").unwrap(), &content[..]);
            prop_assert!(reader.finish("x").is_ok());
        }
    }
}
