//! What people do about a rollout: approve, pause, resume, abort, block.

use super::record::{self, Story};
use super::tick::same;
use crate::db::audit::Actor;
use crate::db::listen::Change;
use crate::db::rollouts::{self as rows, RolloutRow};
use crate::db::{patches, tiers};
use crate::domain::EventKind;
use crate::rollout::{BlockKind, RolloutState};
use crate::service::failpoint::failpoint;
use crate::service::promotions::reason;
use crate::service::{Core, ServiceError, events, identity};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A second person lets it begin.
    Approve,
    /// Lets nobody in for a while.
    Pause,
    /// Goes on after a pause, a halt or an abort; what failed before a halt counts no more.
    Resume,
    /// Ends it and holds the patch: who runs it keeps it.
    Abort,
    /// Ends it and blocks the patch: who runs it may fall back.
    Block,
}

impl Act {
    const fn action(self) -> &'static str {
        match self {
            Self::Approve => "rollout.approve",
            Self::Pause => "rollout.pause",
            Self::Resume => "rollout.resume",
            Self::Abort => "rollout.abort",
            Self::Block => "rollout.block",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Abort => "aborted, and the patch is held",
            Self::Block => "ended, and the patch is blocked",
        }
    }

    /// What becomes of a rollout in this state; `None` if this cannot be done then.
    const fn leads_to(self, from: RolloutState) -> Option<RolloutState> {
        use RolloutState::{Aborted, AwaitingApproval, Done, Halted, Paused, Running};
        match (self, from) {
            (Self::Approve, AwaitingApproval) | (Self::Resume, Paused | Halted | Aborted) => {
                Some(Running)
            }
            (Self::Pause, Running) => Some(Paused),
            (Self::Abort | Self::Block, AwaitingApproval | Running | Paused | Halted | Done) => {
                Some(Aborted)
            }
            _ => None,
        }
    }
}

/// Acts on a rollout. Refused if it stands otherwise than the act needs, and if an approver is who asked for it.
pub async fn act(
    core: &Core,
    actor: &Actor,
    id: i64,
    act: Act,
    given: Option<&str>,
) -> Result<(), ServiceError> {
    let why = reason(given)?;
    let (seq, stopped) = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let order = tiers::order(&tx).await?;
        let row = rows::lock(&tx, id).await?;
        let row = row.ok_or_else(|| ServiceError::not_found("rollout", id))?;
        let tier = order.iter().find(|tier| tier.id == row.tier_id);
        let tier = tier.ok_or_else(|| ServiceError::not_found("rollout", id))?;
        let state = act.leads_to(row.state).ok_or_else(|| refused(act, &row))?;
        if act == Act::Approve && identity::may_be_one(&row.requested_by, &actor.name) {
            return Err(ServiceError::Forbidden(format!(
                "rollout {id} was asked for by {}; somebody else must approve it",
                row.requested_by
            )));
        }
        let mut text = format!("{} by {}", act.done(), actor.name);
        if !why.is_empty() {
            text = format!("{text}: {why}");
        }
        let mut to = same(&row);
        to.state = state;
        to.reason = &text;
        to.new_phase = matches!(act, Act::Approve | Act::Resume);
        // After a halt the gate begins anew: what failed before was looked at by a person.
        to.count_anew = match act {
            Act::Approve => true,
            Act::Resume => row.state != RolloutState::Paused,
            _ => false,
        };
        to.approved_by = (act == Act::Approve).then_some(actor.name.as_str());
        let story = Story {
            action: act.action(),
            text: &text,
            tier: &tier.name,
            actor,
        };
        let kind = match act {
            Act::Abort => Some(BlockKind::Hold),
            Act::Block => Some(BlockKind::Block),
            _ => None,
        };
        if let Some(kind) = kind {
            patches::lock(&tx, row.version).await?;
            let new =
                patches::block(&tx, row.patch_id, kind, &row.scope, &actor.name, &text).await?;
            if new {
                let told = events::Act {
                    version: row.version,
                    scope: &row.scope,
                    actor: &actor.name,
                    reason: &text,
                };
                let event = match kind {
                    BlockKind::Block => EventKind::PatchBlocked,
                    BlockKind::Hold => EventKind::PatchHeld,
                };
                events::stopped(&tx, event, told).await?;
            }
        }
        let seq = record::change(&tx, &row, &to, &story).await?;
        let seq = seq.ok_or_else(|| refused(act, &row))?;
        if kind.is_some() {
            crate::db::audit::notify(&tx, Change::Catalog, seq).await?;
        }
        failpoint("rollout-before-commit");
        tx.commit().await?;
        failpoint("rollout-after-commit");
        (seq, kind.is_some())
    };
    if stopped {
        core.changed(Some(Change::Catalog), seq).await;
    }
    core.changed(Some(Change::Rollouts), seq).await;
    Ok(())
}

fn refused(act: Act, row: &RolloutRow) -> ServiceError {
    let next = match row.state {
        RolloutState::AwaitingApproval => "it can be approved, aborted or blocked",
        RolloutState::Running => "it can be paused, aborted or blocked",
        RolloutState::Paused | RolloutState::Halted => "it can be resumed, aborted or blocked",
        RolloutState::Done => "it can be aborted or blocked",
        RolloutState::Aborted => {
            "it can be resumed; the hold or block of its patch is lifted on its own"
        }
    };
    ServiceError::Conflict(format!(
        "rollout {} of {} is {} and cannot be {} now; {next}",
        row.id,
        row.version,
        row.state.as_str(),
        match act {
            Act::Approve => "approved",
            Act::Pause => "paused",
            Act::Resume => "resumed",
            Act::Abort => "aborted",
            Act::Block => "blocked",
        }
    ))
}
