//! The accept loop: bounds and timeouts that `axum::serve` does not set, and a shutdown that drains.
//!
//! Plain connections speak HTTP/1.1 only: a builder that guesses the protocol from the first bytes waits for them without
//! a timer.

use crate::config::Server;
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
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

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
    stopping: CancellationToken,
) -> bool {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(server.max_connections as usize));
    let builder = builder(server);
    loop {
        // Without a free place, nobody is accepted: the kernel's queue waits.
        let place = tokio::select! {
            () = stopping.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors: at once again would only spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are small and whole; waiting to fill packets only delays them.
        let _ = stream.set_nodelay(true);
        let connection = connection(&builder, stream, peer, app.clone());
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(server.shutdown_grace, graceful.shutdown())
        .await
        .is_ok()
}

fn builder(server: &Server) -> Builder {
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        // Also bounds the wait for the next request on a connection that is kept.
        .header_read_timeout(server.header_timeout)
        .max_buf_size(64 << 10);
    builder
}

fn connection<A: App>(
    builder: &Builder,
    stream: TcpStream,
    peer: SocketAddr,
    app: A,
) -> impl GracefulConnection<Error = hyper::Error> + use<A> {
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    builder.serve_connection(TokioIo::new(stream), service)
}
