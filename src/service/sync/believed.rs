//! What is known of an upstream, and the first contact.

use super::error::RunError;
use super::run::Work;
use crate::db::audit::{self, Entry};
use crate::db::listen::Change;
use crate::db::sync::{self as rows, Upstream as Row};
use crate::index::{Known, State};
use crate::service::ServiceError;
use crate::upstream::Listing;
use serde_json::json;

/// What was believed before, as a driver is asked with.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) row: Row,
    pub(super) index: Option<(Known, State)>,
}

/// Reads what is known.
pub(super) async fn load(work: &Work<'_>) -> Result<Before, RunError> {
    let conn = work.core.db.conn().await?;
    let row = rows::upstream(&conn, &work.name).await?.unwrap_or_default();
    let index = match &row.known {
        None => None,
        Some(known) => {
            let bad = |why: String| {
                ServiceError::Conflict(format!(
                    "what is known of {} cannot be read: {why}; have it forgotten with `livepatch-admin sync reset`",
                    work.name
                ))
            };
            let known: Known = serde_json::from_str(known).map_err(|e| bad(e.to_string()))?;
            let state = State::parse(&row.state).map_err(|e| bad(e.to_string()))?;
            Some((known, state))
        }
    };
    Ok(Before { row, index })
}

/// What is believed after this listing, as text, and the state's text.
pub(super) fn known(listing: &Listing) -> Result<Option<(String, String)>, RunError> {
    let Some((head, state)) = &listing.index else {
        return Ok(None);
    };
    let known = Known {
        deployment: head.deployment,
        tier: head.tier.clone(),
        version: head.version,
        digest: head.digest,
        issued_at: head.issued_at,
        keys: head.keys.clone(),
    };
    let text = serde_json::to_string(&known)
        .map_err(|e| ServiceError::Internal(format!("what is believed cannot be written: {e}")))?;
    Ok(Some((text, state.text())))
}

/// At the first contact: keeps the deployment and its keys, so that from now on nobody else is believed.
pub(super) async fn pin(work: &Work<'_>, listing: &Listing) -> Result<(), RunError> {
    let (Some((head, _)), Some((known, state))) = (&listing.index, known(listing)?) else {
        return Ok(());
    };
    let mut conn = work.core.db.conn().await?;
    let tx = conn.begin().await?;
    work.fence.check(&tx).await?;
    if rows::pin(&tx, &work.name, &known, &state).await? {
        let entry = Entry {
            actor: &work.run.actor,
            action: "sync.first-contact",
            target: &work.name,
            details: json!({
                "deployment": head.deployment,
                "tier": head.tier,
                "version": head.version,
                "keys": head.keys,
            }),
        };
        audit::append(&tx, entry, Change::Nothing).await?;
    }
    tx.commit().await?;
    Ok(())
}
