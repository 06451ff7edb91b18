//! Rollout control: policies of tiers, the leader's pass that begins, advances and halts rollouts, and what people do about them.
//!
//! What is decided is decided by the engine (`rollout::advance`); here it is read and written. A rollout is changed only if it
//! still stands as it was read, in one transaction with its event and its audit row.

pub mod act;
mod health;
mod labels;
pub mod policies;
mod record;
pub mod show;
mod tick;

use super::Core;
use crate::db::{DbError, Run};
use crate::db::{labels as labels_rows, rollouts as rows};
use crate::domain::LabelKey;
use crate::domain::policy::{Policy, Span};
use crate::rollout::Rollouts;
use crate::wire::admin::PolicySpec;
use std::sync::Arc;

pub use health::Looks;
pub use labels::Memory;
pub use tick::{Pass, pass};

/// How often machines are told to check in.
pub(super) fn interval(core: &Core) -> Span {
    Span::seconds(core.config.check_in.interval.as_secs())
}

/// Reads a policy as it is stored.
pub(super) fn stored(tier_id: i32, spec: &str) -> Result<Policy, DbError> {
    let broken = |why: String| DbError::Row(format!("the policy of tier {tier_id}: {why}"));
    let spec: PolicySpec = serde_json::from_str(spec).map_err(|e| broken(e.to_string()))?;
    spec.read().map_err(|problems| {
        let first = problems.first();
        broken(first.map_or_else(String::new, |p| format!("{}: {}", p.at, p.why)))
    })
}

/// Policies by tier.
pub(super) async fn policies_of(run: &impl Run) -> Result<Vec<(i32, Arc<Policy>)>, DbError> {
    let rows = rows::policies(run).await?;
    rows.iter()
        .map(|row| Ok((row.tier_id, Arc::new(stored(row.tier_id, &row.spec)?))))
        .collect()
}

/// Reads what requests are answered from.
pub(super) async fn load(run: &impl Run) -> Result<Rollouts, DbError> {
    let policies = policies_of(run).await?;
    let mut limits = rows::limits(run).await?;
    let all = rows::list(run, None).await?;
    let rollouts = all
        .iter()
        .map(|row| row.engine(limits.remove(&row.id).unwrap_or_default()));
    let loaded = Rollouts::new(policies, rollouts);
    let mut values = Vec::new();
    for label in loaded.labels_asked() {
        let key: LabelKey = label.parse()?;
        for (machine, value) in labels_rows::values_of(run, &key).await? {
            values.push((label.to_owned(), machine, value.to_string()));
        }
    }
    Ok(loaded.with_labels(values))
}
