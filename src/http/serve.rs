//! The accept loop: bounds and timeouts that `axum::serve` does not set, and a shutdown that drains.
//!
//! Plain connections speak HTTP/1.1 only: a builder that guesses the protocol from the first bytes waits for them without
//! a timer. The time of a connection counts from when it was accepted, so that whatever comes before the first request
//! is bounded too.

use super::connection::{Answer, Asked, Meter, Metered, Patience, Timed};
use super::places::{Places, descriptors};
use crate::config::Server;
use crate::telemetry::Metrics;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// How long nothing is accepted after the system refused for want of something: at once again would only spin.
const BREATH: Duration = Duration::from_millis(50);

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

/// Serves until `stopping`, then lets running requests end within the grace period.
/// Returns whether all of them did.
pub async fn serve(
    listener: TcpListener,
    app: impl App,
    server: &Server,
    metrics: &Metrics,
    stopping: CancellationToken,
) -> bool {
    let graceful = GracefulShutdown::new();
    let counts = Arc::clone(&metrics.connections);
    let places = Places::new(
        most(server),
        server.max_connections_per_address as usize,
        Arc::clone(&counts),
    );
    let builder = builder();
    let (start, patience) = (Instant::now(), Patience::from(server));
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
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
        let meter = Meter::new(start, patience);
        let place = match places.enter(peer.ip(), &meter) {
            Ok(place) => place,
            Err(why) => {
                tracing::debug!(%peer, ?why, "a connection was refused");
                continue;
            }
        };
        // Answers are small and whole; waiting to fill packets only delays them.
        let _ = stream.set_nodelay(true);
        let connection = connection(&builder, stream, peer, app.clone(), Arc::clone(&meter));
        let timed = Timed::new(graceful.watch(connection), meter);
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            match timed.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
                Err(cut) => {
                    tracing::debug!(%peer, ?cut, "a connection was closed");
                    counts.cut.inc(cut);
                }
            }
            drop(place);
        });
    }
    drop(listener);
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

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        // It would also run while a kept connection is silent; `Timed` tells the two apart.
        .header_read_timeout(None)
        .max_buf_size(64 << 10);
    builder
}

fn connection<A: App>(
    builder: &Builder,
    stream: TcpStream,
    peer: SocketAddr,
    app: A,
    meter: Arc<Meter>,
) -> impl GracefulConnection<Error = hyper::Error> + use<A> {
    let io = Metered {
        io: stream,
        meter: Arc::clone(&meter),
    };
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        meter.asked();
        request.extensions_mut().insert(ConnectInfo(peer));
        let request = request.map(|body| Asked {
            body,
            meter: Arc::clone(&meter),
        });
        let (app, meter) = (app.clone(), Arc::clone(&meter));
        async move {
            let answer = app.answer(request).await;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, meter }))
        }
    });
    builder.serve_connection(TokioIo::new(io), service)
}
