//! One connection under watch: what it waits for, since when, and until when it may.
//!
//! A [`Meter`] knows at any moment whether a connection waits for its client: for the head of a request, for the next
//! request on a kept connection, for more of a body, or for the client to take an answer. It learns that from the bytes
//! that pass ([`Metered`]) and from the bodies of request and answer ([`Asked`], [`Answer`]), not from the protocol
//! implementation, whose one timer cannot tell a kept connection from a slow head. [`Timed`] ends the connection when
//! such a wait lasts too long. Time that the server itself needs is never counted.

use crate::config::Server;
use crate::telemetry::CutOff;
use axum::body::Body as AxumBody;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The least that a client must send or take in the long run, in bytes per second.
pub(super) const SLOWEST: u64 = 16 << 10;

/// The head of a request is awaited or being read.
const HEAD: u8 = 0;
/// A request is being answered.
const BUSY: u8 = 1;
/// Answered; nothing of a next request has come.
const IDLE: u8 = 2;

/// How long a connection may wait for its client, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    head: u64,
    idle: u64,
    write: u64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Server> for Patience {
    fn from(server: &Server) -> Self {
        Self {
            head: millis(server.header_timeout),
            idle: millis(server.idle_timeout),
            write: millis(server.write_timeout),
        }
    }
}

/// What a connection waits for. Written by the connection's own task, read by whoever looks for one to close.
///
/// Moments are milliseconds since `start`; 0 stands for none where a moment may be missing.
#[derive(Debug)]
pub(super) struct Meter {
    start: Instant,
    patience: Patience,
    phase: AtomicU8,
    /// Since when the connection is in its phase.
    since: AtomicU64,
    /// Since when more of a request's body is awaited, or 0.
    awaiting: AtomicU64,
    /// Since when the client has taken nothing, or 0.
    stalled: AtomicU64,
    /// How long the client has kept earlier writes of this answer waiting.
    stalled_before: AtomicU64,
    /// Bytes of this answer that the client or the network has taken.
    written: AtomicU64,
    /// To be closed at the next wait for the client.
    unwanted: AtomicBool,
    task: AtomicWaker,
}

impl Meter {
    /// For a connection that was just accepted. `start` is the same for all connections of a listener.
    pub(super) fn new(start: Instant, patience: Patience) -> Arc<Self> {
        let meter = Self {
            start,
            patience,
            phase: AtomicU8::new(HEAD),
            since: AtomicU64::new(0),
            awaiting: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
            stalled_before: AtomicU64::new(0),
            written: AtomicU64::new(0),
            unwanted: AtomicBool::new(false),
            task: AtomicWaker::new(),
        };
        meter.since.store(meter.now(), Relaxed);
        Arc::new(meter)
    }

    /// At least 1.
    fn now(&self) -> u64 {
        millis(self.start.elapsed()).max(1)
    }

    fn enter(&self, phase: u8) {
        self.since.store(self.now(), Relaxed);
        self.phase.store(phase, Relaxed);
    }

    /// Bytes came.
    fn read(&self) {
        if self.phase.load(Relaxed) == IDLE {
            self.enter(HEAD);
        }
    }

    /// The head of a request is complete.
    pub(super) fn asked(&self) {
        self.stalled_before.store(0, Relaxed);
        self.written.store(0, Relaxed);
        self.awaiting.store(0, Relaxed);
        self.phase.store(BUSY, Relaxed);
    }

    /// A write could not go on.
    fn stall(&self) {
        if self.stalled.load(Relaxed) == 0 {
            self.stalled.store(self.now(), Relaxed);
        }
    }

    /// A write went on.
    fn wrote(&self, bytes: usize) {
        self.written
            .store(self.written.load(Relaxed) + bytes as u64, Relaxed);
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 {
            let now = self.now();
            let before = self.stalled_before.load(Relaxed) + now.saturating_sub(stalled);
            self.stalled_before.store(before, Relaxed);
            self.stalled.store(0, Relaxed);
            // A large answer that was buffered whole is only now on its way: the wait for the next request begins here.
            self.since.store(now, Relaxed);
        }
    }

    /// Since when the client keeps this connection waiting; `None` while it is the server's turn.
    pub(super) fn waiting(&self) -> Option<u64> {
        let awaited = [&self.stalled, &self.awaiting].map(|moment| moment.load(Relaxed));
        match (awaited, self.phase.load(Relaxed)) {
            ([0, 0], BUSY) => None,
            ([0, since], BUSY) => Some(since),
            ([0, _], _) => Some(self.since.load(Relaxed)),
            ([stalled, _], _) => Some(stalled),
        }
    }

    /// When the present wait has lasted too long, and how that is counted.
    fn deadline(&self) -> Option<(u64, CutOff)> {
        let Patience { head, idle, write } = self.patience;
        let stalled = self.stalled.load(Relaxed);
        if stalled != 0 {
            let earned = self.written.load(Relaxed) * 1000 / SLOWEST;
            let spent = self.stalled_before.load(Relaxed);
            let left = earned.saturating_add(write).saturating_sub(spent);
            return Some((stalled.saturating_add(left.min(write)), CutOff::Write));
        }
        let since = self.since.load(Relaxed);
        match self.phase.load(Relaxed) {
            HEAD => Some((since.saturating_add(head), CutOff::Header)),
            IDLE => Some((since.saturating_add(idle), CutOff::Idle)),
            // The handlers bound the bodies themselves, each as it needs.
            _ => None,
        }
    }

    /// Has the connection closed as soon as it waits for its client; at once if it does now.
    pub(super) fn close(&self) {
        self.unwanted.store(true, Relaxed);
        self.task.wake();
    }

    /// Whether [`Self::close`] was called.
    pub(super) fn is_unwanted(&self) -> bool {
        self.unwanted.load(Relaxed)
    }

    fn instant(&self, moment: u64) -> Instant {
        // A patience of centuries is as good as none.
        self.start + Duration::from_millis(moment.min(1 << 42))
    }
}

/// The bytes of a connection, counted.
#[derive(Debug)]
pub(super) struct Metered<T> {
    pub(super) io: T,
    pub(super) meter: Arc<Meter>,
}

impl<T> Metered<T> {
    fn note(&self, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Pending => self.meter.stall(),
            Poll::Ready(Ok(bytes)) => self.meter.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.meter.read();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The body of a request: while it is read and does not come, the connection waits for its client.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) body: Incoming,
    pub(super) meter: Arc<Meter>,
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let awaiting = if polled.is_pending() {
            self.meter.now()
        } else {
            0
        };
        self.meter.awaiting.store(awaiting, Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.meter.awaiting.store(0, Relaxed);
    }
}

/// The body of an answer: when it is done with, the connection waits for the next request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: AxumBody,
    pub(super) meter: Arc<Meter>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.meter.enter(IDLE);
    }
}

/// A connection that ends when its client keeps it waiting for too long, or when its place is needed.
#[derive(Debug)]
pub(super) struct Timed<F> {
    connection: Pin<Box<F>>,
    meter: Arc<Meter>,
    timer: Pin<Box<Sleep>>,
    /// The moment the timer is set to. It is moved forward only when it fires: most waits end long before.
    armed: u64,
}

impl<F: Future> Timed<F> {
    /// To be made inside the runtime.
    pub(super) fn new(connection: F, meter: Arc<Meter>) -> Self {
        let armed = meter.deadline().map_or(0, |(at, _)| at);
        Self {
            connection: Box::pin(connection),
            timer: Box::pin(tokio::time::sleep_until(meter.instant(armed))),
            meter,
            armed,
        }
    }

    fn arm(&mut self, at: u64) {
        self.armed = at;
        let at = self.meter.instant(at);
        self.timer.as_mut().reset(at);
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = Result<F::Output, CutOff>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.meter.task.register(cx.waker());
        if let Poll::Ready(output) = self.connection.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if self.meter.is_unwanted() && self.meter.waiting().is_some() {
            return Poll::Ready(Err(CutOff::Evicted));
        }
        let Some((at, cut)) = self.meter.deadline() else {
            return Poll::Pending;
        };
        if at < self.armed {
            self.arm(at);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if at <= self.meter.now() {
                return Poll::Ready(Err(cut));
            }
            self.arm(at);
        }
        Poll::Pending
    }
}
