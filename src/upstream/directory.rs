//! A folder of tarballs: an air-gap drop, or the tarballs that Canonical's downloader keeps.
//!
//! It has no index, so what a file is, is found out when it is read. Files that are not named as payloads are reported and
//! left alone, hidden ones and folders are passed over.

use super::{Body, Listing, Offered, Question, Upstream, UpstreamError};
use crate::bundle::BundleName;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Names that are no payload's and are reported; further ones are only left alone.
const REPORTED: usize = 100;

/// The driver `directory`.
#[derive(Debug)]
pub struct Directory {
    folder: PathBuf,
}

impl Directory {
    /// Of this folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    fn local(&self, error: &io::Error) -> UpstreamError {
        UpstreamError::Local(format!(
            "{} cannot be read: {error}; see patch-sync.directory",
            self.folder.display()
        ))
    }
}

impl Upstream for Directory {
    fn name(&self) -> String {
        format!("directory {}", self.folder.display())
    }

    fn list<'a>(&'a self, _: Question<'a>) -> BoxFuture<'a, Result<Listing, UpstreamError>> {
        Box::pin(async move {
            let folder = self.folder.clone();
            tokio::task::spawn_blocking(move || list(&folder))
                .await
                .map_err(io::Error::other)
                .and_then(|listing| listing)
                .map_err(|error| self.local(&error))
        })
    }

    fn open<'a>(&'a self, payload: &'a Offered) -> BoxFuture<'a, Result<Body, UpstreamError>> {
        Box::pin(async move {
            let path = self.folder.join(payload.name.to_string());
            let file = tokio::task::spawn_blocking(move || File::open(path))
                .await
                .map_err(io::Error::other)
                .and_then(|file| file);
            match file {
                Ok(file) => Ok(body(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(UpstreamError::Unreachable(format!(
                        "{} was there when {} was listed and is not there any more",
                        payload.name,
                        self.folder.display()
                    )))
                }
                Err(error) => Err(self.local(&error)),
            }
        })
    }
}

fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // Links are followed: such folders are often put together from them.
        let Ok(metadata) = std::fs::metadata(entry.path()) else {
            continue;
        };
        let name = entry.file_name().to_string_lossy().into_owned();
        if !metadata.is_file() || name.starts_with('.') {
            continue;
        }
        match name.parse::<BundleName>() {
            Ok(name) => listing.payloads.push(Offered {
                name,
                sha256: None,
                size: Some(metadata.len()),
            }),
            Err(error) if listing.unreadable.len() < REPORTED => {
                listing.unreadable.push((name, error.to_string()));
            }
            Err(_) => {}
        }
    }
    listing.payloads.sort_by(|a, b| a.name.cmp(&b.name));
    listing.unreadable.sort();
    Ok(listing)
}

fn body(file: File) -> Body {
    let pieces = stream::try_unfold(file, |file| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut file = file;
            let mut piece = BytesMut::zeroed(PIECE);
            let n = file.read(&mut piece)?;
            piece.truncate(n);
            io::Result::Ok((piece.freeze(), file))
        });
        let (piece, file): (Bytes, File) = read.await.map_err(io::Error::other)??;
        Ok((!piece.is_empty()).then_some((piece, file)))
    });
    Box::pin(pieces)
}
