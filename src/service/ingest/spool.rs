//! The spool: where a bundle being received is kept until it is known what it is. Small ones stay in memory, larger
//! ones go to a file that has no name, so that nothing is left behind however the process ends.

use crate::blob::{Content, Expect, Gather};
use bytes::Bytes;
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

/// Receives a body of at most `limit` bytes; `size` is what it was said to have.
pub(super) async fn receive(
    body: impl Stream<Item = io::Result<Bytes>>,
    size: Option<u64>,
    limit: u64,
    directory: Option<&Path>,
) -> Result<Spooled, SpoolError> {
    let mut body = pin!(body);
    // Room for all of it at once, instead of copying it whenever it has grown.
    let room = size.unwrap_or_default().min(IN_MEMORY as u64);
    let mut gather = Gather::with_capacity(room as usize);
    let mut file: Option<Arc<File>> = None;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|e| SpoolError::Broken(gather.size(), e))?;
        if gather.size() + chunk.len() as u64 > limit {
            return Err(SpoolError::TooLarge(limit));
        }
        gather.push(&chunk);
        if gather.held() > IN_MEMORY {
            let target = match file.take() {
                Some(file) => file,
                None => open(directory).await?,
            };
            file = Some(write(target, gather.split()).await?);
        }
    }
    let (expect, rest) = gather.finish();
    let content = match (file, rest) {
        (Some(file), Content::Bytes(rest)) => Content::File(write(file, rest).await?),
        (_, whole) => whole,
    };
    Ok(Spooled { content, expect })
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
            Content::Hashed(hashed) => copy(hashed.bytes(), self.at, buf),
            Content::Bytes(bytes) => copy(bytes, self.at, buf),
            Content::File(file) => file.read_at(buf, self.at)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

fn copy(bytes: &[u8], at: u64, buf: &mut [u8]) -> usize {
    let rest = bytes.get(at as usize..).unwrap_or_default();
    let n = rest.len().min(buf.len());
    buf[..n].copy_from_slice(&rest[..n]);
    n
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
        let spooled = receive(stream::iter(chunks), Some(7), limit, None).await?;
        let mut back = Vec::new();
        spooled.reader().read_to_end(&mut back).unwrap();
        assert!(back == bytes, "what was spooled differs");
        assert_eq!(spooled.expect, Expect::of(&bytes));
        Ok(spooled)
    }

    #[tokio::test]
    async fn small_bodies_stay_in_memory_and_large_ones_go_to_a_file_unchanged() {
        let small = received(1 << 20, 60_000, 1 << 20).await.unwrap();
        assert!(matches!(small.content, Content::Hashed(_)));
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
            receive(broken, None, 10, None).await,
            Err(SpoolError::Broken(3, _))
        ));
        let body = stream::iter([Ok(Bytes::from(vec![0; IN_MEMORY + 1]))]);
        assert!(matches!(
            receive(body, None, u64::MAX, Some(Path::new("/nonexistent"))).await,
            Err(SpoolError::Local(_))
        ));
    }
}
