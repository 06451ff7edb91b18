//! What lies around OpenSSL so that answers leave in few and large steps.
//!
//! OpenSSL encrypts one record of at most 16 KiB at a time and writes it at once. [`Gather`] below it keeps records until
//! they are worth a system call. [`Records`] above it takes the many parts of an answer (head, body) as they are and fills
//! a record with them, where the plain stream would make one of each part or have them copied together first.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The plain text of a full record.
const RECORD: usize = 16 << 10;
/// How many encrypted bytes are worth a write: four records and what is around each.
const WRITE: usize = 4 * (RECORD + 64);

/// A stream that writes when it has enough, or when it is flushed.
#[derive(Debug)]
pub(super) struct Gather<T> {
    io: T,
    /// Empty, without memory, while there is nothing to write.
    kept: Vec<u8>,
    /// Of `kept`, what was written.
    written: usize,
}

impl<T> Gather<T> {
    pub(super) fn new(io: T) -> Self {
        Self {
            io,
            kept: Vec::new(),
            written: 0,
        }
    }

    /// The stream itself; what is kept is not in it.
    pub(super) fn io(&mut self) -> &mut T {
        &mut self.io
    }
}

impl<T: AsyncWrite + Unpin> Gather<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.kept.len() {
            let rest = &self.kept[self.written..];
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += written;
        }
        // Kept connections are many, and nearly all of them have nothing to write.
        self.kept = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.kept.len() + buf.len() > WRITE && !self.kept.is_empty() {
            ready!(self.poll_drain(cx))?;
        }
        if self.kept.capacity() == 0 && buf.len() > RECORD {
            // More will follow.
            self.kept.reserve_exact(WRITE);
        }
        self.kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

thread_local! {
    /// Where small parts are put together. What does not fit the socket is put together again at the next try.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(RECORD));
}

/// An encrypted stream that takes parts as they are.
#[derive(Debug)]
pub(super) struct Records<T>(pub(super) T);

impl<T: AsyncRead + Unpin> AsyncRead for Records<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Records<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut parts = bufs.iter().filter(|part| !part.is_empty());
        let (first, second) = (parts.next(), parts.next());
        match (first, second) {
            (None, _) => Poll::Ready(Ok(0)),
            (Some(only), None) => Pin::new(&mut self.0).poll_write(cx, only),
            (Some(first), Some(_)) if first.len() >= RECORD => {
                Pin::new(&mut self.0).poll_write(cx, first)
            }
            _ => SCRATCH.with_borrow_mut(|scratch| {
                scratch.clear();
                for part in bufs {
                    let room = RECORD - scratch.len();
                    scratch.extend_from_slice(&part[..part.len().min(room)]);
                }
                Pin::new(&mut self.0).poll_write(cx, scratch)
            }),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn what_is_gathered_arrives_whole_and_in_order_and_leaves_no_memory() {
        let (near, mut far) = tokio::io::duplex(1000);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        });
        let mut gather = Gather::new(near);
        for part in sent.chunks(RECORD + 22) {
            gather.write_all(part).await.unwrap();
            assert!(gather.kept.len() <= WRITE);
        }
        gather.flush().await.unwrap();
        assert_eq!(gather.kept.capacity(), 0);
        gather.write_all(b"the end").await.unwrap();
        gather.shutdown().await.unwrap();
        drop(gather);
        let got = reading.await.unwrap();
        assert_eq!(got, [expected.as_slice(), b"the end"].concat());
    }

    /// Counts what is written at once.
    #[derive(Default)]
    struct Steps(Vec<Vec<u8>>);

    impl AsyncWrite for Steps {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(RECORD);
            self.0.push(buf[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn parts_fill_records() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (head, body) = ([1; 200], vec![2; 40_000]);
        let mut records = Records(Steps::default());
        let mut write = |parts: &[&[u8]]| {
            let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            Pin::new(&mut records).poll_write_vectored(&mut cx, &parts)
        };
        let taken = |polled| match polled {
            Poll::Ready(Ok(taken)) => taken,
            other => panic!("{other:?}"),
        };
        assert_eq!(taken(write(&[])), 0);
        assert_eq!(taken(write(&[&[], &head, &body])), RECORD);
        assert_eq!(taken(write(&[&body[RECORD - 200..], &head])), RECORD);
        assert_eq!(taken(write(&[&head, &head])), 400);
        let steps = &records.0.0;
        assert_eq!(steps[0], [&head[..], &body[..RECORD - 200]].concat());
        assert_eq!(steps[1], body[..RECORD]);
        assert_eq!(steps[2], [1; 400]);
    }
}
