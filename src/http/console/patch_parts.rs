//! Parts of the page of a patch: its machines counted, its health by kernel, its payloads.

use super::BASE;
use super::bars::{Part, bar};
use super::error::PageError;
use super::forms::{self, address};
use super::page::{bytes, number, time};
use super::patches::path;
use super::tables::{more, table};
use crate::db::reports::CensusRow;
use crate::domain::{Fate, KernelVersion, MachineState, PatchVersion, Scope, States, TierName};
use crate::rollout::Catalog;
use crate::service::census::Census;
use crate::service::{Core, reports};
use crate::wire::admin::{
    KernelHealth, PatchDetail, PatchHealthQuery, PayloadEntry, SignatureState, WireScope,
};
use maud::{Markup, html};

/// Payloads on one page.
const PAYLOADS: usize = 60;
/// The most kernels whose health is shown.
const KERNELS: usize = 40;

/// Machines that speak of one patch: that report it, or were offered it last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) failed: u64,
    pub(super) waiting: u64,
    /// Those that have it in their kernel, whatever else they say.
    pub(super) running: u64,
}

impl Counts {
    /// Counts machines, if they speak of it.
    pub(super) fn add(&mut self, version: PatchVersion, row: &CensusRow) {
        let Some(fate) = fate(version, row) else {
            return;
        };
        *match fate {
            Fate::Failed => &mut self.failed,
            Fate::Applied => &mut self.applied,
            Fate::Waiting | Fate::Any => &mut self.waiting,
        } += row.machines;
        if row.patch == Some(version) && row.state.runs_patch() {
            self.running += row.machines;
        }
    }

    /// All that speak of it.
    pub(super) fn known(self) -> u64 {
        self.applied + self.failed + self.waiting
    }

    /// As parts of a bar.
    pub(super) fn parts(self) -> [Part; 3] {
        [
            Part {
                class: "good",
                name: "applied",
                count: self.applied,
            },
            Part {
                class: "bad",
                name: "failed",
                count: self.failed,
            },
            Part {
                class: "wait",
                name: "offered, not yet applied",
                count: self.waiting,
            },
        ]
    }
}

/// What came of a patch on these machines; `None` if they do not speak of it.
pub(super) fn fate(version: PatchVersion, row: &CensusRow) -> Option<Fate> {
    Fate::of(version, row.patch, row.state, row.offered)
}

/// The address of the machines of a tier of whom this came of a patch.
pub(super) fn to_machines(tier: &TierName, version: PatchVersion, fate: Fate) -> String {
    let query = [
        ("tier", Some(tier.to_string())),
        ("version", Some(version.to_string())),
        ("fate", Some(fate.to_string())),
    ];
    address("/machines", &query)
}

/// The address of the machines of a tier that have a patch in their kernel.
pub(super) fn to_running(tier: &TierName, version: PatchVersion) -> String {
    let running = States::those(MachineState::runs_patch);
    let query = [
        ("tier", Some(tier.to_string())),
        ("version", Some(version.to_string())),
        ("state", Some(running.to_string())),
    ];
    address("/machines", &query)
}

/// The machines of one tier that speak of one patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InTier {
    pub(super) name: TierName,
    pub(super) counts: Counts,
}

impl InTier {
    /// Of each tier, first to last, the machines whose kernel is under the scope.
    pub(super) fn of(
        catalog: &Catalog,
        census: &Census,
        version: PatchVersion,
        scope: &Scope,
    ) -> Vec<Self> {
        let mut found: Vec<Self> = catalog
            .tiers()
            .iter()
            .map(|tier| Self {
                name: tier.name.clone(),
                counts: Counts::default(),
            })
            .collect();
        for row in &census.rows {
            if fate(version, row).is_none() {
                continue;
            }
            let kernel = row.kernel.as_deref();
            let under = scope.is_all()
                || kernel
                    .and_then(|kernel| kernel.parse::<KernelVersion>().ok())
                    .zip(row.architecture)
                    .is_some_and(|(kernel, arch)| scope.covers(&kernel, arch));
            let tier = catalog.tier_index(row.tier_id).filter(|_| under);
            if let Some(tier) = tier.and_then(|index| found.get_mut(usize::from(index))) {
                tier.counts.add(version, row);
            }
        }
        found
    }

    /// Those of all tiers.
    pub(super) fn sum(tiers: &[Self], of: fn(&Counts) -> u64) -> u64 {
        tiers.iter().map(|tier| of(&tier.counts)).sum()
    }
}

/// A scope as part of a query.
pub(super) fn scope_query(scope: &WireScope) -> [(&'static str, Option<String>); 3] {
    [
        ("kernel", scope.kernel.as_ref().map(ToString::to_string)),
        ("flavour", scope.flavour.clone()),
        (
            "architecture",
            scope.architecture.map(|arch| arch.to_string()),
        ),
    ]
}

/// How the patch fares in a tier, by kernel, and the way to the other tiers.
pub(super) async fn by_kernel(
    core: &Core,
    version: PatchVersion,
    tier: &TierName,
    tiers: &[InTier],
) -> Result<Markup, PageError> {
    let query = PatchHealthQuery {
        tier: tier.clone(),
        version,
        selector: None,
    };
    let health = reports::patch_health(core, &query).await?;
    let rows: Vec<Vec<Markup>> = health
        .kernels
        .iter()
        .take(KERNELS)
        .map(|kernel| kernel_row(version, tier, kernel))
        .collect();
    Ok(html! {
        h2 #health { "Health by kernel in " (tier) }
        form.row method="get" action={ (BASE) (path(version)) "#health" } {
            div {
                label for="health-tier" { "Tier" }
                select #health-tier name="tier" {
                    @for known in tiers {
                        option value=(known.name) selected[known.name == *tier] { (known.name) }
                    }
                }
            }
            button.plain type="submit" { "Show" }
        }
        @if health.machines > 0 {
            p {
                (number(health.failed)) " of " (number(health.machines)) " machines failed ("
                (format!("{:.2} %", health.failed_share * 100.0)) ")."
            }
        }
        (table(
            &format!("Health by kernel in {tier}, most failures first"),
            &["Kernel", "Architecture", "Machines", "Failed", "States", "Together"],
            &rows,
            &format!("No machine of {tier} runs it or was offered it last."),
        ))
        @if health.kernels.len() > KERNELS {
            p.quiet { "And " (number((health.kernels.len() - KERNELS) as u64)) " more kernels with fewer failures or machines." }
        }
        (forms::command(&format!("report patch-health {tier} {version}")))
    })
}

fn kernel_row(version: PatchVersion, tier: &TierName, kernel: &KernelHealth) -> Vec<Markup> {
    let to = |fate: Fate| {
        let query = [
            ("tier", Some(tier.to_string())),
            ("version", Some(version.to_string())),
            ("fate", Some(fate.to_string())),
            ("kernel", Some(kernel.kernel.clone())),
        ];
        address("/machines", &query)
    };
    let running: u64 = kernel
        .states
        .iter()
        .filter(|(state, _)| state.runs_patch() && !state.is_failure())
        .map(|(_, machines)| machines)
        .sum();
    let parts = [
        Part {
            class: "good",
            name: "applied",
            count: running,
        },
        Part {
            class: "bad",
            name: "failed",
            count: kernel.failed,
        },
        Part {
            class: "wait",
            name: "in another state",
            count: kernel.machines.saturating_sub(running + kernel.failed),
        },
    ];
    vec![
        html! { code { (kernel.kernel) } },
        html! { @match kernel.architecture { Some(arch) => (arch), None => span.quiet { "–" } } },
        html! { a href=(to(Fate::Any)) { (number(kernel.machines)) } },
        html! { @if kernel.failed > 0 { a href=(to(Fate::Failed)) { (number(kernel.failed)) " failed" } } @else { "0" } },
        html! {
            @for (place, (state, machines)) in kernel.states.iter().enumerate() {
                @if place > 0 { ", " } (number(*machines)) " " (state)
            }
        },
        bar(&parts),
    ]
}

/// One page of the payloads: those after `cursor`, a file name.
pub(super) fn payloads(detail: &PatchDetail, catalog: &Catalog, cursor: Option<&str>) -> Markup {
    let all = &detail.payloads;
    let from = cursor
        .and_then(|cursor| all.iter().position(|payload| payload.filename == cursor))
        .map_or(0, |place| place + 1);
    let shown = &all[from..all.len().min(from + PAYLOADS)];
    let next = (from + shown.len() < all.len())
        .then(|| shown.last())
        .flatten();
    let rows: Vec<Vec<Markup>> = shown
        .iter()
        .map(|payload| payload_row(payload, catalog))
        .collect();
    html! {
        (table(
            "Payloads by kernel and architecture",
            &["Kernel", "Architecture", "Size", "Reached", "Mends", "Signature", "Added"],
            &rows,
            "None.",
        ))
        @if all.len() > PAYLOADS {
            p.quiet { (from + 1) " to " (from + shown.len()) " of " (all.len()) "." }
        }
        (more(&path(detail.patch.version), &[], next.map(|payload| payload.filename.as_str())))
    }
}

fn payload_row(payload: &PayloadEntry, catalog: &Catalog) -> Vec<Markup> {
    let fixes = catalog
        .by_filename(&payload.filename)
        .map(|known| known.fixes.len());
    vec![
        html! {
            code { (payload.kernel) }
            @if let Some(why) = &payload.damaged { " " span.tag.bad { "damaged" } small { " " (why) } }
        },
        html! { (payload.architecture) },
        html! { (bytes(payload.size)) },
        html! { @match &payload.tier { Some(tier) => (tier), None => span.quiet { "no tier" } } },
        html! { @match fixes { Some(fixes) => (fixes), None => span.quiet { "–" } } },
        html! {
            @match payload.signature {
                SignatureState::Good => span.tag.good { "good" },
                SignatureState::NotGood => span.tag.bad { "not good" },
                SignatureState::NotChecked => span.tag.idle { "not checked" },
            }
            @if let Some(signer) = &payload.signer { small { " " (signer) } }
            @if let Some(warning) = &payload.warning { small { " " (warning) } }
        },
        html! {
            (time(Some(payload.added_at)))
            small.quiet { " " (payload.source) @if !payload.added_by.is_empty() { " by " (payload.added_by) } }
        },
    ]
}
