//! One connection under watch: what it waits for, since when, and until when it may.
//!
//! A [`Meter`] knows at any moment whether a connection waits for its client: for the TLS handshake, for the head of a
//! request, for the next request on a kept connection, for more of a body, or for the client to take an answer. It learns
//! that from the bytes that pass ([`Metered`]) and from the bodies of request and answer (`bodies.rs`), not from the
//! protocol implementation, whose one timer cannot tell a kept connection from a slow head. [`Timed`] ends the connection
//! when such a wait lasts too long. Time that the server itself needs is never counted.
//!
//! Over HTTP/2 one connection carries several requests, each in a task of its own. Such a connection waits for its client
//! when all of its requests do. Frames that are no requests do not prolong its life.

use crate::config::Server;
use crate::telemetry::CutOff;
use futures_util::task::AtomicWaker;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The least that a client must send or take in the long run, in bytes per second.
pub(super) const SLOWEST: u64 = 16 << 10;

/// The TLS handshake goes on.
const HANDSHAKE: u8 = 0;
/// The head of a request is awaited or being read.
const HEAD: u8 = 1;
/// Answered; nothing of a next request has come.
const IDLE: u8 = 2;

/// How long a connection may wait for its client, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    handshake: u64,
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
            handshake: millis(server.handshake_timeout),
            head: millis(server.header_timeout),
            idle: millis(server.idle_timeout),
            write: millis(server.write_timeout),
        }
    }
}

/// What a connection waits for. Written by the connection's tasks, read by whoever looks for one to close.
///
/// Moments are milliseconds since `start`; 0 stands for none where a moment may be missing.
#[derive(Debug)]
pub(super) struct Meter {
    start: Instant,
    patience: Patience,
    /// Several requests at once: HTTP/2.
    multiplexed: AtomicBool,
    /// Requests that are being answered.
    requests: AtomicU32,
    /// Of those, such that wait for more of their bodies.
    awaiting: AtomicU32,
    /// Since when the last of those does.
    awaited: AtomicU64,
    /// What the connection does while there is no request.
    phase: AtomicU8,
    /// Since when the connection is in its phase.
    since: AtomicU64,
    /// The client or the network takes no bytes.
    stalled: Mutex<Stall>,
    /// Over HTTP/2: answers of which the client does not allow more to be sent.
    withheld: Mutex<Stall>,
    /// Bytes that the client or the network has taken since the last request began when there was none.
    written: AtomicU64,
    /// To be closed at the next wait for the client.
    unwanted: AtomicBool,
    task: AtomicWaker,
}

/// What is not taken.
#[derive(Debug, Default, Clone, Copy)]
struct Stall {
    /// How many wait.
    count: u32,
    /// Since when, or 0.
    since: u64,
    /// How long earlier waits of the same answers took.
    before: u64,
}

impl Stall {
    /// When this lasts too long: a client is owed its patience, and the time that what it took is worth.
    fn deadline(&self, patience: u64, written: u64) -> Option<u64> {
        let earned = written * 1000 / SLOWEST;
        let left = earned.saturating_add(patience).saturating_sub(self.before);
        (self.since != 0).then(|| self.since.saturating_add(left.min(patience)))
    }

    fn begin(&mut self, now: u64) {
        self.count += 1;
        if self.count == 1 {
            self.since = now;
        }
    }

    fn end(&mut self, now: u64) {
        self.count = self.count.saturating_sub(1);
        if self.count == 0 {
            self.before += now.saturating_sub(self.since);
            self.since = 0;
        }
    }
}

impl Meter {
    /// For a connection that was just accepted. `start` is the same for all connections of a listener; `tls`: it begins
    /// with a handshake.
    pub(super) fn new(start: Instant, patience: Patience, tls: bool) -> Arc<Self> {
        let meter = Self {
            start,
            patience,
            multiplexed: AtomicBool::new(false),
            requests: AtomicU32::new(0),
            awaiting: AtomicU32::new(0),
            awaited: AtomicU64::new(0),
            phase: AtomicU8::new(if tls { HANDSHAKE } else { HEAD }),
            since: AtomicU64::new(0),
            stalled: Mutex::default(),
            withheld: Mutex::default(),
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

    /// The handshake is done; `multiplexed`: HTTP/2 was agreed upon.
    pub(super) fn secured(&self, multiplexed: bool) {
        self.multiplexed.store(multiplexed, Relaxed);
        self.enter(HEAD);
    }

    /// Whether answers share the connection.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Relaxed)
    }

    /// Bytes came. Over HTTP/2 they may be anything, so there the wait for a next request goes on.
    fn read(&self) {
        if self.phase.load(Relaxed) == IDLE
            && self.requests.load(Relaxed) == 0
            && !self.is_multiplexed()
        {
            self.enter(HEAD);
        }
    }

    /// The head of a request is complete. It is being answered until what is returned is dropped.
    pub(super) fn asked(self: &Arc<Self>) -> Turn {
        if self.requests.fetch_add(1, Relaxed) == 0 {
            self.written.store(0, Relaxed);
            for stall in self.stalls() {
                lock(stall).before = 0;
            }
        }
        Turn(Arc::clone(self))
    }

    /// The waits that there may be.
    fn stalls(&self) -> impl Iterator<Item = &Mutex<Stall>> {
        let withheld = self.is_multiplexed().then_some(&self.withheld);
        std::iter::once(&self.stalled).chain(withheld)
    }

    /// A request waits for more of its body.
    pub(super) fn await_body(&self, already: bool) {
        self.awaited.store(self.now(), Relaxed);
        if !already {
            self.awaiting.fetch_add(1, Relaxed);
        }
    }

    /// It does no longer.
    pub(super) fn body_came(&self) {
        self.awaiting.fetch_sub(1, Relaxed);
    }

    /// A part of an answer was given to the protocol, which asks for more when the client has taken it.
    pub(super) fn withhold(&self) {
        lock(&self.withheld).begin(self.now());
    }

    /// It has, or it is no longer asked for.
    pub(super) fn took(&self) {
        lock(&self.withheld).end(self.now());
    }

    /// A write could not go on.
    fn stall(&self) {
        let mut stalled = lock(&self.stalled);
        if stalled.since == 0 {
            stalled.begin(self.now());
        }
    }

    /// A write went on.
    fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        let mut stalled = lock(&self.stalled);
        if stalled.since != 0 {
            let now = self.now();
            stalled.end(now);
            // A large answer that was buffered whole is only now on its way: the wait for the next request begins here.
            self.since.store(now, Relaxed);
        }
    }

    /// Since when the client keeps this connection waiting; `None` while it is the server's turn.
    pub(super) fn waiting(&self) -> Option<u64> {
        let stalled = *lock(&self.stalled);
        let withheld = *lock(&self.withheld);
        let requests = self.requests.load(Relaxed);
        let awaiting = self.awaiting.load(Relaxed);
        if stalled.since != 0 {
            Some(stalled.since)
        } else if requests == 0 {
            Some(self.since.load(Relaxed))
        } else if awaiting + withheld.count >= requests {
            Some(withheld.since.max(self.awaited.load(Relaxed)))
        } else {
            None
        }
    }

    /// When the present wait has lasted too long, and how that is counted.
    fn deadline(&self) -> Option<(u64, CutOff)> {
        let Patience {
            handshake,
            head,
            idle,
            write,
        } = self.patience;
        let written = self.written.load(Relaxed);
        let not_taken = self
            .stalls()
            .filter_map(|stall| lock(stall).deadline(write, written))
            .min();
        if let Some(at) = not_taken {
            return Some((at, CutOff::Write));
        }
        if self.requests.load(Relaxed) > 0 {
            // The handlers bound the bodies themselves, each as it needs. An answer that is withheld begins to be so in
            // another task, so that this one has to look now and then.
            return self
                .is_multiplexed()
                .then(|| (self.now().saturating_add(write), CutOff::Write));
        }
        let since = self.since.load(Relaxed);
        let (patience, cut) = match self.phase.load(Relaxed) {
            HANDSHAKE => (handshake, CutOff::Handshake),
            HEAD => (head, CutOff::Header),
            _ => (idle, CutOff::Idle),
        };
        Some((since.saturating_add(patience), cut))
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

fn lock(stall: &Mutex<Stall>) -> std::sync::MutexGuard<'_, Stall> {
    stall.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that is being answered, until dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Meter>);

impl Turn {
    /// The connection's meter.
    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let meter = &self.0;
        if meter.requests.fetch_sub(1, Relaxed) == 1 {
            meter.enter(IDLE);
            if meter.is_multiplexed() {
                // The connection's own task has to set its timer.
                meter.task.wake();
            }
        }
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
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        // What TLS keeps back until a packet is full is taken or not, as any other write.
        match &polled {
            Poll::Pending => self.meter.stall(),
            Poll::Ready(Ok(())) => self.meter.wrote(0),
            Poll::Ready(Err(_)) => {}
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
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
