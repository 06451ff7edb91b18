//! Taking in an archive that was verified: through the engine of every sync, staged, and visible at once or not at all.

use super::import::{Opened, everything};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::service::sync::{self, Cause, Ended, Fence, Run};
use crate::service::{Core, ServiceError};
use serde_json::json;

/// How to take it in.
#[derive(Debug, Clone)]
pub struct TakeOptions {
    /// Takes tiers and promotions over as well.
    pub tiers: bool,
    /// A person has seen what it changes and agrees.
    pub confirmed: bool,
    /// Why an old archive is taken, where that was said.
    pub accept_old: Option<String>,
}

/// Takes an archive in. If it is broken off, or the process dies, nothing of it is visible, and the next import goes on.
pub async fn take(
    core: &Core,
    actor: &Actor,
    opened: &Opened,
    options: &TakeOptions,
) -> Result<Ended, ServiceError> {
    if let Some(reason) = &options.accept_old {
        let head = opened.archive.head();
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let entry = Entry {
            actor,
            action: "archive.accept-old",
            target: &head.version.to_string(),
            details: json!({ "reason": reason, "deployment": head.deployment, "expires-at": head.expires_at }),
        };
        audit::append(&tx, entry, Change::Nothing).await?;
        tx.commit().await?;
    }
    let run = Run {
        id: None,
        cause: Cause::Import,
        actor: actor.clone(),
        filter: everything(),
        max_shrink: core.config.patch_sync.max_shrink,
        mirror: options.tiers,
        confirmed: options.confirmed,
        dry_run: false,
    };
    sync::run(core, &opened.archive, &run, Fence::of_command()).await
}
