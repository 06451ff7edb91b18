//! Bodies that are streamed: patience with a slow sender, but not for ever.

use crate::http::connection::SLOWEST;
use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The body as a stream that ends in an error when nothing comes for `idle`, or when a body of `most` bytes would be
/// sent more slowly than a modem.
pub(super) fn patient(
    body: Body,
    idle: Duration,
    most: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let end = Instant::now() + idle + Duration::from_secs(most / SLOWEST);
    stream::unfold(Some(body.into_data_stream()), move |body| async move {
        let mut body = body?;
        let until = end.min(Instant::now() + idle);
        match timeout_at(until, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(body))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Err(_) => {
                let late = if until == end {
                    "it came too slowly".to_owned()
                } else {
                    format!("nothing came for {idle:?}")
                };
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, late)), None))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;

    const IDLE: Duration = Duration::from_millis(20);

    async fn read(body: Body, most: u64) -> io::Result<Vec<Bytes>> {
        patient(body, IDLE, most).try_collect().await
    }

    #[tokio::test]
    async fn silent_and_dripping_senders_are_given_up() {
        assert_eq!(read(Body::from("abc"), 3).await.unwrap(), ["abc"]);
        let silent = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let error = read(silent, 1 << 20).await.unwrap_err();
        assert_eq!(error.to_string(), "nothing came for 20ms");
        let dripping = Body::from_stream(stream::repeat(()).then(|()| async {
            tokio::time::sleep(IDLE / 4).await;
            io::Result::Ok(Bytes::from_static(b"x"))
        }));
        let error = read(dripping, 0).await.unwrap_err();
        assert_eq!(error.to_string(), "it came too slowly");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
