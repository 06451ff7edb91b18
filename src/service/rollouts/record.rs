//! Writing what becomes of a rollout: the row, its event and its audit entry, in one transaction.

use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::rollouts::{self as rows, Changed, RolloutRow};
use crate::db::{DbError, Tx, outbox};
use crate::domain::{EventKind, TierName};
use crate::rollout::RolloutState;
use crate::rollout::cohort::share_of;
use crate::wire::event::RolloutChanged;
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
    if let Some(event) = event(kind, to.state) {
        let data = RolloutChanged {
            rollout: row.id,
            version: row.version,
            notice: row.version.notice(),
            tier: story.tier.clone(),
            scope: row.scope.clone().into(),
            state: to.state.as_str().to_owned(),
            phase: to.phase as u32 + 1,
            share: share_of(to.threshold).to_string(),
            actor: story.actor.name.clone(),
            text: story.text.to_owned(),
        };
        outbox::emit(tx, event, &data).await?;
    }
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

/// What webhooks are told of it; nothing of what happens all the time or is told of otherwise.
fn event(kind: &str, state: RolloutState) -> Option<EventKind> {
    Some(match kind {
        "begin" if state == RolloutState::AwaitingApproval => EventKind::RolloutApprovalNeeded,
        "begin" | "approve" => EventKind::RolloutStarted,
        "advance" => EventKind::RolloutAdvanced,
        "halt" => EventKind::RolloutHalted,
        "resume" => EventKind::RolloutResumed,
        "complete" => EventKind::RolloutCompleted,
        "abort" | "block" => EventKind::RolloutAborted,
        _ => return None,
    })
}
