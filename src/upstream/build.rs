//! Makes the upstream that the configuration names.

use super::directory::Directory;
use super::peer::Peer;
use super::{Upstream, UpstreamError};
use crate::config::{PatchSync, SyncDriver};
use crate::domain::PublicKey;
use std::sync::Arc;

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
        SyncDriver::Downloader => Err(UpstreamError::Local(format!(
            "patch-sync.driver {} is not part of this build",
            config.driver.as_str()
        ))),
    }
}
