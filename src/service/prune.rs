//! The job behind `storage prune`: removes payloads that no filter of intake admits.
//!
//! Kept is whatever is for a kernel that any machine has ever reported, so that no machine loses what it runs or could be
//! offered. A payload is hidden first, in one transaction with the audit row; then its object and its row go. If the server ends
//! between the two, the next pruning finds what is hidden and goes on.

use super::jobs::{Report, item};
use super::sync;
use super::{Core, ServiceError};
use crate::bundle::BundleName;
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::{staged, sync as rows};
use crate::service::failpoint::failpoint;
use crate::wire::admin::{JobItemResult, PruneRequest};
use serde_json::json;

/// Payloads that are hidden in one transaction.
const BATCH: usize = 200;

/// Removes, or only says what it would remove.
pub(super) async fn prune(
    core: &Core,
    actor: &Actor,
    request: &PruneRequest,
    report: &Report,
) -> Result<(), ServiceError> {
    let (filter, kernels, stored) = {
        let conn = core.db.conn().await?;
        (
            sync::configured_filter(core, &conn).await?,
            rows::our_kernels(&conn, None).await?,
            staged::stored(&conn).await?,
        )
    };
    if !request.dry_run {
        finish(core).await?;
    }
    let mut found: Vec<(String, i64, u64)> = Vec::new();
    let mut kept: Vec<(String, u64)> = Vec::new();
    for (filename, row) in stored {
        let Ok(name) = filename.parse::<BundleName>() else {
            continue;
        };
        if row.staged.is_some() || filter.admits(&name).is_ok() {
            continue;
        }
        if kernels.contains(&name.kernel) {
            kept.push((filename, row.size));
        } else {
            found.push((filename, row.id, row.size));
        }
    }
    found.sort_unstable();
    report.total((found.len() + kept.len()) as u64);
    for (filename, _) in kept {
        let mut item = item(filename, JobItemResult::Kept);
        item.reason = Some("a machine has reported its kernel".to_owned());
        report.item(core, 0, item, false).await;
    }
    for batch in found.chunks(BATCH) {
        if !request.dry_run {
            hide(core, actor, batch).await?;
            failpoint("prune-after-hiding");
            for (_, id, _) in batch {
                remove(core, *id).await?;
            }
        }
        for (filename, _, size) in batch {
            let mut item = item(filename, JobItemResult::Pruned);
            item.reason = request
                .dry_run
                .then(|| "dry run: it would be removed".to_owned());
            report.item(core, *size, item, true).await;
        }
    }
    Ok(())
}

async fn hide(
    core: &Core,
    actor: &Actor,
    batch: &[(String, i64, u64)],
) -> Result<(), ServiceError> {
    let ids: Vec<i64> = batch.iter().map(|(_, id, _)| *id).collect();
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let mut names = staged::hide(&tx, &ids).await?;
        names.sort_unstable();
        let entry = Entry {
            actor,
            action: "payload.prune",
            target: "payloads",
            details: json!({ "payloads": names }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        tx.commit().await?;
        seq
    };
    core.changed(Some(Change::Catalog), seq).await;
    Ok(())
}

async fn remove(core: &Core, id: i64) -> Result<(), ServiceError> {
    if let Some(sha256) = sync::discard(core, id).await? {
        core.cache.invalidate(sha256).await;
    }
    Ok(())
}

/// Removes what an earlier pruning hid and did not get to.
async fn finish(core: &Core) -> Result<(), ServiceError> {
    loop {
        let left = staged::pruned(&core.db.conn().await?, BATCH as i64).await?;
        if left.is_empty() {
            return Ok(());
        }
        for id in left {
            remove(core, id).await?;
        }
    }
}
