//! The spool: where a bundle being received is kept until it is known what it is. Small ones stay in memory, larger
//! ones go to a file that has no name, so that nothing is left behind however the process ends.

use crate::blob::{Content, Expect};
use crate::domain::Sha256;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;

/// Bytes kept in memory; what is larger goes to a file, in pieces of this size.
const IN_MEMORY: usize = 1 << 20;

/// A bundle that has arrived whole.
#[derive(Debug, Clone)]
pub(super) struct Spooled {
    pub(super) content: Content,
    /// What arrived.
    pub(super) expect: Expect,
}

/// Why nothing arrived.
#[derive(Debug)]
pub(super) enum SpoolError {
    /// More than this many bytes.
    TooLarge(u64),
    /// The source failed after so many bytes.
    Broken(u64, io::Error),
    /// The spool could not be written.
    Local(io::Error),
}

/// Receives a body of at most `limit` bytes.
pub(super) async fn receive(
    body: impl Stream<Item = io::Result<Bytes>>,
    limit: u64,
    directory: Option<&Path>,
) -> Result<Spooled, SpoolError> {
    let mut body = pin!(body);
    let mut hasher = openssl::sha::Sha256::new();
    let mut size = 0;
    let mut held = BytesMut::new();
    let mut file: Option<Arc<File>> = None;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| SpoolError::Broken(size, e))?;
        size += chunk.len() as u64;
        if size > limit {
            return Err(SpoolError::TooLarge(limit));
        }
        hasher.update(&chunk);
        held.extend_from_slice(&chunk);
        if held.len() > IN_MEMORY {
            let target = match file.take() {
                Some(file) => file,
                None => open(directory).await?,
            };
            file = Some(write(target, held.split().freeze()).await?);
        }
    }
    let content = match file {
        None => Content::Bytes(held.freeze()),
        Some(file) => Content::File(write(file, held.freeze()).await?),
    };
    let sha256 = Sha256(hasher.finish());
    Ok(Spooled {
        content,
        expect: Expect { sha256, size },
    })
}

async fn open(directory: Option<&Path>) -> Result<Arc<File>, SpoolError> {
    let directory = directory.map_or_else(std::env::temp_dir, Path::to_owned);
    blocking(move || tempfile::tempfile_in(directory).map(Arc::new)).await
}

async fn write(file: Arc<File>, bytes: Bytes) -> Result<Arc<File>, SpoolError> {
    blocking(move || {
        (&*file).write_all(&bytes)?;
        Ok(file)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
        .and_then(|result| result)
        .map_err(SpoolError::Local)
}

impl Spooled {
    /// Reads it from the beginning. Blocks when it is a file.
    pub(super) fn reader(&self) -> Reader {
        Reader {
            content: self.content.clone(),
            at: 0,
        }
    }
}

/// One pass through a spooled bundle.
pub(super) struct Reader {
    content: Content,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = match &self.content {
            Content::Bytes(bytes) => {
                let rest = bytes.get(self.at as usize..).unwrap_or_default();
                let n = rest.len().min(buf.len());
                buf[..n].copy_from_slice(&rest[..n]);
                n
            }
            Content::File(file) => file.read_at(buf, self.at)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    async fn received(total: usize, chunk: usize, limit: u64) -> Result<Spooled, SpoolError> {
        let bytes: Bytes = (0..total).map(|n| (n % 251) as u8).collect();
        let chunks: Vec<_> = (0..total)
            .step_by(chunk)
            .map(|at| Ok(bytes.slice(at..total.min(at + chunk))))
            .collect();
        let spooled = receive(stream::iter(chunks), limit, None).await?;
        let mut back = Vec::new();
        spooled.reader().read_to_end(&mut back).unwrap();
        assert!(back == bytes, "what was spooled differs");
        assert_eq!(spooled.expect, Expect::of(&bytes));
        Ok(spooled)
    }

    #[tokio::test]
    async fn small_bodies_stay_in_memory_and_large_ones_go_to_a_file_unchanged() {
        let small = received(1 << 20, 60_000, 1 << 20).await.unwrap();
        assert!(matches!(small.content, Content::Bytes(_)));
        let large = received((3 << 20) + 17, 60_000, 8 << 20).await.unwrap();
        assert!(matches!(large.content, Content::File(_)));
        let empty = received(0, 1, 1).await.unwrap();
        assert_eq!(empty.expect.size, 0);
    }

    #[tokio::test]
    async fn the_limit_and_a_broken_source_end_it() {
        assert!(matches!(
            received(101, 10, 100).await,
            Err(SpoolError::TooLarge(100))
        ));
        let broken = stream::iter([
            Ok(Bytes::from_static(b"abc")),
            Err(io::ErrorKind::ConnectionReset.into()),
        ]);
        assert!(matches!(
            receive(broken, 10, None).await,
            Err(SpoolError::Broken(3, _))
        ));
        let body = stream::iter([Ok(Bytes::from(vec![0; IN_MEMORY + 1]))]);
        assert!(matches!(
            receive(body, u64::MAX, Some(Path::new("/nonexistent"))).await,
            Err(SpoolError::Local(_))
        ));
    }
}
