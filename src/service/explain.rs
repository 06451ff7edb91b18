//! Why a machine is offered what it is: the same decision as at a check-in, made now from what the machine last
//! reported, with its reasons.

use super::{Core, ServiceError, fleet};
use crate::db::fleet::MachineRow;
use crate::domain::MachineId;
use crate::rollout::cohort::{place, share_of};
use crate::rollout::{Decision, Facts, Outcome, ReasonCode, Snapshot, TokenError, decide};
use crate::wire::Reason;
use crate::wire::admin::{ExplainReason, Explanation, OfferedPayload};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::borrow::Cow;

/// The reasons of a decision in order: versions passed over, highest first, then the reason for the outcome.
pub fn reasons(decision: &Decision<'_>) -> Vec<Reason> {
    let skips = decision.skips().map(|skip| Reason {
        code: Cow::Borrowed(skip.code.as_str()),
        text: Cow::Owned(skip.text(decision.tier)),
        version: Some(skip.version),
    });
    let version = match decision.code {
        ReasonCode::Offered => decision.payload.map(|payload| payload.version),
        ReasonCode::UpToDate | ReasonCode::KeepsHigher | ReasonCode::WithdrawnNoFallback => {
            decision.applied
        }
        _ => None,
    };
    let last = Reason {
        code: Cow::Borrowed(decision.code.as_str()),
        text: Cow::Owned(decision.text()),
        version,
    };
    skips.chain([last]).collect()
}

/// Why the machine would not be answered at all.
fn refused(snapshot: &Snapshot, row: &MachineRow) -> Option<TokenError> {
    let token = row.auth_token_id.and_then(|id| snapshot.tokens.get(id));
    if token.is_some_and(|token| token.revoked) {
        return Some(TokenError::Revoked);
    }
    let mine = snapshot.overrides.get(&row.id)?;
    let before = mine.revoked_before?;
    (row.registered_at.as_microsecond() < before).then_some(TokenError::MachineRevoked)
}

/// A reason's text; of a rollout that has not come to this machine with its place in the line.
fn in_line(snapshot: &Snapshot, tier_id: i32, machine: MachineId, reason: &Reason) -> String {
    let version = reason
        .version
        .filter(|_| reason.code == ReasonCode::NotYet.as_str());
    let let_in = version.and_then(|version| {
        let rollouts = snapshot.rollouts.of(tier_id, version).iter();
        let threshold = rollouts.map(|rollout| rollout.threshold).max()?;
        Some((share_of(place(version, &machine)), share_of(threshold)))
    });
    match let_in {
        Some((place, let_in)) => format!(
            "{}: it stands at {place} of the line, and {let_in} are let in",
            reason.text
        ),
        None => reason.text.to_string(),
    }
}

/// Decides for a machine as if it asked now with what it last reported.
pub async fn explain(core: &Core, machine: MachineId) -> Result<Explanation, ServiceError> {
    let row = fleet::row(core, machine).await?;
    let snapshot = core.snapshots.get_full();
    // As a check-in finds the tier: what was decided about the machine, else its auth token's tier.
    let moved = snapshot
        .overrides
        .get(&machine)
        .and_then(|mine| mine.tier_id);
    let tier_id = moved
        .or_else(|| {
            let token = row.auth_token_id.and_then(|id| snapshot.tokens.get(id))?;
            Some(token.tier_id)
        })
        .unwrap_or(row.tier_id);
    let gone = || {
        ServiceError::Conflict(
            "the machine's tier is being changed at this moment; ask again".to_owned(),
        )
    };
    let now = Timestamp::now();
    let facts = Facts {
        tier: snapshot.catalog.tier_index(tier_id).ok_or_else(gone)?,
        kernel: row.kernel.as_deref().unwrap_or_default(),
        architecture: row.architecture,
        applied: row.applied,
        build_date: row.build_date,
        machine,
        now,
        today: now.to_zoned(TimeZone::UTC).date(),
    };
    let decision = decide(&snapshot.catalog, &snapshot.rollouts, &facts).ok_or_else(gone)?;
    Ok(Explanation {
        machine_id: machine,
        tier: decision.tier.clone(),
        moved: moved.is_some(),
        outcome: decision.outcome.as_str().to_owned(),
        offered: decision
            .payload
            .filter(|_| decision.outcome == Outcome::Offer)
            .map(|payload| OfferedPayload {
                version: payload.version,
                filename: payload.filename.to_string(),
                sha256: payload.sha256,
                size: payload.size,
            }),
        supported: decision.support.verdict,
        upgrade_required_date: decision.support.upgrade_required,
        reasons: reasons(&decision)
            .into_iter()
            .map(|reason| ExplainReason {
                text: in_line(&snapshot, tier_id, machine, &reason),
                code: reason.code.into_owned(),
                version: reason.version,
            })
            .collect(),
        refused: refused(&snapshot, &row).map(|error| error.to_string()),
        auth_token: row.auth_token,
        kernel: row.kernel,
        architecture: row.architecture,
        state: row.state,
        applied: row.applied,
        build_date: row.build_date,
        last_check: row.last_check,
    })
}
