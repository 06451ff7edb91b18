//! Reading the volumes of an archive from files that may be anything: nothing is read that the manifest does not announce, and
//! every byte must be the one that it implies.

use crate::domain::PublicKey;
use crate::index::{
    END, MAX_MANIFEST, Refusal, VolumeEntry, accept_manifest, manifest_span, read_manifest_header,
};
use crate::wire::archive::ArchiveManifest;
use crate::wire::sync::SignedHead;
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BUFFER: usize = 256 << 10;
/// Names of volumes that a message lists.
const LISTED: usize = 8;

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is something else.
    #[error("{} is not a volume of an archive: {why}", path.display())]
    NotAVolume {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The manifest is not believed.
    #[error("{}: {refusal}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        refusal: Refusal,
    },
    /// A volume is shorter or longer than it was written.
    #[error(
        "{} is {what}: it has {has} bytes, volume {volume} of {volumes} has {needs}; copy it again",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// `half copied` or `too long`.
        what: &'static str,
        /// Its number, from 1.
        volume: usize,
        /// Of how many.
        volumes: usize,
        /// Bytes of the file.
        has: u64,
        /// Bytes of the volume.
        needs: u64,
    },
    /// The content of a volume is not what was written.
    #[error("{} (volume {volume}) was altered: {file}: {why}; copy it again", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        volume: usize,
        /// The file in it.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// Volumes are not there.
    #[error(
        "the archive has {volumes} volumes, and of them {missing} not here; bring all together"
    )]
    Missing {
        /// How many it has.
        volumes: usize,
        /// Which ones are not here, in words.
        missing: String,
    },
    /// The same volume twice.
    #[error("{} and {} are both volume {volume}; give one of them", first.display(), second.display())]
    Twice {
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// Their number.
        volume: usize,
    },
    /// Volumes of several archives.
    #[error(
        "{} is of version {version}, but {} of version {other_version}: these are volumes of different archives; import them one after the other, the older first",
        path.display(), other.display()
    )]
    Mixed {
        /// One file.
        path: PathBuf,
        /// Its version.
        version: u64,
        /// Another.
        other: PathBuf,
        /// Its version.
        other_version: u64,
    },
    /// There is nothing to read.
    #[error("{0}")]
    Nothing(String),
}

impl ArchiveError {
    /// A word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "unreadable-file",
            Self::NotAVolume { .. } => "not-a-volume",
            Self::Refused { refusal, .. } => refusal.code(),
            Self::Length { .. } => "half-copied",
            Self::Altered { .. } => "altered",
            Self::Missing { .. } => "missing-volume",
            Self::Twice { .. } => "volume-twice",
            Self::Mixed { .. } => "mixed-archives",
            Self::Nothing(_) => "nothing",
        }
    }
}

/// A volume whose manifest is believed and whose length is right. It is not kept open: there may be thousands.
#[derive(Debug)]
pub struct Volume {
    /// The file.
    pub path: PathBuf,
    /// Its number, from 1.
    pub number: usize,
    /// What it says it belongs to; shared by the volumes of an archive.
    pub manifest: Arc<ArchiveManifest>,
    /// Where the entries begin.
    pub body: u64,
}

/// A volume that is being read.
#[derive(Debug)]
pub struct Reading<'v> {
    volume: &'v Volume,
    file: File,
}

/// Opens a file and reads its manifest.
pub fn open_volume(
    path: &Path,
    trusted: &[PublicKey],
    now: Timestamp,
    late: bool,
) -> Result<Volume, ArchiveError> {
    let unreadable = |source| ArchiveError::Read {
        path: path.to_owned(),
        source,
    };
    let strange = |why: &str| ArchiveError::NotAVolume {
        path: path.to_owned(),
        why: why.to_owned(),
    };
    // Looked at before it is opened: opening a pipe would wait for ever.
    let meta = std::fs::metadata(path).map_err(unreadable)?;
    if !meta.is_file() {
        return Err(strange("it is not a plain file"));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut block = [0; 512];
    let short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => strange("it ends within its manifest; copy it again"),
        _ => unreadable(error),
    };
    file.read_exact(&mut block).map_err(short)?;
    let Some((number, size)) = read_manifest_header(&block) else {
        return Err(strange(
            "it does not begin with a manifest, or the first block of the file was altered",
        ));
    };
    debug_assert!(size <= MAX_MANIFEST, "checked by the reader of headers");
    let mut text = vec![0; size as usize];
    file.read_exact(&mut text).map_err(short)?;
    let padding = manifest_span(size) - 512 - size;
    zeros(&mut file, padding).map_err(short)?.ok_or_else(|| {
        strange(
            "its manifest is followed by something else than a writer leaves there; it was altered",
        )
    })?;
    let refused = |refusal| ArchiveError::Refused {
        path: path.to_owned(),
        refusal,
    };
    let sealed: SignedHead =
        serde_json::from_slice(&text).map_err(|e| refused(Refusal::Unreadable(e.to_string())))?;
    // Only the text that a writer makes: what could be changed without notice is nothing.
    if serde_json::to_vec(&sealed).ok().as_deref() != Some(&text) {
        return Err(strange(
            "its manifest is not written as a writer does; it was altered",
        ));
    }
    let manifest = accept_manifest(&sealed, trusted, now, late).map_err(refused)?;
    let volumes = manifest.volumes.len();
    let Some(record) = manifest.volumes.get(number - 1) else {
        return Err(strange(&format!(
            "it says it is volume {number} of {volumes}; it was altered"
        )));
    };
    let needs = manifest_span(size).saturating_add(record.bytes);
    let has = meta.len();
    if has != needs {
        return Err(ArchiveError::Length {
            path: path.to_owned(),
            what: if has < needs {
                "half copied"
            } else {
                "too long"
            },
            volume: number,
            volumes,
            has,
            needs,
        });
    }
    Ok(Volume {
        path: path.to_owned(),
        number,
        manifest: Arc::new(manifest),
        body: manifest_span(size),
    })
}

/// Whether the next `n` bytes are zeros.
fn zeros(file: &mut impl Read, n: u64) -> io::Result<Option<()>> {
    let mut block = [0; 512];
    let mut left = n;
    while left > 0 {
        let some = left.min(512) as usize;
        file.read_exact(&mut block[..some])?;
        if block[..some].iter().any(|b| *b != 0) {
            return Ok(None);
        }
        left -= some as u64;
    }
    Ok(Some(()))
}

impl Volume {
    fn altered(&self, file: &str, why: &str) -> ArchiveError {
        ArchiveError::Altered {
            path: self.path.clone(),
            volume: self.number,
            file: file.to_owned(),
            why: why.to_owned(),
        }
    }

    fn read_error(&self, file: &str, error: io::Error) -> ArchiveError {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return self.altered(file, "the file ends within it");
        }
        ArchiveError::Read {
            path: self.path.clone(),
            source: error,
        }
    }

    /// Opens the volume behind its manifest.
    pub fn reading(&self) -> Result<Reading<'_>, ArchiveError> {
        let open = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.body))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Reading { volume: self, file }),
            Err(error) => Err(self.read_error("the manifest", error)),
        }
    }
}

impl Reading<'_> {
    /// Reads the next entry, which has to be this one, and gives its content if `keep`. `read` is told of every piece.
    pub fn entry(
        &mut self,
        entry: &VolumeEntry,
        keep: bool,
        read: &mut dyn FnMut(u64),
    ) -> Result<Vec<u8>, ArchiveError> {
        let expected = entry
            .header()
            .map_err(|e| self.volume.altered(&entry.path, &e.to_string()))?;
        let mut block = [0; 512];
        if let Err(error) = self.file.read_exact(&mut block) {
            return Err(self.volume.read_error(&entry.path, error));
        }
        if block != expected {
            return Err(self
                .volume
                .altered(&entry.path, "its header is not the one that was written"));
        }
        let mut kept = Vec::new();
        let mut hasher = openssl::sha::Sha256::new();
        let mut buffer = vec![0; BUFFER.min(entry.size as usize).max(1)];
        let mut left = entry.size;
        while left > 0 {
            let some = left.min(buffer.len() as u64) as usize;
            let piece = &mut buffer[..some];
            if let Err(error) = self.file.read_exact(piece) {
                return Err(self.volume.read_error(&entry.path, error));
            }
            hasher.update(piece);
            if keep {
                kept.extend_from_slice(piece);
            }
            read(some as u64);
            left -= some as u64;
        }
        if hasher.finish() != entry.sha256.0 {
            return Err(self
                .volume
                .altered(&entry.path, "its content is not the one that was written"));
        }
        match zeros(&mut self.file, entry.padding()) {
            Ok(Some(())) => Ok(kept),
            Ok(None) => Err(self
                .volume
                .altered(&entry.path, "something is hidden behind it")),
            Err(error) => Err(self.volume.read_error(&entry.path, error)),
        }
    }

    /// Reads the end mark, behind which there must be nothing.
    pub fn end(&mut self) -> Result<(), ArchiveError> {
        let what = "the end mark";
        match zeros(&mut self.file, END) {
            Ok(Some(())) => {}
            Ok(None) => return Err(self.volume.altered(what, "it is not empty")),
            Err(error) => return Err(self.volume.read_error(what, error)),
        }
        match self.file.read(&mut [0; 1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.volume.altered(what, "something follows it")),
            Err(error) => Err(self.volume.read_error(what, error)),
        }
    }
}

/// Opens all volumes of one archive, in their order. What is given may be files and folders; of a folder, the files that end in
/// `.tar` are taken.
pub fn open_volumes(
    paths: &[PathBuf],
    trusted: &[PublicKey],
    now: Timestamp,
    late: bool,
) -> Result<Vec<Volume>, ArchiveError> {
    let mut volumes: Vec<Volume> = Vec::new();
    for path in expand(paths)? {
        let mut volume = open_volume(&path, trusted, now, late)?;
        if let Some(first) = volumes.first().filter(|v| v.manifest == volume.manifest) {
            volume.manifest = Arc::clone(&first.manifest);
        }
        volumes.push(volume);
    }
    volumes.sort_by_key(|volume| volume.number);
    let Some(first) = volumes.first() else {
        return Err(ArchiveError::Nothing("no file was given".to_owned()));
    };
    if let Some(other) = volumes.iter().find(|v| v.manifest != first.manifest) {
        return Err(ArchiveError::Mixed {
            path: first.path.clone(),
            version: first.manifest.index.version,
            other: other.path.clone(),
            other_version: other.manifest.index.version,
        });
    }
    if let Some(pair) = volumes.windows(2).find(|p| p[0].number == p[1].number) {
        return Err(ArchiveError::Twice {
            first: pair[0].path.clone(),
            second: pair[1].path.clone(),
            volume: pair[0].number,
        });
    }
    let count = first.manifest.volumes.len();
    if volumes.len() == count {
        return Ok(volumes);
    }
    let here: Vec<usize> = volumes.iter().map(|v| v.number).collect();
    let gone: Vec<usize> = (1..=count).filter(|n| !here.contains(n)).collect();
    let mut names: Vec<String> = gone
        .iter()
        .take(LISTED)
        .map(|number| sibling(&first.path, first.number, *number))
        .collect();
    if gone.len() > LISTED {
        names.push(format!("{} more", gone.len() - LISTED));
    }
    let verb = if gone.len() == 1 { "is" } else { "are" };
    Err(ArchiveError::Missing {
        volumes: count,
        missing: format!("{} {verb}", names.join(", ")),
    })
}

/// What volume `number` is probably called, by the name of another one.
fn sibling(path: &Path, of: usize, number: usize) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mark = format!(".{of:03}.");
    if name.contains(&mark) {
        let guess = name.replace(&mark, &format!(".{number:03}."));
        return format!("volume {number} (probably {guess})");
    }
    format!("volume {number}")
}

/// Sorts files and folders into archives, by the manifests of the files: the files of each, the older archive first.
pub fn archives(
    paths: &[PathBuf],
    trusted: &[PublicKey],
    now: Timestamp,
    late: bool,
) -> Result<Vec<Vec<PathBuf>>, ArchiveError> {
    let mut found: Vec<(Arc<ArchiveManifest>, Vec<PathBuf>)> = Vec::new();
    for path in expand(paths)? {
        let manifest = open_volume(&path, trusted, now, late)?.manifest;
        match found.iter_mut().find(|(of, _)| *of == manifest) {
            Some((_, files)) => files.push(path),
            None => found.push((manifest, vec![path])),
        }
    }
    found.sort_by_key(|(manifest, _)| {
        let since = manifest.since.as_ref().map(|since| since.version);
        (manifest.index.version, since)
    });
    Ok(found.into_iter().map(|(_, files)| files).collect())
}

fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ArchiveError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let unreadable = |source| ArchiveError::Read {
            path: path.clone(),
            source,
        };
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if path.extension().is_some_and(|e| e == "tar") {
                inside.push(path);
            }
        }
        if inside.is_empty() {
            return Err(ArchiveError::Nothing(format!(
                "{} holds no file that ends in .tar",
                path.display()
            )));
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}
