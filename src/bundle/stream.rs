//! The compressed stream: counts what goes in and what comes out, and stops at the limits.
//!
//! Invariant: an error of the given reader is told apart from damage in the bytes it gave.

use super::archive::Limits;
use super::bunzip::{Room, Unpack};
use super::error::ReadError;
use std::io::{self, Read};

/// Below this many unpacked bytes the ratio says nothing: tar pads with zeros, which shrink to almost none.
const RATIO_FLOOR: u64 = 1 << 20;

/// Memory to unpack in, a few megabytes. Whoever looks into many bundles one after the other keeps it for the next.
#[derive(Debug, Default)]
pub struct Workspace(Room);

/// Counts the compressed bytes and keeps the reader's own error.
struct Counted<R> {
    inner: R,
    taken: u64,
    limit: u64,
    over: bool,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = loop {
            match self.inner.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(n) => {
                self.taken = self.taken.saturating_add(n as u64);
                self.over = self.taken > self.limit;
                if self.over {
                    return Err(io::Error::other("compressed size limit"));
                }
                Ok(n)
            }
            Err(e) => {
                let kind = e.kind();
                self.failed = Some(e);
                Err(kind.into())
            }
        }
    }
}

/// The unpacked bytes of a bundle.
pub(super) struct Unpacked<'a, R> {
    inner: Unpack<'a, Counted<R>>,
    produced: u64,
    limits: Limits,
}

impl<'a, R: Read> Unpacked<'a, R> {
    pub(super) fn new(reader: R, limits: &Limits, workspace: &'a mut Workspace) -> Self {
        let counted = Counted {
            inner: reader,
            taken: 0,
            limit: limits.max_packed_bytes,
            over: false,
            failed: None,
        };
        Self {
            inner: Unpack::new(counted, &mut workspace.0),
            produced: 0,
            limits: *limits,
        }
    }

    /// Reads some bytes; none means the end of the stream, reached cleanly.
    pub(super) fn read_some(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        let read = match self.inner.read(buf) {
            Ok(n) => n,
            Err(e) => return Err(self.explain(&e)),
        };
        self.produced += read as u64;
        if self.produced > self.limits.max_unpacked_bytes {
            return Err(ReadError::UnpackedTooLarge {
                limit: self.limits.max_unpacked_bytes,
            });
        }
        let taken = self.inner.inner_mut().taken;
        if self.produced > RATIO_FLOOR
            && self.produced > taken.saturating_mul(self.limits.max_ratio)
        {
            return Err(ReadError::Ratio {
                limit: self.limits.max_ratio,
            });
        }
        Ok(read)
    }

    /// Reads until `buf` is full or the stream ends; gives the number of bytes read.
    pub(super) fn read_full(&mut self, buf: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_some(&mut buf[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    fn explain(&mut self, e: &io::Error) -> ReadError {
        let counted = self.inner.inner_mut();
        if let Some(failed) = counted.failed.take() {
            ReadError::Source(failed)
        } else if counted.over {
            ReadError::PackedTooLarge {
                limit: counted.limit,
            }
        } else if e.kind() == io::ErrorKind::UnexpectedEof {
            ReadError::Truncated {
                inside: "the compressed data".to_owned(),
            }
        } else {
            ReadError::Compression { why: e.to_string() }
        }
    }
}
