//! Makes the upstream that the configuration names.

use super::directory::Directory;
use super::downloader::Downloader;
use super::peer::Peer;
use super::{Upstream, UpstreamError};
use crate::config::{PatchSync, SyncDriver};
use crate::domain::PublicKey;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The upstream of `patch-sync.*`. `trusted` are the keys of others that are believed; only the driver `peer` uses them.
pub fn build(
    config: &PatchSync,
    trusted: Vec<PublicKey>,
) -> Result<Arc<dyn Upstream>, UpstreamError> {
    match config.driver {
        SyncDriver::Directory => {
            let folder = config.directory.as_deref().ok_or_else(|| {
                UpstreamError::Local("patch-sync.directory names no folder".to_owned())
            })?;
            Ok(Arc::new(Directory::new(folder)))
        }
        SyncDriver::Peer => Ok(Arc::new(Peer::new(config, trusted)?)),
        SyncDriver::Downloader => Ok(Arc::new(Downloader::new(
            config,
            config.token.clone(),
            // A run that is stopped is dropped, and the command with it.
            CancellationToken::new(),
        )?)),
    }
}
