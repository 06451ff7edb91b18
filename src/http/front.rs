//! What stands before the router: check-ins, which are nearly all requests there are, go a shorter way.
//!
//! The shorter way is the same rules in the same order - governor, handler, panics, problems, request id, metric - called
//! one after the other instead of through layers, each of which costs allocations. A check-in that needs more than that,
//! because requests are being captured or logged or its path is written in an unusual way, is left to the router, as is
//! every other request.

use super::error::{Asked, complete};
use super::governor::Governor;
use super::origin::source;
use super::serve::App;
use super::{client, machine, observe};
use crate::service::Core;
use crate::telemetry::HttpRoute;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use http_body::Body as HttpBody;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

/// The whole server as a service of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Front {
    router: Router,
    /// `None` where there are no machines.
    check_ins: Option<Arc<CheckIns>>,
}

#[derive(Debug)]
struct CheckIns {
    core: Arc<Core>,
    governor: Governor,
    metric: Arc<HttpRoute>,
}

/// The machine in the path of a check-in, if the request is one and the path needs no decoding.
fn machine_of<'a>(method: &Method, uri: &'a Uri) -> Option<&'a str> {
    if method != Method::POST {
        return None;
    }
    let path = uri.path().strip_prefix("/v1/client/")?;
    let machine = path.strip_suffix("/updates")?;
    let plain = !machine.is_empty() && !machine.bytes().any(|b| matches!(b, b'/' | b'%'));
    plain.then_some(machine)
}

impl Front {
    pub(super) fn new(core: Arc<Core>, governor: Governor, router: Router, machines: bool) -> Self {
        let metric = core.metrics.http.route(client::UPDATES);
        if machines {
            // What an alert on failures compares.
            metric.know(Method::POST.as_str(), &[200, 400, 401, 429, 500, 503]);
        }
        let check_ins = CheckIns {
            core,
            governor,
            metric,
        };
        Self {
            router,
            check_ins: machines.then(|| Arc::new(check_ins)),
        }
    }
}

impl App for Front {
    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        match &self.check_ins {
            Some(check_ins)
                if machine_of(request.method(), request.uri()).is_some()
                    && check_ins.core.captures.none()
                    && !observe::is_logged() =>
            {
                check_ins.answer(request).await
            }
            _ => self.router.answer(request).await,
        }
    }
}

impl CheckIns {
    async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<axum::BoxError>,
    {
        let started = Instant::now();
        let id = observe::request_id();
        let (parts, body) = request.into_parts();
        let work = async {
            let _turn = self.governor.enter().await?;
            let machine = machine::id(machine_of(&parts.method, &parts.uri).unwrap_or_default())?;
            client::check_in(&self.core, machine, &parts, body).await
        };
        let mut response = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(response)) => response,
            // Nothing is logged before this point, so the span is made only here.
            failed => observe::span(&id).in_scope(|| {
                let asked = Asked::here(&id, &parts.uri, client::UPDATES);
                let response = match failed {
                    Ok(result) => result.into_response(),
                    Err(panic) => observe::panicked(panic),
                };
                complete(response, asked)
            }),
        };
        let status = observe::mark(&mut response, id);
        if status == StatusCode::UNAUTHORIZED {
            let machine = machine_of(&parts.method, &parts.uri).unwrap_or_default();
            observe::machine_refused(machine, &source(&parts.extensions));
        }
        let seconds = started.elapsed().as_secs_f64();
        self.metric
            .observe(Method::POST.as_str(), status.as_u16(), seconds);
        response
    }
}
