//! The extended headers of a tar file: what of them is accepted, and what is refused as a trick.
//!
//! Only a longer name is taken from them. Anything that changes how the archive is cut into entries is refused,
//! since two readers could then see two different archives in the same bytes.

use super::error::{ReadError, shown};

/// The longest extended header, in bytes. Real ones hold a name and some times.
pub(super) const MAX_EXTENSION: u64 = 16 << 10;

fn wrong(why: impl Into<String>) -> ReadError {
    ReadError::Tar { why: why.into() }
}

/// Reads the records of a PAX header (`LENGTH KEY=VALUE\n`, POSIX pax) and gives the name set in it, if any.
pub(super) fn path(mut rest: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
    let mut found = None;
    while !rest.is_empty() {
        let bad = || wrong("an extended header has a record of the wrong shape");
        let space = rest
            .iter()
            .take(6)
            .position(|b| *b == b' ')
            .ok_or_else(bad)?;
        let digits = std::str::from_utf8(&rest[..space]).map_err(|_| bad())?;
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let length: usize = digits.parse().map_err(|_| bad())?;
        let record = rest.get(space + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let key = &record[..equals];
        match key {
            b"path" if found.is_some() => {
                return Err(wrong("an extended header sets the name twice"));
            }
            b"path" => found = Some(record[equals + 1..].to_vec()),
            b"size" | b"linkpath" | b"SCHILY.realsize" => return Err(refused(key)),
            _ if key.starts_with(b"GNU.sparse.") => return Err(refused(key)),
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(found)
}

fn refused(key: &[u8]) -> ReadError {
    wrong(format!(
        "an extended header sets {:?}, which is refused in a bundle",
        shown(&String::from_utf8_lossy(key))
    ))
}

/// Reads a GNU long name: the name and one NUL byte.
pub(super) fn gnu_long_name(data: &[u8]) -> Result<Vec<u8>, ReadError> {
    let name = data.strip_suffix(b"\0").unwrap_or(data);
    if name.is_empty() || name.contains(&0) {
        return Err(wrong("a GNU long name is empty or holds a NUL byte"));
    }
    Ok(name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_name_is_taken() {
        assert_eq!(path(b"").unwrap(), None);
        assert_eq!(path(b"18 mtime=123.4567\n").unwrap(), None);
        assert_eq!(
            path(b"12 path=a/b\n18 mtime=123.4567\n").unwrap(),
            Some(b"a/b".to_vec())
        );
        for bad in [
            &b"12 path=a/b\n12 path=a/c\n"[..],
            b"10 size=1\n",
            b"23 GNU.sparse.major=1\n\n",
            b"99 path=a\n",
            b"2 \n",
            b"0 a=b\n",
            b"x path=a\n",
            b"+9 path=a\n",
            b"11 path=a\n",
            b"9 path=ab",
            b"999999999999999999999 path=a\n",
        ] {
            assert!(path(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..200), text in "([0-9]{1,3} [a-z]{0,4}=?[a-z]{0,9}\n?){0,5}") {
            let _ = path(&data);
            let _ = path(text.as_bytes());
            let _ = gnu_long_name(&data);
        }
    }
}
