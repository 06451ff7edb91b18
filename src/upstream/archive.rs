//! The driver `archive`: an archive that was carried here. Everything in it is verified before the driver exists, and hashed again by
//! ingest when it is read.

use super::volume::{ArchiveError, Volume, open_volume, open_volumes};
use super::{Body, Listing, Offered, Question, Upstream, UpstreamError};
use crate::domain::{PublicKey, Sha256};
use crate::index::{Refusal, State, VolumeEntry, comes_after, entries, leading_entries};
use crate::wire::archive::ArchiveManifest;
use crate::wire::sync::Head;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use std::collections::HashMap;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

const CHUNK: usize = 64 << 10;

/// An archive of which every byte was verified.
#[derive(Debug)]
pub struct Archive {
    manifest: ArchiveManifest,
    state: State,
    files: Vec<PathBuf>,
    places: HashMap<String, Place>,
    accept_old: bool,
    given: Arc<AtomicU64>,
}

/// Where a payload lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    file: usize,
    offset: u64,
    size: u64,
}

/// Opens and verifies a whole archive: signature, volumes, the hash of every file, and that there is nothing else. Blocks. `read` is
/// told of every piece that was read and of how much there is in all. `accept_old`: also one that has expired or is older than what was
/// taken in before.
pub fn open(
    paths: &[PathBuf],
    trusted: &[PublicKey],
    now: Timestamp,
    accept_old: bool,
    read: &mut dyn FnMut(u64, u64),
) -> Result<Archive, ArchiveError> {
    let volumes = open_volumes(paths, trusted, now, accept_old)?;
    let first = &volumes[0];
    let manifest = Arc::clone(&first.manifest);
    let total = manifest.volumes.iter().map(|volume| volume.bytes).sum();
    let mut read = |piece| read(piece, total);
    let mut reading = first.reading()?;
    let mut texts = Vec::new();
    for entry in leading_entries(&manifest) {
        let bytes = reading.entry(&entry, true, &mut read)?;
        let text =
            String::from_utf8(bytes).map_err(|_| refused(first, &entry.path, "not UTF-8"))?;
        texts.push(text);
    }
    let [state_text, contents] = texts.as_slice() else {
        return Err(refused(first, "the first volume", "it lacks the state"));
    };
    let state =
        State::parse(state_text).map_err(|e| refused(first, "the state", &e.to_string()))?;
    let layout = entries(&manifest, &state, contents)
        .map_err(|e| refused(first, "the list of contents", &e.to_string()))?;
    let mut places = HashMap::new();
    for (file, (volume, entries)) in volumes.iter().zip(&layout).enumerate() {
        if file > 0 {
            reading = volume.reading()?;
        }
        let mut offset = volume.body;
        for entry in entries {
            if entry.is_payload() {
                reading.entry(entry, false, &mut read)?;
                places.insert(entry.name().to_owned(), place(file, offset, entry));
            }
            offset += entry.span();
        }
        reading.end()?;
    }
    Ok(Archive {
        manifest: Arc::unwrap_or_clone(manifest),
        state,
        files: volumes.into_iter().map(|volume| volume.path).collect(),
        places,
        accept_old,
        given: Arc::default(),
    })
}

/// Manifest and state of an archive, of whose volumes only the first has to be here. Blocks.
pub fn open_state(
    path: &Path,
    trusted: &[PublicKey],
    now: Timestamp,
) -> Result<(ArchiveManifest, State), ArchiveError> {
    let first = open_volume(path, trusted, now, true)?;
    if first.number != 1 {
        return Err(ArchiveError::NotAVolume {
            path: path.to_owned(),
            why: "the state is in the first volume of an archive; give that one".to_owned(),
        });
    }
    let bytes = match leading_entries(&first.manifest).first() {
        Some(entry) => first.reading()?.entry(entry, true, &mut |_| {})?,
        None => Vec::new(),
    };
    let text = String::from_utf8(bytes).map_err(|_| refused(&first, "the state", "not UTF-8"))?;
    let state = State::parse(&text).map_err(|e| refused(&first, "the state", &e.to_string()))?;
    Ok((Arc::unwrap_or_clone(first.manifest), state))
}

/// What a trusted key signed, and yet makes no sense.
fn refused(volume: &Volume, what: &str, why: &str) -> ArchiveError {
    ArchiveError::Refused {
        path: volume.path.clone(),
        refusal: Refusal::OtherState(format!("{what}: {why}")),
    }
}

fn place(file: usize, offset: u64, entry: &VolumeEntry) -> Place {
    Place {
        file,
        offset: offset + (entry.span() - entry.size - entry.padding()),
        size: entry.size,
    }
}

impl Archive {
    /// What it says it is.
    pub fn manifest(&self) -> &ArchiveManifest {
        &self.manifest
    }

    /// Its head.
    pub fn head(&self) -> &Head {
        &self.manifest.index
    }

    /// The whole state that it stands for.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether it brings this payload itself.
    pub fn carries(&self, filename: &str) -> bool {
        self.places.contains_key(filename)
    }

    /// Payloads that it brings.
    pub fn carried(&self) -> u64 {
        self.places.len() as u64
    }

    /// Counts the bytes of payloads that were read for intake so far.
    pub fn given(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.given)
    }
}

/// What is known of archives is kept under this name: that of the deployment and tier and, if it is narrowed, of the filter.
fn series(manifest: &ArchiveManifest) -> String {
    let index = &manifest.index;
    let name = format!("archive of {} {}", index.deployment, index.tier);
    if manifest.filter.is_all() {
        return name;
    }
    let filter = serde_json::to_vec(&manifest.filter).unwrap_or_default();
    format!("{name} filter {}", &Sha256::of(&filter).to_string()[..12])
}

impl Upstream for Archive {
    fn name(&self) -> String {
        series(&self.manifest)
    }

    fn list<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Listing, UpstreamError>> {
        Box::pin(async move {
            if let Some((known, _)) = question.known
                && !self.accept_old
            {
                comes_after(&self.manifest, known)?;
            }
            let mut payloads = Vec::new();
            for payload in self.state.payloads() {
                let name = payload
                    .filename
                    .parse()
                    .map_err(|e| UpstreamError::Nonsense(format!("{}: {e}", payload.filename)))?;
                payloads.push(Offered {
                    name,
                    sha256: Some(payload.sha256),
                    size: Some(payload.size),
                });
            }
            Ok(Listing {
                payloads,
                unreadable: Vec::new(),
                index: Some((self.manifest.index.clone(), self.state.clone())),
            })
        })
    }

    fn open<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, Result<Body, UpstreamError>> {
        Box::pin(async move {
            let name = payload.name.to_string();
            let Some(place) = self.places.get(&name) else {
                return Err(UpstreamError::Denied(format!(
                    "{name} is not in this archive, which carries only what came after an older one; import that first"
                )));
            };
            let path = &self.files[place.file];
            let local = |e| UpstreamError::Local(format!("{} cannot be read: {e}", path.display()));
            let mut file = tokio::fs::File::open(path).await.map_err(local)?;
            file.seek(SeekFrom::Start(place.offset))
                .await
                .map_err(local)?;
            let given = Arc::clone(&self.given);
            let pieces = ReaderStream::with_capacity(file.take(place.size), CHUNK);
            let counted = pieces.inspect_ok(move |piece| {
                given.fetch_add(piece.len() as u64, Ordering::Relaxed);
            });
            Ok(counted.boxed())
        })
    }
}
