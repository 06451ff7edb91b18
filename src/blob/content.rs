//! What is given to the store: bytes or a spooled file, and what they are said to be.
//!
//! A [`Reading`] goes through the content once, hashes on the way, and only [`Reading::finish`] says whether it was what
//! was promised. Every backend must call it before what it wrote becomes visible.

use super::error::BlobError;
use super::key::Key;
use crate::domain::Sha256;
use bytes::{Bytes, BytesMut};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// What an object must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Its digest.
    pub sha256: Sha256,
    /// Its bytes.
    pub size: u64,
}

impl Expect {
    /// Describes `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: Sha256::of(bytes),
            size: bytes.len() as u64,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes with SHA-256 {}", self.size, self.sha256)
    }
}

/// Bytes in memory with what they are, which was computed from these very bytes: they need not be hashed again.
#[derive(Debug, Clone)]
pub struct Hashed {
    bytes: Bytes,
    is: Expect,
}

impl Hashed {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Something to store. Cloning is cheap.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In memory, and hashed already.
    Hashed(Hashed),
    /// A spooled file, read from its beginning whatever its cursor. Nobody may write to it meanwhile.
    File(Arc<File>),
}

impl Content {
    /// Starts to read from the beginning.
    pub(super) fn reading(&self) -> Reading {
        Reading {
            content: self.clone(),
            offset: 0,
            hasher: openssl::sha::Sha256::new(),
        }
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<File> for Content {
    fn from(file: File) -> Self {
        Self::File(Arc::new(file))
    }
}

/// Bytes that come piece by piece, and are hashed as they come.
pub struct Gather {
    bytes: BytesMut,
    hasher: openssl::sha::Sha256,
    size: u64,
}

impl Gather {
    /// With room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(bytes),
            hasher: openssl::sha::Sha256::new(),
            size: 0,
        }
    }

    /// Takes the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.bytes.extend_from_slice(piece);
        self.size += piece.len() as u64;
    }

    /// Bytes that came so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that are held now.
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// Gives away what is held; it stays part of the hash.
    pub fn split(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    /// What came in all, and what is held of it: all, known already, unless something was given away.
    pub fn finish(self) -> (Expect, Content) {
        let is = Expect {
            sha256: Sha256(self.hasher.finish()),
            size: self.size,
        };
        let bytes = self.bytes.freeze();
        if bytes.len() as u64 == is.size {
            (is, Content::Hashed(Hashed { bytes, is }))
        } else {
            (is, Content::Bytes(bytes))
        }
    }
}

/// One pass through a [`Content`].
pub(super) struct Reading {
    content: Content,
    offset: u64,
    hasher: openssl::sha::Sha256,
}

impl Reading {
    /// The next bytes, at most `most`; empty at the end. Blocks when the content is a file.
    pub(super) fn next(&mut self, most: usize) -> io::Result<Bytes> {
        let chunk = match &self.content {
            Content::Bytes(bytes) | Content::Hashed(Hashed { bytes, .. }) => {
                let from = (self.offset as usize).min(bytes.len());
                bytes.slice(from..bytes.len().min(from.saturating_add(most)))
            }
            Content::File(file) => {
                let mut buffer = vec![0; most];
                let mut filled = 0;
                while filled < most {
                    match file.read_at(&mut buffer[filled..], self.offset + filled as u64) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                buffer.truncate(filled);
                Bytes::from(buffer)
            }
        };
        if !matches!(self.content, Content::Hashed(_)) {
            self.hasher.update(&chunk);
        }
        self.offset += chunk.len() as u64;
        Ok(chunk)
    }

    /// As [`Reading::next`], off the async threads where it would block or take long.
    pub(super) async fn next_async(mut self, most: usize) -> io::Result<(Self, Bytes)> {
        let quick = match &self.content {
            Content::Bytes(bytes) => bytes.len() <= INLINE,
            Content::Hashed(_) => true,
            Content::File(_) => false,
        };
        if quick {
            let chunk = self.next(most)?;
            return Ok((self, chunk));
        }
        tokio::task::spawn_blocking(move || {
            let chunk = self.next(most)?;
            Ok((self, chunk))
        })
        .await
        .map_err(io::Error::other)?
    }

    /// What has been read so far.
    pub(super) fn seen(self) -> Expect {
        if let Content::Hashed(hashed) = &self.content
            && hashed.is.size == self.offset
        {
            return hashed.is;
        }
        Expect {
            sha256: Sha256(self.hasher.finish()),
            size: self.offset,
        }
    }

    /// Compares all that was read with what was promised.
    pub(super) fn finish(self, key: &Key, expected: Expect) -> Result<(), BlobError> {
        let got = self.seen();
        if got == expected {
            return Ok(());
        }
        Err(BlobError::WrongContent {
            key: key.clone(),
            expected,
            got,
        })
    }
}

/// Up to this many bytes are hashed on the thread that asks: about 100 microseconds, the price of a hop to another.
pub(super) const INLINE: usize = 256 << 10;

/// Hashes bytes, off the async threads when there are many.
pub(super) async fn digest(bytes: &Bytes) -> Sha256 {
    if bytes.len() > INLINE {
        let shared = bytes.clone();
        if let Ok(sha256) = tokio::task::spawn_blocking(move || Sha256::of(&shared)).await {
            return sha256;
        }
    }
    Sha256::of(bytes)
}
