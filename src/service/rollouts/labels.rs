//! Caps per label value, looked at in the leader's pass: how far a rollout may go among the machines of each value.

use crate::db::labels as label_rows;
use crate::db::rollout_labels as rows;
use crate::db::rollouts::RolloutRow;
use crate::domain::policy::Policy;
use crate::domain::selector::{Selector, Test};
use crate::rollout::cohort::place;
use crate::rollout::limits::{InLine, limit};
use crate::rollout::{Catalog, LabelValue, RolloutState, labels_of};
use crate::service::census::silence;
use crate::service::{Core, ServiceError};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What the pass before saw of the labels, by rollout, so that replicas read them again when they change.
pub type Memory = HashMap<i64, u64>;

/// What is to be done about the label values of a rollout.
#[derive(Debug, Default)]
pub(super) struct Raised {
    /// Thresholds that rise.
    pub(super) limits: Vec<(LabelValue, u64)>,
    /// Machines have other labels than at the pass before.
    pub(super) changed: bool,
    /// Machines with such a label have not had their turn.
    pub(super) waiting: bool,
}

/// Looks at a rollout that runs under caps per label value.
pub(super) async fn look(
    core: &Core,
    row: &RolloutRow,
    policy: &Policy,
    catalog: &Catalog,
    memory: &mut Memory,
) -> Result<Raised, ServiceError> {
    let mut raised = Raised::default();
    if row.state != RolloutState::Running || labels_of(policy).next().is_none() {
        return Ok(raised);
    }
    let silence = silence(core);

    let snapshot = core.snapshots.get_full();
    let known = snapshot
        .rollouts
        .of(row.tier_id, row.version)
        .iter()
        .find(|rollout| rollout.id == row.id);
    let mut seen = DefaultHasher::new();
    for cap in &policy.label_caps {
        let found = {
            let conn = core.db.conn().await?;
            rows::in_line(&conn, &cap.label, row.tier_id, row.version, silence).await?
        };
        let mut values: BTreeMap<String, Vec<InLine>> = BTreeMap::new();
        for machine in found {
            let payload = machine.architecture.and_then(|arch| {
                let payloads = catalog.for_kernel(&machine.kernel, arch);
                payloads.iter().find(|p| p.version == row.version)
            });
            let meant = payload.is_some_and(|p| row.scope.covers(&p.kernel, p.architecture));
            if !meant {
                continue;
            }
            (machine.machine, &machine.value).hash(&mut seen);
            values.entry(machine.value).or_default().push(InLine {
                place: place(row.version, &machine.machine),
                offered: machine.offered,
                reported: machine.reported,
            });
        }
        for (value, mut machines) in values {
            let key = (cap.label.clone(), value);
            let before = known.and_then(|rollout| rollout.limits.get(&key).copied());
            let before = before.unwrap_or_default();
            raised.waiting |= machines.iter().any(|machine| !machine.reported);
            let now = limit(&mut machines, cap.machines, row.threshold, before);
            if now > before {
                raised.limits.push((key, now));
            }
        }
    }
    // Of labels that hold machines back only changes count.
    for term in policy.hold_back.iter().flat_map(Selector::terms) {
        if let Test::Label(key, _) = &term.test {
            let conn = core.db.conn().await?;
            label_rows::digest(&conn, key).await?.hash(&mut seen);
        }
    }
    let seen = seen.finish();
    raised.changed = memory.insert(row.id, seen) != Some(seen);
    Ok(raised)
}
