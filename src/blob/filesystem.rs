//! Objects as files in a folder.
//!
//! A file appears by rename after its bytes and then its folder were flushed to disk, so a crash leaves the old object,
//! or none, never half of one. What is being written lies in a work folder inside the same filesystem; leftovers of a
//! crash are removed when the store is opened.

use super::backend::{Area, Backend, ByteStream, Listed, Object, check_size, deadline, within};
use super::content::{Content, Expect};
use super::error::BlobError;
use super::key::{FoundPath, Key, WORK};
use super::verified::{Stamp, Verified, VerifiedFile, verified};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes read or written in one call.
const CHUNK: usize = 256 << 10;
/// A file in the work folder this old belongs to nobody any more.
const LEFTOVER: Duration = Duration::from_hours(24);
/// A disk that does not answer for so long is reported; its system call cannot be interrupted and ends by itself.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The backend.
#[derive(Debug, Clone)]
pub(super) struct Filesystem {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    place: Arc<str>,
    verified: Verified,
}

impl Filesystem {
    /// Makes the folder if it is missing and removes what a crash left behind.
    pub(super) async fn open(root: &Path) -> Result<Self, BlobError> {
        let shared = Arc::new(Shared {
            root: root.to_owned(),
            place: format!("the folder {}", root.display()).into(),
            verified: Verified::default(),
        });
        let backend = Self { shared };
        backend
            .blocking("prepare the storage", 0, Shared::prepare)
            .await?;
        Ok(backend)
    }

    /// Runs `work` where it may block, bounded in time by the bytes it moves.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        bytes: u64,
        work: impl FnOnce(&Shared) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let shared = self.shared.clone();
        let place = &self.shared.place;
        within(place, operation, deadline(TIMEOUT, bytes), async move {
            tokio::task::spawn_blocking(move || work(&shared))
                .await
                .unwrap_or_else(|e| Err(BlobError::unavailable(place, operation, e)))
        })
        .await
    }
}

impl Shared {
    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.to_string())
    }

    fn io(&self, operation: &'static str) -> impl Fn(io::Error) -> BlobError + '_ {
        move |error| BlobError::from_io(&self.place, operation, error)
    }

    fn prepare(&self) -> Result<(), BlobError> {
        let failed = self.io("prepare the storage");
        let work = self.root.join(WORK);
        fs::create_dir_all(&work).map_err(&failed)?;
        for entry in fs::read_dir(&work).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let age = entry
                .metadata()
                .and_then(|m| m.modified())
                .ok()
                .and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age > LEFTOVER) {
                fs::remove_file(entry.path()).map_err(&failed)?;
            }
        }
        Ok(())
    }

    /// Opens without following what is not a plain file: a pipe would block, a device would never end.
    fn open(&self, key: &Key) -> Result<File, BlobError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let missing = || BlobError::NotFound {
            key: key.clone(),
            place: self.place.clone(),
        };
        let file = match rustix::fs::open(self.path(key), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Err(missing()),
            Err(e) => return Err(self.io("open an object")(e.into())),
        };
        let meta = file.metadata().map_err(self.io("open an object"))?;
        if meta.is_file() {
            Ok(file)
        } else {
            Err(missing())
        }
    }

    fn put(&self, key: &Key, content: &Content, expect: Expect) -> Result<(), BlobError> {
        let failed = self.io("write an object");
        let target = self.path(key);
        let mut temporary = tempfile::Builder::new()
            .prefix("put-")
            .tempfile_in(self.root.join(WORK))
            .map_err(&failed)?;
        let mut reading = content.reading();
        loop {
            let chunk = reading.next(CHUNK).map_err(&failed)?;
            if chunk.is_empty() {
                break;
            }
            temporary.write_all(&chunk).map_err(&failed)?;
        }
        reading.finish(key, expect)?;
        // tempfile makes files for the owner only; a web server or a backup may have to read these.
        temporary
            .as_file()
            .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640))
            .map_err(&failed)?;
        temporary.as_file().sync_all().map_err(&failed)?;
        let folder = target.parent().unwrap_or(&self.root);
        self.make_folder(folder).map_err(&failed)?;
        temporary.persist(&target).map_err(|e| failed(e.error))?;
        sync_folder(folder).map_err(&failed)
    }

    /// Makes a folder and those above it, and flushes the entries of the new ones.
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.root);
        if above != folder && above.starts_with(&self.root) {
            self.make_folder(above)?;
        }
        match fs::create_dir(folder) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        sync_folder(above)
    }

    fn read_whole(&self, key: &Key, size: u64) -> Result<Bytes, BlobError> {
        let failed = self.io("read an object");
        let mut file = self.open(key)?;
        let there = file.metadata().map_err(&failed)?.len();
        check_size(&self.place, key, size, there)?;
        let mut buffer = vec![0; size as usize];
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => check_size(&self.place, key, size, filled as u64)?,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(buffer.into())
    }

    /// Opens and compares, by memory if `hash` is off.
    fn open_verified(
        &self,
        key: &Key,
        expect: Expect,
        hash: bool,
    ) -> Result<Option<VerifiedFile>, BlobError> {
        let failed = self.io("read an object");
        let mut file = self.open(key)?;
        let stamp = Stamp::of(&file).map_err(&failed)?;
        let there = file.metadata().map_err(&failed)?.len();
        check_size(&self.place, key, expect.size, there)?;
        if self.verified.knows(expect.sha256, stamp) {
            return Ok(Some(verified(file, stamp, key, &self.place)));
        }
        if !hash {
            return Ok(None);
        }
        let mut reading = openssl::sha::Sha256::new();
        let mut buffer = vec![0; CHUNK];
        let mut total = 0;
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    total += n as u64;
                    check_size(&self.place, key, expect.size, expect.size.max(total))?;
                    reading.update(&buffer[..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
        check_size(&self.place, key, expect.size, total)?;
        let got = crate::domain::Sha256(reading.finish());
        if got != expect.sha256 {
            return Err(BlobError::Corrupt {
                key: key.clone(),
                place: self.place.clone(),
                expected: expect.sha256,
                got,
            });
        }
        let open = verified(file, stamp, key, &self.place);
        open.check_unchanged()?;
        self.verified
            .remember(expect.sha256, stamp, SystemTime::now());
        Ok(Some(open))
    }

    fn delete(&self, key: &Key) -> Result<(), BlobError> {
        let failed = self.io("delete an object");
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => sync_folder(path.parent().unwrap_or(&self.root)).map_err(failed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed(e)),
        }
    }

    /// Writes, flushes and removes a small file: a full disk, a lost mount and a filesystem gone read-only all show.
    fn health(&self) -> Result<(), BlobError> {
        let failed = self.io("write a probe");
        let mut probe = tempfile::Builder::new()
            .prefix("probe-")
            .tempfile_in(self.root.join(WORK))
            .map_err(&failed)?;
        probe.write_all(b"probe").map_err(&failed)?;
        probe.as_file().sync_data().map_err(&failed)?;
        probe.close().map_err(failed)
    }

    /// Walks the area and hands over what is found; stops when nobody listens any more.
    fn walk(
        &self,
        area: Area,
        found: &tokio::sync::mpsc::Sender<Result<Listed, BlobError>>,
    ) -> Result<(), BlobError> {
        let failed = self.io("list objects");
        let mut folders = vec![match area {
            Area::Below(prefix) => self.root.join(prefix),
            Area::Foreign => self.root.clone(),
        }];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // The root itself must be there; what lies below it may come and go.
                Err(e) if e.kind() == io::ErrorKind::NotFound && folder != self.root => continue,
                Err(e) => return Err(failed(e)),
            };
            for entry in entries {
                let entry = entry.map_err(&failed)?;
                let path = entry.path();
                let Some(relative) = path.strip_prefix(&self.root).ok().and_then(Path::to_str)
                else {
                    tracing::warn!(path = %path.display(), "a file name that is not UTF-8 is passed over");
                    continue;
                };
                if area == Area::Foreign && FoundPath::is_ours(relative) {
                    continue;
                }
                // Links are not followed: they could leave the folder or run in circles.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(path);
                } else if meta.is_file()
                    && found
                        .blocking_send(Ok((relative.to_owned(), meta.len())))
                        .is_err()
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Flushes a folder's entries.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Backend for Filesystem {
    fn place(&self) -> &Arc<str> {
        &self.shared.place
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        content: &'a Content,
        expect: Expect,
    ) -> BoxFuture<'a, Result<(), BlobError>> {
        let (key, content) = (key.clone(), content.clone());
        Box::pin(self.blocking("write an object", expect.size, move |s| {
            s.put(&key, &content, expect)
        }))
    }

    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<u64>, BlobError>> {
        let key = key.clone();
        Box::pin(
            self.blocking("look for an object", 0, move |s| match s.open(&key) {
                Ok(file) => {
                    let meta = file.metadata().map_err(s.io("look for an object"))?;
                    Ok(Some(meta.len()))
                }
                Err(BlobError::NotFound { .. }) => Ok(None),
                Err(e) => Err(e),
            }),
        )
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Object, BlobError>> {
        let key = key.clone();
        Box::pin(async move {
            let (file, size) = self
                .blocking("open an object", 0, move |s| {
                    let file = s.open(&key)?;
                    let size = file.metadata().map_err(s.io("open an object"))?.len();
                    Ok((file, size))
                })
                .await?;
            let chunks: ByteStream =
                stream::try_unfold((self.clone(), file), |(backend, mut file)| async move {
                    let (file, chunk) = backend
                        .blocking("read an object", CHUNK as u64, move |s| {
                            let mut chunk = vec![0; CHUNK];
                            let n = loop {
                                match file.read(&mut chunk) {
                                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                                    other => break other.map_err(s.io("read an object"))?,
                                }
                            };
                            chunk.truncate(n);
                            Ok((file, Bytes::from(chunk)))
                        })
                        .await?;
                    Ok((!chunk.is_empty()).then_some((chunk, (backend, file))))
                })
                .boxed();
            Ok(Object { size, chunks })
        })
    }

    fn read_whole<'a>(
        &'a self,
        key: &'a Key,
        size: u64,
    ) -> BoxFuture<'a, Result<Bytes, BlobError>> {
        let key = key.clone();
        Box::pin(self.blocking("read an object", size, move |s| s.read_whole(&key, size)))
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), BlobError>> {
        let key = key.clone();
        Box::pin(self.blocking("delete an object", 0, move |s| s.delete(&key)))
    }

    fn list(&self, area: Area) -> BoxStream<'static, Result<Listed, BlobError>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(256);
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = shared.walk(area, &sender) {
                // Nobody listening any more is no failure.
                let _ = sender.blocking_send(Err(error));
            }
        });
        stream::unfold(receiver, |mut receiver| async move {
            let item = receiver.recv().await?;
            Some((item, receiver))
        })
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(self.blocking("write a probe", 0, Shared::health))
    }

    fn open_verified<'a>(
        &'a self,
        key: &'a Key,
        expect: Expect,
    ) -> BoxFuture<'a, Result<Option<VerifiedFile>, BlobError>> {
        Box::pin(async move {
            let known = key.clone();
            let open = self
                .blocking("open an object", 0, move |s| {
                    s.open_verified(&known, expect, false)
                })
                .await?;
            if open.is_some() {
                return Ok(open);
            }
            let _turn = self.shared.verified.turn(expect.sha256).await;
            let key = key.clone();
            self.blocking("read an object", expect.size, move |s| {
                s.open_verified(&key, expect, true)
            })
            .await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_settled_file_is_hashed_once_and_again_after_any_change() {
        let folder = tempfile::tempdir().unwrap();
        let store = Filesystem::open(folder.path()).await.unwrap();
        let shared = &store.shared;
        let expect = Expect::of(b"payload");
        let key = Key::Payload(expect.sha256);
        let content = Content::Bytes(Bytes::from_static(b"payload"));
        shared.put(&key, &content, expect).unwrap();
        let known = || shared.open_verified(&key, expect, false).unwrap().is_some();

        assert!(shared.open_verified(&key, expect, true).unwrap().is_some());
        assert!(!known(), "it is too young to be remembered");
        let stamp = Stamp::of(&shared.open(&key).unwrap()).unwrap();
        let later = SystemTime::now() + Duration::from_mins(1);
        shared.verified.remember(expect.sha256, stamp, later);
        assert!(known());

        // Another file of the same size and time in its place.
        let path = shared.path(&key);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(folder.path().join("other"), b"PAYLOAD").unwrap();
        fs::rename(folder.path().join("other"), &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(modified).unwrap();
        assert!(!known());
        let error = shared.open_verified(&key, expect, true).unwrap_err();
        assert!(matches!(error, BlobError::Corrupt { .. }), "{error}");
    }
}
