//! Coverage: how well machines are served by what is available to them, and which kernels lose their cover soon.

use super::catalog::{Catalog, Standing as PayloadStanding};
use super::support::SupportTable;
use crate::domain::{Architecture, KernelParts, KernelSupport, MachineState, PatchVersion};
use jiff::{ToSpan, civil::Date};

/// What is known of machines that agree in all of it.
#[derive(Debug, Clone, Copy)]
pub struct Group<'a> {
    /// Index of their tier in the catalog; `None` for a tier that was deleted in this moment.
    pub tier: Option<u16>,
    /// Kernel as reported; `None`: never checked in.
    pub kernel: Option<&'a str>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// The patch in their reports.
    pub patch: Option<PatchVersion>,
    /// State as reported.
    pub state: MachineState,
    /// The day their kernel was built.
    pub build_date: Option<Date>,
}

/// How machines are covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// They run the highest version that is available to their kernel in their tier.
    Covered,
    /// There is a higher one than they run.
    Behind,
    /// A patch could not be inserted, or did harm.
    Failed,
    /// Patches are made for their kernel, and none is available.
    NoPayload,
    /// The time of their kernel is over: a newer one of the series is covered.
    KernelUpgradeRequired,
    /// Their series is not covered any more.
    KernelEndOfLife,
    /// Patches were never made for it.
    Unsupported,
    /// They never said what they run.
    Unknown,
}

/// Machines by their cover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// [`Cover::Covered`].
    pub covered: u64,
    /// [`Cover::Behind`].
    pub behind: u64,
    /// [`Cover::Failed`].
    pub failed: u64,
    /// [`Cover::NoPayload`].
    pub no_payload: u64,
    /// [`Cover::KernelUpgradeRequired`].
    pub kernel_upgrade_required: u64,
    /// [`Cover::KernelEndOfLife`].
    pub kernel_end_of_life: u64,
    /// [`Cover::Unsupported`].
    pub unsupported: u64,
    /// [`Cover::Unknown`].
    pub unknown: u64,
}

impl Counts {
    /// Adds machines.
    pub fn add(&mut self, cover: Cover, machines: u64) {
        let count = match cover {
            Cover::Covered => &mut self.covered,
            Cover::Behind => &mut self.behind,
            Cover::Failed => &mut self.failed,
            Cover::NoPayload => &mut self.no_payload,
            Cover::KernelUpgradeRequired => &mut self.kernel_upgrade_required,
            Cover::KernelEndOfLife => &mut self.kernel_end_of_life,
            Cover::Unsupported => &mut self.unsupported,
            Cover::Unknown => &mut self.unknown,
        };
        *count += machines;
    }

    /// All machines.
    pub fn machines(&self) -> u64 {
        self.asked() + self.no_payload + self.unknown
    }

    /// Machines that could be covered if all were well: nothing has to be there for the others, or nothing is known of them.
    fn asked(&self) -> u64 {
        self.covered
            + self.behind
            + self.failed
            + self.kernel_upgrade_required
            + self.kernel_end_of_life
            + self.unsupported
    }

    /// Share that is covered, of the machines that could be; 1 if there is none.
    pub fn ratio(&self) -> f64 {
        match self.asked() {
            0 => 1.0,
            asked => self.covered as f64 / asked as f64,
        }
    }
}

/// Judges machines. What a machine reports of a failure counts before all else, and the end of its kernel's time before the
/// patches that were made for it until then.
pub fn judge(catalog: &Catalog, group: &Group<'_>, today: Date) -> Cover {
    let Some((kernel, architecture)) = group.kernel.zip(group.architecture) else {
        return Cover::Unknown;
    };
    if group.state.is_failure() {
        return Cover::Failed;
    }
    let verdict = KernelParts::read(kernel).map(|parts| {
        catalog
            .support()
            .of_kernel(
                (parts.base, parts.flavour),
                Some(architecture),
                group.build_date,
                today,
            )
            .verdict
    });
    match verdict {
        Ok(KernelSupport::KernelUpgradeRequired) => return Cover::KernelUpgradeRequired,
        Ok(KernelSupport::KernelEndOfLife) => return Cover::KernelEndOfLife,
        _ if group.state == MachineState::KernelUpgradeRequired => {
            return Cover::KernelUpgradeRequired;
        }
        _ => {}
    }
    let payloads = catalog.for_kernel(kernel, architecture);
    let blocked = |version| {
        let mut own = payloads.iter().filter(|p| p.version == version);
        own.any(|p| p.standing == PayloadStanding::Blocked)
    };
    let runs = group
        .patch
        .filter(|_| group.state.runs_patch())
        .filter(|version| !blocked(*version));
    let available = payloads
        .iter()
        .find(|p| p.standing == PayloadStanding::Free && p.reach.is_some() && p.reach >= group.tier)
        .map(|p| p.version);
    match (runs, available) {
        (Some(runs), available) if available.is_none_or(|version| runs >= version) => {
            Cover::Covered
        }
        (_, Some(_)) => Cover::Behind,
        (_, None) if !payloads.is_empty() || verdict == Ok(KernelSupport::Supported) => {
            Cover::NoPayload
        }
        (_, None) => Cover::Unsupported,
    }
}

/// Days that are looked ahead.
pub const HORIZON: i32 = 90;

/// That a kernel loses its cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// In so many days; 0: it has lost it.
    pub days: i32,
    /// On this day, where that is known.
    pub on: Option<Date>,
    /// What is to be said of it then.
    pub verdict: KernelSupport,
}

/// When a kernel loses its cover within [`HORIZON`] days; `None`: not in this time, or it never had any.
pub fn loss(
    table: &SupportTable,
    kernel: &str,
    architecture: Option<Architecture>,
    build_date: Option<Date>,
    today: Date,
) -> Option<Loss> {
    let parts = KernelParts::read(kernel).ok()?;
    let lost = |verdict| {
        matches!(
            verdict,
            KernelSupport::KernelUpgradeRequired | KernelSupport::KernelEndOfLife
        )
    };
    (0..=HORIZON).find_map(|days| {
        let day = today.checked_add(days.days()).ok()?;
        let kernel = (parts.base, parts.flavour);
        let support = table.of_kernel(kernel, architecture, build_date, day);
        let by_age = support.verdict == KernelSupport::KernelUpgradeRequired;
        lost(support.verdict).then(|| Loss {
            days,
            on: if days > 0 {
                Some(day)
            } else {
                support.upgrade_required.filter(|_| by_age)
            },
            verdict: support.verdict,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Scope, Sha256};
    use crate::rollout::{
        BlockKind, BlockRow, CatalogRows, PatchRow, PayloadRow, PromotionRow, TierRow,
    };
    use jiff::civil::date;

    const KERNEL: &str = "5.15.0-107.117-generic";
    const TODAY: Date = date(2026, 1, 15);

    fn version(text: &str) -> PatchVersion {
        text.parse().unwrap()
    }

    /// 106.1 has reached the second tier, 107.1 the first, 108.1 is blocked.
    fn catalog() -> Catalog {
        let payload = |patch_id: i32| PayloadRow {
            id: i64::from(patch_id),
            patch_id,
            kernel: KERNEL.parse().unwrap(),
            architecture: Architecture::Amd64,
            filename: format!("{patch_id}"),
            sha256: Sha256::of(b""),
            size: 1,
            fixes: [].into(),
            obsolete: false,
            damaged: false,
        };
        let tier = |id, name: &str| TierRow {
            id,
            name: name.parse().unwrap(),
        };
        let promotion = |patch_id, tier_id| PromotionRow {
            patch_id,
            tier_id,
            scope: Scope::default(),
        };
        Catalog::build(CatalogRows {
            tiers: vec![tier(1, "edge"), tier(2, "stable")],
            patches: [(1, "106.1"), (2, "107.1"), (3, "108.1")]
                .map(|(id, text)| PatchRow {
                    id,
                    version: version(text),
                })
                .into(),
            payloads: vec![payload(1), payload(2), payload(3)],
            promotions: vec![promotion(1, 2), promotion(2, 1), promotion(3, 2)],
            blocks: vec![BlockRow {
                patch_id: 3,
                kind: BlockKind::Block,
                scope: Scope::default(),
            }],
            support: SupportTable::parse(
                "h\n22.04,jammy,amd64,5.15,GA,generic,13\n18.04,bionic,amd64,4.15,GA,generic,13,2026-02-01\n",
            )
            .unwrap()
            .rows()
            .to_vec(),
        })
    }

    fn group(tier: u16, patch: Option<&str>) -> Group<'static> {
        Group {
            tier: Some(tier),
            kernel: Some(KERNEL),
            architecture: Some(Architecture::Amd64),
            patch: patch.map(version),
            state: patch.map_or(MachineState::Unapplied, |_| MachineState::Applied),
            build_date: Some(date(2025, 6, 1)),
        }
    }

    fn cover(group: &Group<'_>) -> Cover {
        judge(&catalog(), group, TODAY)
    }

    #[test]
    fn what_is_available_in_the_tier_decides() {
        assert_eq!(cover(&group(0, Some("107.1"))), Cover::Covered);
        assert_eq!(cover(&group(0, Some("106.1"))), Cover::Behind);
        assert_eq!(cover(&group(0, None)), Cover::Behind);
        assert_eq!(cover(&group(1, Some("106.1"))), Cover::Covered);
        // More than the tier offers is kept; what was withdrawn counts as nothing.
        assert_eq!(cover(&group(1, Some("107.1"))), Cover::Covered);
        assert_eq!(cover(&group(1, Some("108.1"))), Cover::Behind);
        // A version beside a state that says nothing runs does not count.
        let unapplied = Group {
            state: MachineState::Unapplied,
            ..group(0, Some("107.1"))
        };
        assert_eq!(cover(&unapplied), Cover::Behind);
    }

    #[test]
    fn failures_kernels_and_silence_have_their_own_words() {
        let failed = Group {
            state: MachineState::AppliedWithBug,
            ..group(0, Some("107.1"))
        };
        assert_eq!(cover(&failed), Cover::Failed);
        let old = Group {
            build_date: Some(date(2024, 2, 7)),
            ..group(0, Some("107.1"))
        };
        assert_eq!(cover(&old), Cover::KernelUpgradeRequired);
        let told = Group {
            state: MachineState::KernelUpgradeRequired,
            ..group(0, None)
        };
        assert_eq!(cover(&told), Cover::KernelUpgradeRequired);
        let with = |kernel| Group {
            kernel,
            ..group(0, None)
        };
        assert_eq!(cover(&with(None)), Cover::Unknown);
        assert_eq!(cover(&with(Some("5.15.0-1.1-generic"))), Cover::NoPayload);
        assert_eq!(cover(&with(Some("6.9.0-1.1-generic"))), Cover::Unsupported);
        assert_eq!(cover(&with(Some("6.1.0-30-amd64"))), Cover::Unsupported);
        let bionic = Group {
            build_date: None,
            ..with(Some("4.15.0-1.1-generic"))
        };
        assert_eq!(cover(&bionic), Cover::NoPayload);
        assert_eq!(
            judge(&catalog(), &bionic, date(2026, 2, 1)),
            Cover::KernelEndOfLife
        );
    }

    #[test]
    fn the_ratio_leaves_out_who_needs_nothing_and_who_is_not_known() {
        let mut counts = Counts::default();
        assert!((counts.ratio() - 1.0).abs() < f64::EPSILON);
        for (cover, machines) in [
            (Cover::Covered, 6),
            (Cover::Behind, 1),
            (Cover::Failed, 1),
            (Cover::NoPayload, 100),
            (Cover::KernelUpgradeRequired, 1),
            (Cover::KernelEndOfLife, 1),
            (Cover::Unsupported, 2),
            (Cover::Unknown, 50),
        ] {
            counts.add(cover, machines);
        }
        assert_eq!(counts.machines(), 162);
        assert!((counts.ratio() - 0.5).abs() < f64::EPSILON);
    }

    #[test]
    fn losses_are_foreseen_by_age_and_by_the_end_of_a_series() {
        let catalog = catalog();
        let ask = |kernel, built| {
            loss(
                catalog.support(),
                kernel,
                Some(Architecture::Amd64),
                built,
                TODAY,
            )
        };
        // Thirteen months after 2025-01-20.
        let soon = ask(KERNEL, Some(date(2025, 1, 20))).unwrap();
        assert_eq!((soon.days, soon.on), (36, Some(date(2026, 2, 20))));
        assert_eq!(soon.verdict, KernelSupport::KernelUpgradeRequired);
        let past = ask(KERNEL, Some(date(2024, 2, 7))).unwrap();
        assert_eq!((past.days, past.on), (0, Some(date(2025, 3, 7))));
        let end = ask("4.15.0-1.1-generic", None).unwrap();
        assert_eq!((end.days, end.on), (17, Some(date(2026, 2, 1))));
        assert_eq!(end.verdict, KernelSupport::KernelEndOfLife);
        assert_eq!(ask(KERNEL, Some(date(2025, 6, 1))), None);
        assert_eq!(ask(KERNEL, None), None);
        assert_eq!(ask("6.9.0-1.1-generic", Some(date(2020, 1, 1))), None);
    }
}
