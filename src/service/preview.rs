//! What a promotion means for the fleet, from the catalog and from what machines said they run. The counting is pure.

use super::{Core, ServiceError, fleet};
use crate::db::patches::{self, Group};
use crate::db::selected;
use crate::domain::{Architecture, KernelVersion, PatchVersion, Scope, Selector};
use crate::rollout::{Catalog, Payload, Standing};
use crate::wire::admin::KernelGap;
use std::collections::{BTreeMap, BTreeSet};

/// A patch, or a part of it, that reaches a further tier.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) version: PatchVersion,
    pub(super) scope: Scope,
    /// Index of the last tier before; `None`: it had reached none.
    pub(super) from: Option<usize>,
    /// Index of the last tier after.
    pub(super) to: usize,
}

/// What the steps mean together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Payloads that become available in further tiers.
    pub(super) payloads: u64,
    /// Machines that are offered another payload than before.
    pub(super) machines: u64,
    /// Bytes that these machines will download.
    pub(super) bytes: u64,
    /// Kernels of machines in the tiers reached for which none of the patches has a payload.
    pub(super) gaps: Vec<KernelGap>,
}

/// Asks what machines run in the tiers that the steps reach, all or those that a selector means, and counts.
pub(super) async fn effect(
    core: &Core,
    catalog: &Catalog,
    steps: &[Step],
    selector: Option<&Selector>,
) -> Result<Effect, ServiceError> {
    let reached = reached(steps);
    if reached.is_empty() {
        return Ok(Effect::default());
    }
    let tier = |index: &usize| catalog.tiers().get(*index).map(|tier| tier.id);
    let ids: Vec<i32> = reached.iter().filter_map(tier).collect();
    let conn = core.db.conn().await?;
    let fleet = match selector {
        Some(selector) => {
            selected::groups(&conn, &fleet::selected(core, &conn, selector).await?).await?
        }
        None => patches::fleet(&conn, Some(&ids), None).await?,
    };
    Ok(count(catalog, steps, &fleet))
}

/// Indices of the tiers that something newly reaches.
fn reached(steps: &[Step]) -> BTreeSet<usize> {
    steps
        .iter()
        .flat_map(|step| step.from.map_or(0, |from| from + 1)..=step.to)
        .collect()
}

/// How far a payload reaches after the steps.
fn after(payload: &Payload, steps: &[Step]) -> Option<usize> {
    let before = payload.reach.map(usize::from);
    steps
        .iter()
        .filter(|s| s.version == payload.version)
        .filter(|s| s.scope.covers(&payload.kernel, payload.architecture))
        .map(|s| Some(s.to))
        .fold(before, Option::max)
}

fn count(catalog: &Catalog, steps: &[Step], fleet: &[Group]) -> Effect {
    let mut effect = Effect::default();
    let mut gaps: BTreeMap<(String, Option<Architecture>), u64> = BTreeMap::new();
    effect.payloads = catalog
        .payloads()
        .iter()
        .filter(|p| after(p, steps) > p.reach.map(usize::from))
        .count() as u64;
    let reached = reached(steps);
    for group in fleet {
        let Some(tier) = catalog.tier_index(group.tier_id).map(usize::from) else {
            continue;
        };
        if !reached.contains(&tier) {
            continue;
        }
        let payloads = group
            .architecture
            .map_or(&[][..], |arch| catalog.for_kernel(&group.kernel, arch));
        let named = |p: &&Payload| steps.iter().any(|s| s.version == p.version);
        if !payloads.iter().any(|p| named(&p)) && concerned(group, steps) {
            let key = (group.kernel.clone(), group.architecture);
            *gaps.entry(key).or_default() += group.machines;
        }
        let offer = |reach: &dyn Fn(&Payload) -> Option<usize>| {
            payloads
                .iter()
                .find(|p| p.standing == Standing::Free && reach(p) >= Some(tier))
        };
        let before = offer(&|p| p.reach.map(usize::from));
        let now = offer(&|p| after(p, steps));
        if let Some(now) = now
            && before.is_none_or(|b| b.id != now.id)
            && group.applied.is_none_or(|applied| now.version > applied)
        {
            effect.machines += group.machines;
            effect.bytes += group.machines * now.size;
        }
    }
    effect.gaps = gaps
        .into_iter()
        .map(|((kernel, architecture), machines)| KernelGap {
            kernel,
            architecture,
            machines,
        })
        .collect();
    effect
        .gaps
        .sort_by_key(|gap| std::cmp::Reverse(gap.machines));
    effect
}

/// Whether a step speaks of this kernel at all. A kernel that cannot be read is under no narrower scope than all.
fn concerned(group: &Group, steps: &[Step]) -> bool {
    let kernel = group.kernel.parse::<KernelVersion>().ok();
    steps.iter().any(|step| {
        step.scope.is_all()
            || kernel
                .as_ref()
                .zip(group.architecture)
                .is_some_and(|(kernel, arch)| step.scope.covers(kernel, arch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Sha256;
    use crate::rollout::{
        BlockKind, BlockRow, CatalogRows, PatchRow, PayloadRow, PromotionRow, TierRow,
    };

    const GENERIC: &str = "5.15.0-107.117-generic";
    const AWS: &str = "5.15.0-1061.67-aws";

    fn v(text: &str) -> PatchVersion {
        text.parse().unwrap()
    }

    /// Tiers 10 to 13; 106.1 everywhere, 107.1 in the first; 108.1 in the first but blocked.
    fn catalog() -> Catalog {
        let mut rows = CatalogRows::default();
        for (id, name) in (10..).zip(["edge", "beta", "candidate", "stable"]) {
            let name = name.parse().unwrap();
            rows.tiers.push(TierRow { id, name });
        }
        for (id, version, tier_id) in [(1, "106.1", 13), (2, "107.1", 10), (3, "108.1", 10)] {
            let version = v(version);
            rows.patches.push(PatchRow { id, version });
            let scope = Scope::default();
            rows.promotions.push(PromotionRow {
                patch_id: id,
                tier_id,
                scope,
            });
            for (n, kernel) in [(0, GENERIC), (1, AWS)] {
                if id == 2 && n == 1 {
                    continue;
                }
                rows.payloads.push(PayloadRow {
                    id: i64::from(id * 10 + n),
                    patch_id: id,
                    kernel: kernel.parse().unwrap(),
                    architecture: Architecture::Amd64,
                    filename: format!("{id}-{n}"),
                    sha256: Sha256::of(b"x"),
                    size: 100,
                    fixes: [].into(),
                    obsolete: false,
                    damaged: false,
                });
            }
        }
        rows.blocks.push(BlockRow {
            patch_id: 3,
            kind: BlockKind::Block,
            scope: Scope::default(),
        });
        Catalog::build(rows)
    }

    fn group(tier_id: i32, kernel: &str, applied: Option<&str>, machines: u64) -> Group {
        Group {
            tier_id,
            kernel: kernel.to_owned(),
            architecture: Some(Architecture::Amd64),
            applied: applied.map(v),
            machines,
        }
    }

    fn step(version: &str, scope: Scope, to: usize) -> Step {
        Step {
            version: v(version),
            scope,
            from: Some(0),
            to,
        }
    }

    #[test]
    fn only_machines_that_are_offered_something_else_are_counted() {
        let fleet = [
            group(10, GENERIC, None, 1000), // offered it already
            group(11, GENERIC, Some("106.1"), 1),
            group(12, GENERIC, None, 10),
            group(12, GENERIC, Some("107.1"), 100), // has it
            group(13, GENERIC, None, 5000),         // not reached
            group(12, AWS, Some("106.1"), 7),       // no payload
            group(12, "6.8.0-31.31-generic", None, 9), // no payload
        ];
        let effect = count(&catalog(), &[step("107.1", Scope::default(), 2)], &fleet);
        assert_eq!(
            (effect.payloads, effect.machines, effect.bytes),
            (1, 11, 1100)
        );
        let gaps: Vec<_> = effect
            .gaps
            .iter()
            .map(|g| (g.kernel.as_str(), g.machines))
            .collect();
        assert_eq!(gaps, [("6.8.0-31.31-generic", 9), (AWS, 7)]);
    }

    #[test]
    fn scopes_narrow_and_blocked_or_lower_patches_touch_nobody() {
        let fleet = [
            group(12, GENERIC, None, 10),
            group(12, AWS, None, 7),
            group(12, "not a kernel", None, 3),
        ];
        let aws = Scope::parse(None, Some("aws"), None).unwrap();
        let effect = count(&catalog(), &[step("107.1", aws, 2)], &fleet);
        assert_eq!((effect.payloads, effect.machines), (0, 0));
        assert_eq!(effect.gaps.len(), 1, "{:?}", effect.gaps);
        let effect = count(&catalog(), &[step("108.1", Scope::default(), 3)], &fleet);
        assert_eq!((effect.payloads, effect.machines), (2, 0));
        assert_eq!(effect.gaps.len(), 1);
    }
}
