//! How well the machines are covered, by tier, kernel, flavour or label, and which of them lose the cover of their kernel.

use super::census::{self, Census};
use super::{Core, ServiceError};
use crate::db::reports::CensusRow;
use crate::domain::kernel::KernelParts;
use crate::domain::{Architecture, KernelSupport, MachineState, PatchVersion};
use crate::rollout::Catalog;
use crate::rollout::coverage::{Counts, Group, HORIZON, judge, loss};
use crate::telemetry::FleetCounts;
use crate::wire::admin::{
    Coverage, CoverageBy, CoverageCounts, CoverageGroup, CoverageQuery, Horizon, HorizonKernel,
    HorizonQuery,
};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil::Date};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;

/// The most groups that are told.
const MOST: usize = 1000;

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// Machines by cover, and how many of them are silent.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    counts: Counts,
    silent: u64,
}

impl Tally {
    fn add(&mut self, catalog: &Catalog, row: &CensusRow, today: Date) {
        let group = Group {
            tier: catalog.tier_index(row.tier_id),
            kernel: row.kernel.as_deref(),
            architecture: row.architecture,
            patch: row.patch,
            state: row.state,
            build_date: row.build_date,
        };
        self.counts.add(judge(catalog, &group, today), row.machines);
        self.silent += row.silent;
    }
}

impl From<Tally> for CoverageCounts {
    fn from(tally: Tally) -> Self {
        let counts = tally.counts;
        Self {
            machines: counts.machines(),
            covered: counts.covered,
            behind: counts.behind,
            failed: counts.failed,
            no_payload: counts.no_payload,
            kernel_upgrade_required: counts.kernel_upgrade_required,
            kernel_end_of_life: counts.kernel_end_of_life,
            unsupported: counts.unsupported,
            unknown: counts.unknown,
            silent: tally.silent,
            ratio: counts.ratio(),
        }
    }
}

/// Shows in the metrics what was counted.
pub(super) fn measure(core: &Core, census: &Census) {
    let snapshot = core.snapshots.get_full();
    let total = total(core, census);
    core.metrics.fleet.coverage.set(total.ratio);
    core.metrics.fleet.silent.set(total.silent.cast_signed());
    core.metrics
        .fleet
        .count(counted(&snapshot.catalog, &census.rows));
}

/// Machines by tier and state, and by tier and patch; all tiers and states are there, and of patches only those of the catalog.
fn counted(catalog: &Catalog, rows: &[CensusRow]) -> FleetCounts {
    let known: HashSet<PatchVersion> = catalog.payloads().iter().map(|p| p.version).collect();
    let mut counts = FleetCounts::default();
    for tier in catalog.tiers() {
        for state in MachineState::ALL {
            let key = (tier.name.to_string(), state.as_str());
            counts.states.insert(key, 0);
        }
    }
    for row in rows {
        let tier = catalog.tier_index(row.tier_id).map(usize::from);
        let tier = tier.and_then(|place| catalog.tiers().get(place));
        let tier = tier.map_or_else(
            || FleetCounts::OTHER.to_owned(),
            |tier| tier.name.to_string(),
        );
        let patch = match row.patch {
            None => FleetCounts::NONE.to_owned(),
            Some(version) if known.contains(&version) => version.to_string(),
            Some(_) => FleetCounts::OTHER.to_owned(),
        };
        *counts
            .states
            .entry((tier.clone(), row.state.as_str()))
            .or_default() += row.machines;
        *counts.patches.entry((tier, patch)).or_default() += row.machines;
    }
    counts
}

/// What a group is called; groups stand in the order of the number, then of the name, those without one last.
type Name = (usize, bool, Option<String>);

fn name(catalog: &Catalog, by: CoverageBy, label: Option<String>, row: &CensusRow) -> Name {
    let kernel = row.kernel.as_deref();
    let text = match by {
        CoverageBy::Tier => {
            let place = catalog.tier_index(row.tier_id).map(usize::from);
            let tier = place.and_then(|place| catalog.tiers().get(place));
            let text = tier.map(|tier| tier.name.to_string());
            return (place.unwrap_or(usize::MAX), text.is_none(), text);
        }
        CoverageBy::Kernel => kernel.map(ToOwned::to_owned),
        CoverageBy::Flavour => kernel
            .and_then(crate::domain::selector::flavour_of)
            .map(ToOwned::to_owned),
        CoverageBy::Label => label,
    };
    (0, text.is_none(), text)
}

/// How all machines of a census are covered. Judged once for each snapshot.
pub fn total(core: &Core, census: &Census) -> CoverageCounts {
    let snapshot = core.snapshots.get_full();
    let mut kept = census
        .covered
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some((_, counts)) = kept
        .as_ref()
        .filter(|(version, _)| *version == snapshot.version)
    {
        return *counts;
    }
    let (today, mut total) = (today(), Tally::default());
    for row in &census.rows {
        total.add(&snapshot.catalog, row, today);
    }
    let counts = CoverageCounts::from(total);
    *kept = Some((snapshot.version, counts));
    counts
}

/// Machines by what they have in common, and how they are covered.
pub async fn by(core: &Core, query: &CoverageQuery) -> Result<Coverage, ServiceError> {
    let by = match (query.by, &query.label) {
        (None, Some(_)) => CoverageBy::Label,
        (by, _) => by.unwrap_or_default(),
    };
    if (by == CoverageBy::Label) != query.label.is_some() {
        return Err(ServiceError::Invalid(
            "give `label` with the key of a label, and `by=label` or no `by` beside it".to_owned(),
        ));
    }
    let snapshot = core.snapshots.get_full();
    let catalog = &snapshot.catalog;
    let (today, mut total) = (today(), Tally::default());
    let mut groups: BTreeMap<Name, Tally> = BTreeMap::new();
    let mut add = |label: Option<String>, row: &CensusRow| {
        total.add(catalog, row, today);
        let group = groups.entry(name(catalog, by, label, row)).or_default();
        group.add(catalog, row, today);
    };
    let selector = query.selector.as_ref();
    let counted = census::selected(core, None, selector, query.label.as_ref()).await?;
    for (label, row) in counted.rows {
        add(label, &row);
    }
    let left_out = groups.len().saturating_sub(MOST);
    if left_out > 0 {
        let mut sizes: Vec<(u64, Name)> = groups
            .iter()
            .map(|(name, tally)| (tally.counts.machines(), name.clone()))
            .collect();
        sizes.sort_by_key(|(machines, _)| Reverse(*machines));
        for (_, small) in sizes.drain(MOST..) {
            groups.remove(&small);
        }
    }
    let groups = groups
        .into_iter()
        .map(|((_, _, name), tally)| CoverageGroup {
            name,
            counts: tally.into(),
        });
    Ok(Coverage {
        by,
        label: query.label.clone(),
        as_of: counted.as_of,
        total: total.into(),
        groups: groups.collect(),
        left_out: left_out as u64,
    })
}

/// Which machines lose the cover of their kernel within [`HORIZON`] days.
pub async fn horizon(core: &Core, query: &HorizonQuery) -> Result<Horizon, ServiceError> {
    let snapshot = core.snapshots.get_full();
    let table = snapshot.catalog.support();
    let census = census::selected(core, None, query.selector.as_ref(), None).await?;
    let today = today();
    let mut kernels: BTreeMap<(&str, Option<Architecture>, Option<Date>), u64> = BTreeMap::new();
    for (_, row) in &census.rows {
        if let Some(kernel) = row.kernel.as_deref() {
            let key = (kernel, row.architecture, row.build_date);
            *kernels.entry(key).or_default() += row.machines;
        }
    }
    let mut age_unknown = 0;
    let mut losing = Vec::new();
    for ((kernel, architecture, build_date), machines) in kernels {
        if let Some(loss) = loss(table, kernel, architecture, build_date, today) {
            losing.push(HorizonKernel {
                kernel: kernel.to_owned(),
                architecture,
                build_date,
                becomes: loss.verdict,
                on: loss.on,
                days: loss.days.unsigned_abs(),
                machines,
            });
        } else if build_date.is_none()
            && let Ok(parts) = KernelParts::read(kernel)
        {
            let asked = (parts.base, parts.flavour);
            let support = table.of_kernel(asked, architecture, None, today);
            if support.verdict == KernelSupport::Supported {
                age_unknown += machines;
            }
        }
    }
    losing.sort_by_key(|kernel| (kernel.days, Reverse(kernel.machines)));
    let within = |days: std::ops::RangeInclusive<u32>| {
        let here = losing.iter().filter(|kernel| days.contains(&kernel.days));
        here.map(|kernel| kernel.machines).sum()
    };
    Ok(Horizon {
        as_of: census.as_of,
        now: within(0..=0),
        within_30_days: within(1..=30),
        within_60_days: within(1..=60),
        within_90_days: within(1..=HORIZON.unsigned_abs()),
        age_unknown,
        kernels: losing,
    })
}
