//! The body of a download: pieces of memory and of a verified file, in order, in large frames and without copying.

use super::buffers::{Buffer, Buffers, LARGE};
use super::error::BlobError;
use super::verified::VerifiedFile;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::task::JoinHandle;

/// A body that axum or hyper can send. Its length is known from the start.
#[derive(Debug, Default)]
pub struct Body(Inner);

#[derive(Debug, Default)]
enum Inner {
    /// Nothing, or nothing more.
    #[default]
    Empty,
    /// One piece of memory, the common case.
    One(Bytes),
    /// Several pieces.
    Many(Box<Pieces>),
}

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Piece {
    /// Memory.
    Bytes(Bytes),
    /// Bytes `from..to` of the file.
    File {
        /// The first byte.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
}

#[derive(Debug)]
struct Pieces {
    queue: VecDeque<Piece>,
    /// Bytes not yet given out.
    left: u64,
    source: Option<Source>,
    reading: Option<JoinHandle<Result<Bytes, BlobError>>>,
}

/// Where file pieces come from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) file: Arc<VerifiedFile>,
    pub(super) buffers: Buffers,
}

impl Body {
    /// A body of these bytes.
    pub(super) fn of(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::default()
        } else {
            Self(Inner::One(bytes))
        }
    }

    /// A body of pieces; `source` must be there if one of them is of a file.
    pub(super) fn pieces(queue: VecDeque<Piece>, source: Option<Source>) -> Self {
        let left = queue.iter().map(Piece::len).sum();
        Self(Inner::Many(Box::new(Pieces {
            queue,
            left,
            source,
            reading: None,
        })))
    }

    /// Bytes that are still to come.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Inner::Empty => 0,
            Inner::One(bytes) => bytes.len() as u64,
            Inner::Many(pieces) => pieces.left,
        }
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { from, to } => to - from,
        }
    }
}

impl Source {
    /// Reads without waiting for a disk; `None` if that cannot be done now.
    fn read_cached(&self, from: u64, most: usize) -> Option<Result<Bytes, BlobError>> {
        let mut buffer = self.buffers.take(most);
        let mut slices = [IoSliceMut::new(buffer.room(most))];
        let read = rustix::io::preadv2(self.file.file(), &mut slices, from, ReadWriteFlags::NOWAIT);
        match read {
            Ok(n) if n > 0 => Some(self.checked(buffer, n)),
            // Not in memory, or a filesystem that cannot tell: the slow way decides, also about the end.
            _ => None,
        }
    }

    /// Reads, waiting for the disk. Blocks.
    fn read(&self, from: u64, most: usize) -> Result<Bytes, BlobError> {
        let mut buffer = self.buffers.take(most);
        loop {
            match rustix::io::pread(self.file.file(), buffer.room(most), from) {
                Ok(0) => return Err(self.file.ended(from)),
                Ok(n) => return self.checked(buffer, n),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.file.failed(e.into())),
            }
        }
    }

    fn checked(&self, buffer: Buffer, filled: usize) -> Result<Bytes, BlobError> {
        self.file.check_unchanged()?;
        Ok(buffer.into_bytes(filled))
    }
}

impl Pieces {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BlobError>>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                let bytes = read.unwrap_or_else(|_| Err(BlobError::Busy));
                return Poll::Ready(Some(bytes.inspect(|bytes| self.advance(bytes.len()))));
            }
            let Some(piece) = self.queue.front_mut() else {
                return Poll::Ready(None);
            };
            let (from, to) = match piece {
                Piece::Bytes(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.queue.pop_front();
                    self.left -= bytes.len() as u64;
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Piece::File { from, to } => (*from, *to),
            };
            let Some(source) = &self.source else {
                return Poll::Ready(None);
            };
            let most = (to - from).min(LARGE as u64) as usize;
            if most == 0 {
                self.queue.pop_front();
                continue;
            }
            if let Some(read) = source.read_cached(from, most) {
                return Poll::Ready(Some(read.inspect(|bytes| self.advance(bytes.len()))));
            }
            let source = source.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || source.read(from, most)));
        }
    }

    /// Takes `sent` bytes off the file piece at the front.
    fn advance(&mut self, sent: usize) {
        let sent = sent as u64;
        self.left -= sent;
        if let Some(Piece::File { from, to }) = self.queue.front_mut() {
            *from += sent;
            if from == to {
                self.queue.pop_front();
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BlobError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BlobError>>> {
        let inner = &mut self.get_mut().0;
        let next = match inner {
            Inner::Empty => return Poll::Ready(None),
            Inner::One(bytes) => Some(Ok(std::mem::take(bytes))),
            Inner::Many(pieces) => ready!(pieces.poll_next(context)),
        };
        if !matches!((&next, &inner), (Some(Ok(_)), Inner::Many(_))) {
            *inner = Inner::Empty;
        }
        Poll::Ready(next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}
