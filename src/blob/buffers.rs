//! Reusable buffers for downloads that are read from files.
//!
//! A buffer travels as [`Bytes`] and comes back by itself when the last of it was sent. The pool bounds memory: while
//! [`MOST`] large buffers are out, slow clients hold them, and further reads get small ones of their own.

use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes in a large buffer.
pub(super) const LARGE: usize = 256 << 10;
/// Bytes in a small one.
const SMALL: usize = 16 << 10;
/// Large buffers that may be out at once: 64 MiB.
const MOST: usize = 256;
/// Large buffers kept for the next reader: 8 MiB.
const IDLE: usize = 32;

/// The pool. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Buffers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    idle: Mutex<Vec<Box<[u8]>>>,
    out: AtomicUsize,
}

/// A buffer to read into.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    /// Where it goes back to; `None` for a small one.
    home: Option<Arc<Shared>>,
}

impl Buffers {
    /// A buffer of at most [`LARGE`] bytes; no larger than `wanted` where that saves something.
    pub(super) fn take(&self, wanted: usize) -> Buffer {
        let small = |len: usize| Buffer {
            bytes: vec![0; len].into(),
            filled: 0,
            home: None,
        };
        if wanted <= SMALL {
            return small(wanted);
        }
        if self.shared.out.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.shared.out.fetch_sub(1, Ordering::Relaxed);
            return small(SMALL);
        }
        let idle = self.idle().pop();
        Buffer {
            bytes: idle.unwrap_or_else(|| vec![0; LARGE].into()),
            filled: 0,
            home: Some(self.shared.clone()),
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Box<[u8]>>> {
        self.shared
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// The room to read into, at most `most` bytes.
    pub(super) fn room(&mut self, most: usize) -> &mut [u8] {
        let end = self.bytes.len().min(most);
        &mut self.bytes[..end]
    }

    /// The first `filled` bytes, without copying.
    pub(super) fn into_bytes(mut self, filled: usize) -> Bytes {
        self.filled = filled;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        home.out.fetch_sub(1, Ordering::Relaxed);
        let mut idle = home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let pool = Buffers::default();
        let mut buffer = pool.take(LARGE);
        buffer.room(LARGE).fill(7);
        let bytes = buffer.into_bytes(5);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_eq!(pool.idle().len(), 0, "a slice still holds it");
        assert_eq!(part.as_ref(), [7, 7]);
        drop(part);
        assert_eq!(pool.idle().len(), 1);

        let out: Vec<Buffer> = (0..=MOST).map(|_| pool.take(LARGE)).collect();
        assert_eq!(out[MOST - 1].bytes.len(), LARGE);
        assert_eq!(out[MOST].bytes.len(), SMALL, "beyond the bound");
        drop(out);
        assert_eq!(pool.idle().len(), IDLE);
        assert_eq!(pool.take(LARGE).bytes.len(), LARGE);
    }
}
