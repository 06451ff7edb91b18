//! Tells open pages that something changed, by server-sent events: `changed` when the snapshot is another, `tick` from time to time for
//! what is only counted. The page then fetches itself; nothing else is sent.

use super::session::Visitor;
use crate::service::Core;
use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use futures_util::Stream;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Where open pages listen.
pub(super) const PATH: &str = "/console/live";
/// How often pages count again.
const TICK: Duration = Duration::from_secs(10);
/// Several changes at once are told once.
const SETTLE: Duration = Duration::from_millis(100);
/// After so long the page asks again, and shows again who it is.
const LIFE: Duration = Duration::from_mins(10);

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route(PATH, get(live))
}

async fn live(
    State(core): State<Arc<Core>>,
    _: Visitor,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let versions = core.snapshots.subscribe();
    let ends = tokio::time::Instant::now() + LIFE;
    let stream = futures_util::stream::unfold(
        (core, versions, true),
        move |(core, mut versions, first)| async move {
            if first {
                // So that the page knows at once that it is connected.
                let hello = Event::default()
                    .comment("connected")
                    .retry(Duration::from_secs(2));
                return Some((Ok(hello), (core, versions, false)));
            }
            let name = tokio::select! {
                () = core.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(ends) => return None,
                changed = versions.changed() => {
                    changed.ok()?;
                    tokio::time::sleep(SETTLE).await;
                    versions.mark_unchanged();
                    "changed"
                }
                () = tokio::time::sleep(TICK) => "tick",
            };
            let version = *versions.borrow();
            let event = Event::default().event(name).data(version.to_string());
            Some((Ok(event), (core, versions, false)))
        },
    );
    Sse::new(stream)
}
