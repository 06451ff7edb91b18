//! Whom a patch has reached: after it was stopped, who has it, who was offered it, and who has not been heard of.

use super::{Core, ServiceError, census, fleet, paging};
use crate::db::reach::{self as rows, Reached, Standing};
use crate::domain::{PatchVersion, Selector};
use crate::wire::admin::{Reach, ReachQuery, ReachStanding, ReachTotal, ReachedMachine};
use jiff::Timestamp;
use uuid::Uuid;

impl From<Standing> for ReachStanding {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Has => Self::Has,
            Standing::Failed => Self::Failed,
            Standing::Left => Self::Left,
        }
    }
}

fn wire(row: Reached, stopped_at: Option<Timestamp>) -> ReachedMachine {
    ReachedMachine {
        machine_id: row.id,
        tier: row.tier,
        kernel: row.kernel,
        architecture: row.architecture,
        standing: row.standing.into(),
        state: row.state,
        runs: row.runs,
        offered_at: row.offered_at,
        last_check: row.last_check,
        polled_since: stopped_at.map(|at| row.last_check.is_some_and(|last| last > at)),
        silent: row.silent,
    }
}

/// Who runs the patch, and who was offered it last: in numbers, and one page of them.
pub async fn of_patch(
    core: &Core,
    version: PatchVersion,
    query: &ReachQuery,
) -> Result<Reach, ServiceError> {
    let after = paging::after("reach", query.cursor.as_deref())?.unwrap_or(Uuid::nil());
    let (silence, limit) = (census::silence(core), paging::limit(query.limit));
    let mut conn = core.db.conn().await?;
    let tx = conn.begin_read().await?;
    let all = Selector::default();
    let selector = query.selector.as_ref().unwrap_or(&all);
    let filter = fleet::selected(core, &tx, selector).await?;
    let patch = rows::patch(&tx, version).await?;
    let patch = patch.ok_or_else(|| ServiceError::not_found("patch", version))?;
    let stopped_at = rows::stopped_at(&tx, patch).await?;
    let counted = rows::count(&tx, &filter, version, stopped_at, silence).await?;
    let machines = rows::page(&tx, &filter, version, after, silence, limit as i64 + 1).await?;
    tx.commit().await?;
    let place = |row: &Reached| paging::encode("reach", &[&Uuid::from_bytes(row.id.0)]);
    let page = paging::page(machines, limit, place, |row| wire(row, stopped_at));
    let totals = [Standing::Has, Standing::Failed, Standing::Left].map(|standing| {
        let found = counted.iter().find(|count| count.standing == standing);
        let polled = found.map_or(0, |count| count.polled);
        ReachTotal {
            standing: standing.into(),
            machines: found.map_or(0, |count| count.machines),
            polled_since: stopped_at.map(|_| polled),
            silent: found.map_or(0, |count| count.silent),
        }
    });
    Ok(Reach {
        version,
        stopped_at,
        totals: totals.into(),
        items: page.items,
        next_cursor: page.next_cursor,
    })
}
