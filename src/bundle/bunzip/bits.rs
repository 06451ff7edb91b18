//! The compressed bytes as a run of bits, the highest of each byte first.
//!
//! Invariant: behind the end, zeros are given without an error, so that the inner loops need not ask; [`Bits::check`] says
//! afterwards whether any of them was used, and must be called before anything that was read is believed.

use std::io::{self, Read};

/// Bytes read ahead. Small, so that what is read ahead does not soften the limit on the ratio.
const AHEAD: usize = 16 << 10;

pub(super) struct Bits<R> {
    inner: R,
    bytes: Box<[u8]>,
    at: usize,
    end: usize,
    /// What comes next, from the highest bit on.
    next: u64,
    /// How many bits of `next` count.
    have: u32,
    /// Zeros that were put behind the end.
    padding: u32,
    failed: Option<io::Error>,
}

impl<R: Read> Bits<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            bytes: vec![0; AHEAD].into(),
            at: 0,
            end: 0,
            next: 0,
            have: 0,
            padding: 0,
            failed: None,
        }
    }

    /// Where the bytes come from.
    pub(super) fn inner_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Makes at least 56 bits available in [`Bits::peek`].
    #[inline]
    pub(super) fn refill(&mut self) {
        let waiting = self.bytes[..self.end].get(self.at..);
        if let Some(eight) = waiting.and_then(<[u8]>::first_chunk) {
            self.next |= u64::from_be_bytes(*eight) >> self.have;
            self.at += ((63 - self.have) >> 3) as usize;
            // 56 and what is left of the byte that was begun.
            self.have |= 0b11_1000;
        } else {
            self.refill_slowly();
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_slowly(&mut self) {
        // Never 64 bits: the quick way could not shift by so many.
        while self.have < 56 {
            let byte = self.byte().unwrap_or_else(|| {
                self.padding = self.padding.saturating_add(8);
                0
            });
            // What the quick way left below the bits that count is the same byte.
            self.next |= u64::from(byte) << (56 - self.have);
            self.have += 8;
        }
    }

    fn byte(&mut self) -> Option<u8> {
        if self.at == self.end && !self.read_on() {
            return None;
        }
        let byte = self.bytes[self.at];
        self.at += 1;
        Some(byte)
    }

    /// Reads more; `false` at the end, or if that failed.
    fn read_on(&mut self) -> bool {
        if self.failed.is_some() || self.padding > 0 {
            return false;
        }
        match self.inner.read(&mut self.bytes) {
            Ok(read) => {
                (self.at, self.end) = (0, read);
                read > 0
            }
            Err(error) => {
                self.failed = Some(error);
                false
            }
        }
    }

    /// The next bits, from the highest on.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        self.next
    }

    /// Passes over at most 31 bits that are there.
    #[inline]
    pub(super) fn skip(&mut self, bits: u32) {
        self.next <<= bits;
        self.have = self.have.saturating_sub(bits);
    }

    /// The next bits as a number, at most 32 of them.
    #[inline]
    pub(super) fn take(&mut self, bits: u32) -> u32 {
        self.refill();
        let value = (self.next >> (64 - bits)) as u32;
        self.next <<= bits;
        self.have -= bits;
        value
    }

    /// Fails if more was taken than there is, or the source failed.
    pub(super) fn check(&mut self) -> io::Result<()> {
        if self.padding <= self.have {
            return Ok(());
        }
        Err(match self.failed.take() {
            Some(error) => {
                // Whoever asks again gets at least its kind.
                self.failed = Some(error.kind().into());
                error
            }
            None => io::ErrorKind::UnexpectedEof.into(),
        })
    }

    /// Goes on to the next whole byte; whether anything is left there.
    pub(super) fn rest(&mut self) -> io::Result<bool> {
        self.skip(self.have % 8);
        self.refill();
        match self.failed.take() {
            Some(error) if self.padding == self.have => Err(error),
            failed => {
                self.failed = failed;
                Ok(self.padding < self.have)
            }
        }
    }
}
