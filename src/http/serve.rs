//! The accept loop: bounds and timeouts that `axum::serve` does not set, and a shutdown that drains.
//!
//! Plain connections speak HTTP/1.1 only: a builder that guesses the protocol from the first bytes waits for them without
//! a timer. Over TLS the handshake says which protocol it is. The time of a connection counts from when it was accepted,
//! and so do the caps, so that whatever comes before the first request is bounded too.

use super::bodies::{Answer, Asked};
use super::connection::{Meter, Metered, Patience, Timed};
use super::places::{Places, descriptors};
use super::tls::{Acceptor, Failed};
use crate::config::Server;
use crate::telemetry::Metrics;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How long nothing is accepted after the system refused for want of something: at once again would only spin.
const BREATH: Duration = Duration::from_millis(50);
/// Requests at once on one connection of HTTP/2.
const STREAMS: u32 = 100;
/// The largest head of a request over HTTP/2, in bytes.
const HEAD: u32 = 16 << 10;

/// What answers the requests of connections; cheap to clone.
pub trait App: Clone + Send + Sync + 'static {
    /// Answers a request; what goes wrong is an answer too.
    fn answer<B>(&self, request: Request<B>) -> impl Future<Output = Response<Body>> + Send
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>;
}

impl App for Router {
    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let Ok(response) = self.clone().oneshot(request).await;
        response
    }
}

/// Where connections come from, and whether they are encrypted.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, where it is spoken.
    pub tls: Option<Acceptor>,
}

/// Serves until `stopping`, then lets running requests end within the grace period.
/// Returns whether all of them did.
pub async fn serve(
    listener: Listener,
    app: impl App,
    server: &Server,
    metrics: &Metrics,
    stopping: CancellationToken,
) -> bool {
    let Listener { socket, tls } = listener;
    let graceful = GracefulShutdown::new();
    let counts = Arc::clone(&metrics.connections);
    let places = Places::new(
        most(server),
        server.max_connections_per_address as usize,
        Arc::clone(&counts),
    );
    let protocols = Protocols::new();
    let (start, patience) = (Instant::now(), Patience::from(server));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                places.relieve();
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let meter = Meter::new(start, patience, tls.is_some());
        let place = match places.enter(peer.ip(), &meter) {
            Ok(place) => place,
            Err(why) => {
                tracing::debug!(%peer, ?why, "a connection was refused");
                continue;
            }
        };
        // Answers are small and whole; waiting to fill packets only delays them.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            peer,
            app: app.clone(),
            meter: Arc::clone(&meter),
            protocols: protocols.clone(),
            watcher: graceful.watcher(),
        };
        let work = connection.run(stream, tls.clone(), stopping.clone());
        let timed = Timed::new(work, meter);
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            match timed.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a connection ended early"),
                Err(cut) => {
                    tracing::debug!(%peer, ?cut, "a connection was closed");
                    counts.cut.inc(cut);
                }
            }
            drop(place);
        });
    }
    drop(socket);
    tokio::time::timeout(server.shutdown_grace, graceful.shutdown())
        .await
        .is_ok()
}

/// The connections there may be: as configured, if the system lets the process have them.
fn most(server: &Server) -> usize {
    let (wanted, possible) = (server.max_connections as usize, descriptors());
    if possible < wanted {
        tracing::warn!(
            wanted,
            possible,
            "server.max-connections is more than this process may have open; raise its limit of open files (`LimitNOFILE=` of systemd, `ulimit -n`)"
        );
    }
    wanted.min(possible)
}

/// Whether only the connection that was to be accepted is concerned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted
    )
}

#[derive(Clone)]
struct Protocols {
    h1: http1::Builder,
    h2: http2::Builder<TokioExecutor>,
}

impl Protocols {
    fn new() -> Self {
        let mut h1 = http1::Builder::new();
        h1.timer(TokioTimer::new())
            // It would also run while a kept connection is silent; `Timed` tells the two apart.
            .header_read_timeout(None)
            .max_buf_size(64 << 10);
        let mut h2 = http2::Builder::new(TokioExecutor::new());
        h2.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD);
        Self { h1, h2 }
    }
}

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the TLS handshake failed ({0:?}): {1}")]
    Handshake(crate::telemetry::HandshakeFailure, io::Error),
    #[error(transparent)]
    Protocol(#[from] hyper::Error),
}

impl From<Failed> for Ended {
    fn from(Failed(why, error): Failed) -> Self {
        Self::Handshake(why, error)
    }
}

/// One connection, from its first byte on.
struct Connection<A> {
    peer: SocketAddr,
    app: A,
    meter: Arc<Meter>,
    protocols: Protocols,
    watcher: Watcher,
}

impl<A: App> Connection<A> {
    async fn run(
        self,
        stream: TcpStream,
        tls: Option<Acceptor>,
        stopping: CancellationToken,
    ) -> Result<(), Ended> {
        let Some(tls) = tls else {
            return self.speak(stream, false).await;
        };
        let (stream, h2) = tokio::select! {
            // Nothing was asked yet that could be waited for.
            () = stopping.cancelled() => return Ok(()),
            accepted = tls.accept(stream) => accepted?,
        };
        self.meter.secured(h2);
        self.speak(stream, h2).await
    }

    async fn speak<S>(self, stream: S, h2: bool) -> Result<(), Ended>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            peer,
            app,
            meter,
            protocols,
            watcher,
        } = self;
        let io = TokioIo::new(Metered {
            io: stream,
            meter: Arc::clone(&meter),
        });
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            let turn = meter.asked();
            request.extensions_mut().insert(ConnectInfo(peer));
            let request = request.map(|body| Asked::new(body, Arc::clone(&meter)));
            let app = app.clone();
            async move {
                let answer = app.answer(request).await;
                Ok::<_, Infallible>(answer.map(|body| Answer::new(body, turn)))
            }
        });
        if h2 {
            let connection = protocols.h2.serve_connection(io, service);
            Ok(watcher.watch(connection).await?)
        } else {
            let connection = protocols.h1.serve_connection(io, service);
            Ok(watcher.watch(connection).await?)
        }
    }
}
