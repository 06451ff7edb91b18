//! Labels of machines as people set them: of one machine, and of all that a selector means. Nothing that a snapshot
//! holds speaks of them, so a change reaches nobody but the database.

use super::fleet::{self, missing, show};
use super::{Core, ServiceError, text};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::{fleet as machines, labels as rows, selected};
use crate::domain::{LabelChanges, Labels, MachineId, Selector};
use crate::wire::admin::{LabelOutcome, Machine, MachineLabel, SelectedLabel};
use serde_json::json;

fn too_many(machine: impl std::fmt::Display) -> ServiceError {
    ServiceError::Conflict(format!(
        "machine {machine} would have more than {} labels; nothing was changed. Take some away first, or in the same change",
        Labels::MAX
    ))
}

/// Refuses a selector that means all machines: what is done to all is hardly ever meant.
pub(super) fn narrow(selector: &Selector) -> Result<(), ServiceError> {
    if selector.is_all() {
        return Err(ServiceError::Invalid(
            "the selector is empty and would mean every machine; give at least one term, e.g. rack=r1".to_owned(),
        ));
    }
    Ok(())
}

/// Changes the labels of one machine.
pub async fn change(
    core: &Core,
    actor: &Actor,
    machine: MachineId,
    request: MachineLabel,
) -> Result<Machine, ServiceError> {
    let reason = text::reason(request.reason.as_deref())?;
    let changes = LabelChanges::new(request.set, request.remove)?;
    {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        rows::lock(&tx).await?;
        if !machines::lock(&tx, machine).await? {
            return Err(missing(machine));
        }
        let changed = rows::change(&tx, machine, &changes).await?;
        if rows::count(&tx, machine).await? > Labels::MAX {
            return Err(too_many(machine));
        }
        if changed > 0 {
            let entry = Entry {
                actor,
                action: "machine.label",
                target: &machine.to_string(),
                details: json!({ "set": changes.set(), "remove": changes.remove(), "reason": reason }),
            };
            audit::append(&tx, entry, Change::Nothing).await?;
        }
        tx.commit().await?;
    }
    show(core, machine).await
}

/// Changes the labels of all machines that a selector means, or says what that would change.
pub async fn change_selected(
    core: &Core,
    actor: &Actor,
    request: SelectedLabel,
) -> Result<LabelOutcome, ServiceError> {
    let reason = text::reason(request.reason.as_deref())?;
    let changes = LabelChanges::new(request.set, request.remove)?;
    narrow(&request.selector)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !request.dry_run {
        rows::lock(&tx).await?;
    }
    let filter = fleet::selected(core, &tx, &request.selector).await?;
    let effect = selected::label_effect(&tx, &filter, &changes).await?;
    if effect.changed > 0 && !request.dry_run {
        if let Some(machine) = selected::change_labels(&tx, &filter, &changes).await? {
            return Err(too_many(machine));
        }
        let entry = Entry {
            actor,
            action: "machine.label",
            target: &request.selector.to_string(),
            details: json!({
                "set": changes.set(), "remove": changes.remove(), "machines": effect.machines,
                "changed": effect.changed, "reason": reason,
            }),
        };
        audit::append(&tx, entry, Change::Nothing).await?;
        tx.commit().await?;
    }
    Ok(LabelOutcome {
        selector: request.selector,
        dry_run: request.dry_run,
        machines: effect.machines,
        changed: effect.changed,
    })
}
