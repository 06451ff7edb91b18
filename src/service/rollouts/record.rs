//! Writing what becomes of a rollout: the row, its event and its audit entry, in one transaction.

use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::rollouts::{self as rows, Changed, RolloutRow};
use crate::db::{DbError, Tx};
use crate::domain::TierName;
use crate::rollout::cohort::share_of;
use serde_json::json;

/// A change of a rollout with what is said of it.
#[derive(Debug)]
pub(super) struct Story<'a> {
    /// `noun.verb` for the audit log; the verb is the event's kind.
    pub(super) action: &'static str,
    /// What happened, for people.
    pub(super) text: &'a str,
    /// The rollout's tier.
    pub(super) tier: &'a TierName,
    /// Who did it.
    pub(super) actor: &'a Actor,
}

/// Changes a rollout; the change's number, or `None` if it does not stand any more as it was read.
pub(super) async fn change(
    tx: &Tx<'_>,
    was: &RolloutRow,
    to: &Changed<'_>,
    story: &Story<'_>,
) -> Result<Option<i64>, DbError> {
    if !rows::change(tx, was, to).await? {
        return Ok(None);
    }
    tell(tx, was, to, story).await.map(Some)
}

/// Tells of a change that is written: in the timeline and in the audit log.
pub(super) async fn tell(
    tx: &Tx<'_>,
    row: &RolloutRow,
    to: &Changed<'_>,
    story: &Story<'_>,
) -> Result<i64, DbError> {
    let kind = story.action.rsplit('.').next().unwrap_or(story.action);
    rows::tell(tx, row.id, kind, &story.actor.name, story.text).await?;
    let entry = Entry {
        actor: story.actor,
        action: story.action,
        target: &row.version.to_string(),
        details: json!({
            "rollout": row.id, "tier": story.tier, "scope": row.scope.to_string(), "state": to.state.as_str(),
            "phase": to.phase + 1, "share": share_of(to.threshold), "text": story.text,
        }),
    };
    audit::append(tx, entry, Change::Rollouts).await
}
