//! The table of supported kernels: shown, and replaced by one that a person gives.

use super::{Core, ServiceError, events, text};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::{catalog, staged};
use crate::rollout::support::{SupportRow, SupportTable};
use crate::wire::admin::{KernelsImport, KernelsOutcome, SupportedKernel, SupportedKernelChange};
use serde_json::json;

impl From<&SupportRow> for SupportedKernel {
    fn from(row: &SupportRow) -> Self {
        Self {
            release: row.release.clone(),
            codename: row.codename.clone(),
            architecture: row.architecture,
            series: row.series.clone(),
            kind: row.kind.clone(),
            flavours: row.flavours.clone(),
            months: row.months,
            end_of_life: row.end_of_life,
        }
    }
}

/// The table, the newest release first.
pub async fn list(core: &Core) -> Result<Vec<SupportedKernel>, ServiceError> {
    let rows = catalog::support(&core.db.conn().await?).await?;
    Ok(rows.iter().map(SupportedKernel::from).collect())
}

/// Puts another table in the place of this one, or says what that would change. One that is the same leaves no trace.
pub async fn import(
    core: &Core,
    actor: &Actor,
    request: &KernelsImport,
) -> Result<KernelsOutcome, ServiceError> {
    let reason = text::reason(request.reason.as_deref())?;
    let new = SupportTable::import(&request.csv)?;
    let (outcome, seq) = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        catalog::lock_support(&tx).await?;
        let old = SupportTable::new(catalog::support(&tx).await?);
        let difference = old.difference(&new);
        let lines = |rows: &[&SupportRow]| rows.iter().map(|row| (*row).into()).collect();
        let outcome = KernelsOutcome {
            dry_run: request.dry_run,
            added: lines(&difference.added),
            removed: lines(&difference.removed),
            changed: difference
                .changed
                .iter()
                .map(|(before, after)| SupportedKernelChange {
                    before: (*before).into(),
                    after: (*after).into(),
                })
                .collect(),
            unchanged: difference.same,
        };
        if request.dry_run || difference.is_none() {
            return Ok(outcome);
        }
        staged::replace_support(&tx, new.rows()).await?;
        events::coverage(&tx, &difference, &actor.name, reason).await?;
        let entry = Entry {
            actor,
            action: "kernels.import",
            target: "kernels",
            details: json!({
                "added": outcome.added,
                "removed": outcome.removed,
                "changed": outcome.changed,
                "reason": reason,
            }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        tx.commit().await?;
        (outcome, seq)
    };
    core.changed(Some(Change::Catalog), seq).await;
    Ok(outcome)
}
