//! `decide` alone, on a catalog of 40,000 payloads.

use crate::Plan;
use crate::report::{Better, Row, median};
use livepatch_onprem::domain::{Architecture, MachineId, PatchVersion, Policy, Scope, Sha256};
use livepatch_onprem::rollout::{
    Catalog, CatalogRows, Facts, PatchRow, PayloadRow, PromotionRow, Rollout, RolloutState,
    Rollouts, Tier, TierRow, cohort, decide,
};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const KERNELS: u32 = 400;
const PATCHES: u32 = 100;
const CALLS: u32 = 400_000;

pub(crate) fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let catalog = catalog()?;
    anyhow::ensure!(catalog.payloads().len() == 40_000);
    let newest = PatchVersion {
        major: PATCHES,
        minor: 1,
    };
    let behind = PatchVersion {
        major: PATCHES - 1,
        minor: 1,
    };
    let (none, half) = (Rollouts::default(), half_way(&catalog, newest));
    Ok(vec![
        row(
            "decide, no change, microseconds",
            &catalog,
            &none,
            newest,
            plan,
        ),
        row(
            "decide, an offer, microseconds",
            &catalog,
            &none,
            behind,
            plan,
        ),
        row(
            "decide, a rollout at 50%, microseconds",
            &catalog,
            &half,
            behind,
            plan,
        ),
        allocations(&catalog, newest)?,
    ])
}

/// A policy on every tier, and a rollout of this patch that lets half of the machines in.
fn half_way(catalog: &Catalog, version: PatchVersion) -> Rollouts {
    let policies = catalog
        .tiers()
        .iter()
        .map(|tier| (tier.id, Arc::new(Policy::example())));
    let rollout = |tier: &Tier| Rollout {
        id: i64::from(tier.id),
        version,
        tier_id: tier.id,
        scope: Scope::default(),
        state: RolloutState::Running,
        phase: 1,
        threshold: cohort::PLACES / 2,
        limits: HashMap::new(),
    };
    Rollouts::new(policies, catalog.tiers().iter().map(rollout))
}

fn row(
    name: &'static str,
    catalog: &Catalog,
    rollouts: &Rollouts,
    applied: PatchVersion,
    plan: Plan,
) -> Row {
    let kernels: Vec<String> = (0..KERNELS).map(kernel).collect();
    let today = jiff::civil::date(2025, 1, 1);
    let now = jiff::Timestamp::UNIX_EPOCH;
    let one_round = || {
        let started = Instant::now();
        for n in 0..CALLS {
            let facts = Facts {
                tier: 3,
                kernel: &kernels[(n.wrapping_mul(7919) % KERNELS) as usize],
                architecture: Some(Architecture::Amd64),
                applied: Some(applied),
                build_date: None,
                machine: MachineId(u128::from(n + 1).to_be_bytes()),
                now,
                today,
            };
            black_box(decide(catalog, rollouts, black_box(&facts)));
        }
        started.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
    };
    one_round();
    let rounds: Vec<f64> = (0..plan.rounds).map(|_| one_round()).collect();
    let ratio = median(rounds.iter().copied());
    Row {
        name,
        ratio,
        better: Better::Lower,
        floor: 2.0,
        aim: None,
        rounds,
        detail: format!("{:.0} ns with 40,000 payloads", ratio * 1e3),
    }
}

/// Allocations of a decision that changes nothing, which is nearly every one.
fn allocations(catalog: &Catalog, applied: PatchVersion) -> anyhow::Result<Row> {
    anyhow::ensure!(
        crate::allocations::during(|| drop(black_box(Box::new(1)))) == 1,
        "allocations are not counted"
    );
    let kernels: Vec<String> = (0..KERNELS).map(kernel).collect();
    let none = Rollouts::default();
    let counted = crate::allocations::during(|| {
        for kernel in &kernels {
            let facts = Facts {
                tier: 3,
                kernel,
                architecture: Some(Architecture::Amd64),
                applied: Some(applied),
                build_date: Some(jiff::civil::date(2024, 12, 1)),
                machine: MachineId([1; 16]),
                now: jiff::Timestamp::UNIX_EPOCH,
                today: jiff::civil::date(2025, 1, 1),
            };
            black_box(decide(catalog, &none, black_box(&facts)));
        }
    });
    let ratio = counted as f64 / f64::from(KERNELS);
    Ok(Row {
        name: "decide, no change, allocations",
        ratio,
        better: Better::Lower,
        floor: 0.0,
        aim: None,
        rounds: vec![ratio],
        detail: format!("{counted} in {KERNELS} decisions"),
    })
}

fn kernel(n: u32) -> String {
    format!("5.15.0-{}.{}-generic", n + 100, n + 110)
}

fn catalog() -> anyhow::Result<Catalog> {
    let mut rows = CatalogRows {
        tiers: ["edge", "beta", "candidate", "stable"]
            .iter()
            .zip(1..)
            .map(|(name, id)| {
                Ok(TierRow {
                    id,
                    name: name.parse()?,
                })
            })
            .collect::<anyhow::Result<_>>()?,
        ..CatalogRows::default()
    };
    for patch in 1..=PATCHES {
        let version = PatchVersion {
            major: patch,
            minor: 1,
        };
        let patch_id = patch as i32;
        rows.patches.push(PatchRow {
            id: patch_id,
            version,
        });
        rows.promotions.push(PromotionRow {
            patch_id,
            tier_id: 4,
            scope: Scope::default(),
        });
        for k in 0..KERNELS {
            let kernel = kernel(k);
            let filename = format!("livepatch-{kernel}-{version}-amd64.tar.bz2");
            rows.payloads.push(PayloadRow {
                id: i64::from(patch * KERNELS + k),
                patch_id,
                kernel: kernel.parse()?,
                architecture: Architecture::Amd64,
                sha256: Sha256::of(filename.as_bytes()),
                filename,
                size: 300 << 10,
                fixes: [].into(),
                obsolete: false,
                damaged: false,
            });
        }
    }
    Ok(Catalog::build(rows))
}
