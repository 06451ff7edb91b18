//! Writing the volumes of an archive: each under a temporary name, synced, then renamed, so that a file with a volume's name is
//! always whole. A volume that is there already is not written again.

use crate::index::{END, Plan, VolumeEntry, manifest_header, manifest_span};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};

const BUFFER: usize = 256 << 10;
/// Payloads that are opened ahead.
const AHEAD: usize = 4;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The place is full.
    #[error(
        "there is no room for {}: volume {volume} needs {needs} bytes. Free space and run the same command again, which goes on with this volume, or give a --volume-size that fits the medium",
        path.display()
    )]
    Full {
        /// The volume.
        path: PathBuf,
        /// Its number, from 1.
        volume: usize,
        /// Its bytes.
        needs: u64,
    },
    /// It cannot be written there.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Something else is there.
    #[error("{} is there already and is {what}; move it away, or choose another name with -o", path.display())]
    Taken {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// A payload cannot be read.
    #[error("{name} cannot be read from the storage: {why}")]
    Payload {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A payload in the storage is not what its row says.
    #[error(
        "{0} is damaged in the storage; `livepatch-admin storage verify` finds all such, and nothing damaged is written"
    )]
    Damaged(String),
}

/// Where volumes are written.
#[derive(Debug, Clone)]
pub struct Target {
    directory: PathBuf,
    stem: String,
    numbered: bool,
}

impl Target {
    /// `output` is the file, or the folder to put a file called `default` in. With `numbered`, volumes get numbers in their names.
    pub fn new(output: &Path, default: &str, numbered: bool) -> Self {
        let folder = output.is_dir() || output.as_os_str().to_string_lossy().ends_with('/');
        let (directory, name) = if folder {
            (output.to_owned(), default.to_owned())
        } else {
            let parent = output.parent().unwrap_or(Path::new(""));
            let name = output.file_name().unwrap_or_default();
            (parent.to_owned(), name.to_string_lossy().into_owned())
        };
        let directory = if directory.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            directory
        };
        Self {
            directory,
            stem: name.strip_suffix(".tar").unwrap_or(&name).to_owned(),
            numbered,
        }
    }

    /// The file of a volume, from 1.
    pub fn volume(&self, number: usize) -> PathBuf {
        let name = if self.numbered {
            format!("{}.{number:03}.tar", self.stem)
        } else {
            format!("{}.tar", self.stem)
        };
        self.directory.join(name)
    }

    fn partial(&self, number: usize) -> PathBuf {
        let name = self.volume(number);
        let name = name.file_name().unwrap_or_default().to_string_lossy();
        self.directory.join(format!(".{name}.partial"))
    }
}

/// What is written, and from what.
pub(super) struct Source<'a> {
    /// Layout.
    pub(super) plan: &'a Plan,
    /// The signed manifest as it stands in the files.
    pub(super) manifest: &'a [u8],
    /// The state's text.
    pub(super) state: &'a str,
}

/// A volume as it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// It was there already.
    pub kept: bool,
}

/// Writes every volume that is not there. `open` gives a payload's bytes; `wrote` is told of every piece.
pub(super) async fn write<F>(
    source: &Source<'_>,
    target: &Target,
    open: impl Fn(VolumeEntry) -> F,
    mut wrote: impl FnMut(u64),
) -> Result<Vec<Written>, WriteError>
where
    F: Future<Output = Result<BoxStream<'static, Result<Bytes, String>>, String>>,
{
    let failed = |path: &Path, source| WriteError::Write {
        path: path.to_owned(),
        source,
    };
    tokio::fs::create_dir_all(&target.directory)
        .await
        .map_err(|e| failed(&target.directory, e))?;
    let mut written = Vec::new();
    for (at, record) in source.plan.manifest.volumes.iter().enumerate() {
        let number = at + 1;
        let path = target.volume(number);
        let bytes = manifest_span(source.manifest.len() as u64) + record.bytes;
        let kept = is_there(&path, number, source.manifest, bytes).await?;
        if kept {
            wrote(record.bytes);
        } else {
            let partial = target.partial(number);
            let result = volume(source, number, &partial, &open, &mut wrote).await;
            if let Err(error) = result {
                // What remains would only take the room that is missing.
                let _ = tokio::fs::remove_file(&partial).await;
                return Err(match error {
                    Broken::Io(e) if is_full(&e) => WriteError::Full {
                        path,
                        volume: number,
                        needs: bytes,
                    },
                    Broken::Io(e) => failed(&path, e),
                    Broken::Other(e) => e,
                });
            }
            finish(target, &partial, &path)
                .await
                .map_err(|e| failed(&path, e))?;
        }
        written.push(Written { path, bytes, kept });
    }
    Ok(written)
}

enum Broken {
    Io(io::Error),
    Other(WriteError),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether exactly this volume is there, by its manifest and length. Anything else of that name is not overwritten.
async fn is_there(
    path: &Path,
    number: usize,
    manifest: &[u8],
    bytes: u64,
) -> Result<bool, WriteError> {
    let taken = |what: &str| WriteError::Taken {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let failed = |source| WriteError::Write {
        path: path.to_owned(),
        source,
    };
    let meta = match tokio::fs::metadata(path).await {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if !meta.is_file() {
        return Err(taken("not a plain file"));
    }
    let mut start = manifest_header(number, manifest.len() as u64).to_vec();
    start.extend_from_slice(manifest);
    let file = File::open(path).await.map_err(failed)?;
    let mut there = Vec::new();
    file.take(start.len() as u64)
        .read_to_end(&mut there)
        .await
        .map_err(failed)?;
    if there != start {
        return Err(taken("another archive or no archive"));
    }
    if meta.len() != bytes {
        return Err(taken("a damaged volume of this archive"));
    }
    Ok(true)
}

async fn volume<F>(
    source: &Source<'_>,
    number: usize,
    partial: &Path,
    open: &impl Fn(VolumeEntry) -> F,
    wrote: &mut impl FnMut(u64),
) -> Result<(), Broken>
where
    F: Future<Output = Result<BoxStream<'static, Result<Bytes, String>>, String>>,
{
    let mut file = BufWriter::with_capacity(BUFFER, File::create(partial).await?);
    let size = source.manifest.len() as u64;
    file.write_all(&manifest_header(number, size)).await?;
    file.write_all(source.manifest).await?;
    pad(&mut file, size).await?;
    let entries = &source.plan.volumes[number - 1];
    let texts = [source.state.as_bytes(), source.plan.contents.as_bytes()];
    let leading = entries.iter().take_while(|e| !e.is_payload()).count();
    for (entry, text) in entries[..leading].iter().zip(texts) {
        head(&mut file, entry).await?;
        file.write_all(text).await?;
        pad(&mut file, entry.size).await?;
        wrote(entry.span());
    }
    let mut bodies = stream::iter(entries[leading..].iter().cloned())
        .map(|entry| {
            let opening = open(entry.clone());
            async move { (entry, opening.await) }
        })
        .buffered(AHEAD);
    while let Some((entry, body)) = bodies.next().await {
        payload(&mut file, &entry, body).await?;
        wrote(entry.span());
    }
    file.write_all(&[0; END as usize]).await?;
    wrote(END);
    file.flush().await?;
    Ok(file.into_inner().sync_all().await?)
}

async fn head(file: &mut BufWriter<File>, entry: &VolumeEntry) -> Result<(), Broken> {
    let header = entry.header().map_err(|e| {
        Broken::Other(WriteError::Payload {
            name: entry.name().to_owned(),
            why: e.to_string(),
        })
    })?;
    Ok(file.write_all(&header).await?)
}

async fn payload(
    file: &mut BufWriter<File>,
    entry: &VolumeEntry,
    body: Result<BoxStream<'static, Result<Bytes, String>>, String>,
) -> Result<(), Broken> {
    let unreadable = |why| {
        Broken::Other(WriteError::Payload {
            name: entry.name().to_owned(),
            why,
        })
    };
    let damaged = || Broken::Other(WriteError::Damaged(entry.name().to_owned()));
    let mut body = body.map_err(unreadable)?;
    head(file, entry).await?;
    let mut hasher = openssl::sha::Sha256::new();
    let mut got = 0;
    while let Some(piece) = body.try_next().await.map_err(unreadable)? {
        got += piece.len() as u64;
        if got > entry.size {
            return Err(damaged());
        }
        hasher.update(&piece);
        file.write_all(&piece).await?;
    }
    if got != entry.size || hasher.finish() != entry.sha256.0 {
        return Err(damaged());
    }
    Ok(pad(file, entry.size).await?)
}

async fn pad(file: &mut BufWriter<File>, size: u64) -> io::Result<()> {
    let padding = (size.next_multiple_of(512) - size) as usize;
    file.write_all(&[0; 512][..padding]).await
}

async fn finish(target: &Target, partial: &Path, path: &Path) -> io::Result<()> {
    tokio::fs::rename(partial, path).await?;
    File::open(&target.directory).await?.sync_all().await
}
