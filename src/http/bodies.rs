//! The bodies of a request and its answer, which tell the connection's meter whether the client keeps it waiting.

use super::connection::{Meter, Turn};
use axum::body::Body as AxumBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The most of an answer that is given to HTTP/2 at once. With the head of its frame it fills one TLS record of 16 KiB.
/// What was given is sent or kept by the protocol, whatever the client does; so it is little.
const PIECE: usize = (16 << 10) - 9;

/// The body of a request: while it is read and does not come, the connection waits for its client.
#[derive(Debug)]
pub(super) struct Asked {
    body: Incoming,
    meter: Arc<Meter>,
    awaiting: bool,
}

impl Asked {
    pub(super) fn new(body: Incoming, meter: Arc<Meter>) -> Self {
        Self {
            body,
            meter,
            awaiting: false,
        }
    }

    fn came(&mut self) {
        if std::mem::take(&mut self.awaiting) {
            self.meter.body_came();
        }
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            self.meter.await_body(self.awaiting);
            self.awaiting = true;
        } else {
            self.came();
        }
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
        self.came();
    }
}

/// The body of an answer: when it is done with, the connection waits for the next request. Over HTTP/2 it is given away
/// piece by piece, so that it is seen when the client does not allow the next one to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    body: AxumBody,
    turn: Turn,
    /// What the body gave and was not given on.
    rest: Bytes,
    /// A piece was given and no further one asked for.
    withheld: bool,
}

impl Answer {
    pub(super) fn new(body: AxumBody, turn: Turn) -> Self {
        Self {
            body,
            turn,
            rest: Bytes::new(),
            withheld: false,
        }
    }

    fn took(&mut self) {
        if std::mem::take(&mut self.withheld) {
            self.turn.meter().took();
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(PIECE.min(self.rest.len()));
        self.turn.meter().withhold();
        self.withheld = true;
        Frame::data(piece)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.turn.meter().is_multiplexed() {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        self.took();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(other) => other,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        // The upper bound first: the lower one may not be above it.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.took();
    }
}
