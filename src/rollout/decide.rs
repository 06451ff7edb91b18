//! `decide`: what one machine is offered now, and why.
//!
//! The rule: the highest version that has a payload for exactly the machine's kernel and architecture, has reached its
//! tier, is neither blocked, held nor damaged, and whose rollout in that tier lets this machine in now. A machine keeps a higher
//! version it runs, unless that was blocked.

use super::catalog::{Catalog, Payload, Standing, Tier};
use super::reason::{ReasonCode, Skip};
use super::rollouts::Rollouts;
use super::support::Support;
use crate::domain::{Architecture, KernelParts, KernelSupport, MachineId, PatchVersion, TierName};
use jiff::Timestamp;
use jiff::civil::Date;

/// What is known of the machine that asks.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Index of its tier in the catalog.
    pub tier: u16,
    /// Kernel as reported.
    pub kernel: &'a str,
    /// Architecture, where it was reported and is known.
    pub architecture: Option<Architecture>,
    /// The patch it says is applied.
    pub applied: Option<PatchVersion>,
    /// The day its kernel was built, where reported.
    pub build_date: Option<Date>,
    /// Which machine it is.
    pub machine: MachineId,
    /// Now, by the server's clock.
    pub now: Timestamp,
    /// The day that is, in UTC.
    pub today: Date,
}

/// The kind of answer; the discriminant is stored with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Outcome {
    /// A payload is offered.
    Offer = 1,
    /// It runs what it should.
    UpToDate = 2,
    /// It runs more than its tier offers and keeps it.
    KeepsHigher = 3,
    /// There is nothing for it.
    NothingToApply = 4,
    /// It needs a newer kernel first.
    KernelUpgradeRequired = 5,
    /// Its kernel is not covered.
    Unsupported = 6,
    /// It did not say what it runs.
    Unknown = 7,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] = [
        Self::Offer,
        Self::UpToDate,
        Self::KeepsHigher,
        Self::NothingToApply,
        Self::KernelUpgradeRequired,
        Self::Unsupported,
        Self::Unknown,
    ];

    /// The word for it, as a metric label and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::UpToDate => "up-to-date",
            Self::KeepsHigher => "keeps-higher",
            Self::NothingToApply => "nothing-to-apply",
            Self::KernelUpgradeRequired => "kernel-upgrade-required",
            Self::Unsupported => "unsupported",
            Self::Unknown => "unknown",
        }
    }

    /// The number stored in the database.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The inverse of [`Self::code`].
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.code() == code)
    }
}

/// The answer with everything that led to it.
#[derive(Debug, Clone, Copy)]
pub struct Decision<'s> {
    /// The kind of answer.
    pub outcome: Outcome,
    /// What is offered, with [`Outcome::Offer`].
    pub payload: Option<&'s Payload>,
    /// What the table of supported kernels says.
    pub support: Support,
    /// Payloads passed over, highest version first; [`Self::skips`] says why.
    pub passed: &'s [Payload],
    /// The reason for the outcome.
    pub code: ReasonCode,
    /// The machine's tier.
    pub tier: &'s TierName,
    /// What the machine says is applied.
    pub applied: Option<PatchVersion>,
    /// Index of its tier in the catalog.
    pub tier_index: u16,
    asks: Asks<'s>,
}

/// What it depends on whether a payload is offered.
#[derive(Debug, Clone, Copy)]
struct Asks<'s> {
    tiers: &'s [Tier],
    rollouts: &'s Rollouts,
    tier: u16,
    machine: MachineId,
    now: Timestamp,
}

impl Asks<'_> {
    /// Why this payload is not available in the tier; `None` if it is.
    fn unavailable(&self, payload: &Payload) -> Option<ReasonCode> {
        let in_tier = payload.reach.is_some_and(|reach| reach >= self.tier);
        match payload.standing {
            Standing::Blocked => Some(ReasonCode::Blocked),
            _ if !in_tier => Some(ReasonCode::NotInTier),
            Standing::Held => Some(ReasonCode::Held),
            Standing::Damaged => Some(ReasonCode::Damaged),
            Standing::Free => None,
        }
    }

    /// Why this payload is not offered; `None` if it can be.
    fn stops(&self, payload: &Payload) -> Option<ReasonCode> {
        let unavailable = self.unavailable(payload);
        if unavailable.is_some() || self.rollouts.is_empty() {
            return unavailable;
        }
        let tier = self.tiers.get(usize::from(self.tier))?;
        self.rollouts
            .stops(tier.id, payload, &self.machine, self.now)
    }
}

impl<'s> Decision<'s> {
    /// Versions passed over, highest first. Told when asked for: most answers are told by heart.
    pub fn skips(&self) -> impl Iterator<Item = Skip<'s>> + use<'s> {
        let asks = self.asks;
        self.passed.iter().filter_map(move |payload| {
            let reached = payload
                .reach
                .and_then(|reach| asks.tiers.get(usize::from(reach)));
            Some(Skip {
                version: payload.version,
                code: asks.stops(payload)?,
                reached: reached.map(|tier| &tier.name),
            })
        })
    }

    /// Stands for the reasons of what was passed over, which depend on the machine as soon as there are rollouts.
    pub(super) fn skipped(&self) -> u64 {
        if self.asks.rollouts.is_empty() {
            return 0;
        }
        let codes = self.passed.iter().map(|payload| self.asks.stops(payload));
        codes.fold(0, |sum, code| {
            let code = code.map_or(0, |code| code as u64 + 1);
            (sum ^ code).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// The last reason as a sentence; the skips come before it.
    pub fn text(&self) -> String {
        let tier = self.tier;
        let runs = self
            .applied
            .map_or_else(|| "nothing".to_owned(), |v| v.to_string());
        match self.code {
            ReasonCode::Offered => {
                let version = self.payload.map_or_else(String::new, |p| p.version.to_string());
                match self.applied {
                    Some(applied) if self.payload.is_some_and(|p| p.version < applied) => {
                        format!("{version} is offered: {applied}, which the machine runs, is blocked, and this is the highest version left in tier {tier}")
                    }
                    _ => format!("{version} is offered: it is the highest version for this kernel in tier {tier}; the machine runs {runs}"),
                }
            }
            ReasonCode::UpToDate => format!("the machine runs {runs}, the highest version available to it in tier {tier}"),
            ReasonCode::KeepsHigher => format!("the machine runs {runs} and keeps it: tier {tier} offers nothing higher, and no machine is taken back to a lower version unless the one it runs is blocked"),
            ReasonCode::WithdrawnNoFallback => format!("{runs}, which the machine runs, is blocked, and no other version is available in tier {tier}"),
            ReasonCode::NoPayload => "no patch has a payload for this kernel and architecture".to_owned(),
            ReasonCode::NoneAvailable => format!("payloads for this kernel exist, but none is available in tier {tier} now"),
            ReasonCode::KernelUpgradeRequired => match self.support.upgrade_required {
                Some(day) => format!("live patches for this kernel ended on {day}; upgrade the kernel"),
                None => "live patches for this kernel have ended; upgrade the kernel".to_owned(),
            },
            ReasonCode::KernelEndOfLife => "this kernel's series is no longer covered; upgrade the kernel".to_owned(),
            ReasonCode::KernelUnsupported => {
                "no patch has a payload for this kernel, and its series, flavour and architecture are not in the table of supported kernels".to_owned()
            }
            _ => "the machine did not report its kernel and architecture in a form that is known".to_owned(),
        }
    }
}

/// Decides. Returns `None` only if the tier index is not in the catalog (the tier was deleted under the request).
pub fn decide<'s>(
    catalog: &'s Catalog,
    rollouts: &'s Rollouts,
    facts: &Facts<'_>,
) -> Option<Decision<'s>> {
    let tiers = catalog.tiers();
    let asks = Asks {
        tiers,
        rollouts,
        tier: facts.tier,
        machine: facts.machine,
        now: facts.now,
    };
    let tier = &tiers.get(usize::from(facts.tier))?.name;
    let decision = |outcome, code, support| Decision {
        outcome,
        payload: None,
        support,
        passed: &[],
        code,
        tier,
        applied: facts.applied,
        tier_index: facts.tier,
        asks,
    };
    let unknown = Support {
        verdict: KernelSupport::Unknown,
        upgrade_required: None,
    };
    let Some(architecture) = facts.architecture else {
        return Some(decision(
            Outcome::Unknown,
            ReasonCode::KernelUnknown,
            unknown,
        ));
    };
    let payloads = catalog.for_kernel(facts.kernel, architecture);
    let Some(first) = payloads.first() else {
        let Ok(kernel) = KernelParts::read(facts.kernel) else {
            return Some(decision(
                Outcome::Unknown,
                ReasonCode::KernelUnknown,
                unknown,
            ));
        };
        let support = catalog.support().of_kernel(
            (kernel.base, kernel.flavour),
            Some(architecture),
            facts.build_date,
            facts.today,
        );
        let (outcome, code) = match support.verdict {
            KernelSupport::KernelUpgradeRequired => (
                Outcome::KernelUpgradeRequired,
                ReasonCode::KernelUpgradeRequired,
            ),
            KernelSupport::KernelEndOfLife => {
                (Outcome::KernelUpgradeRequired, ReasonCode::KernelEndOfLife)
            }
            KernelSupport::Unsupported => (Outcome::Unsupported, ReasonCode::KernelUnsupported),
            KernelSupport::Supported | KernelSupport::Unknown => {
                (Outcome::NothingToApply, ReasonCode::NoPayload)
            }
        };
        return Some(decision(outcome, code, support));
    };
    // A payload for exactly this kernel proves that patches are made for it, whatever the table says.
    let mut support = catalog.support().of_kernel(
        (first.kernel.base(), first.kernel.flavour()),
        Some(architecture),
        facts.build_date,
        facts.today,
    );
    if support.verdict == KernelSupport::Unsupported {
        support.verdict = KernelSupport::Supported;
    }
    let mut result = decision(Outcome::NothingToApply, ReasonCode::NoneAvailable, support);

    // A version the machine runs binds unless it was blocked; one we do not know binds too.
    let withdrawn = facts.applied.is_some_and(|applied| {
        payloads
            .iter()
            .any(|p| p.version == applied && p.standing == Standing::Blocked)
    });
    let floor = facts.applied.filter(|_| !withdrawn);
    for (index, payload) in payloads.iter().enumerate() {
        if floor.is_some_and(|floor| payload.version < floor) {
            break;
        }
        result.passed = &payloads[..index];
        if floor == Some(payload.version) {
            (result.outcome, result.code) = if asks.unavailable(payload).is_none() {
                (Outcome::UpToDate, ReasonCode::UpToDate)
            } else {
                (Outcome::KeepsHigher, ReasonCode::KeepsHigher)
            };
            return Some(result);
        }
        if asks.stops(payload).is_none() {
            result.outcome = Outcome::Offer;
            result.code = ReasonCode::Offered;
            result.payload = Some(payload);
            return Some(result);
        }
        result.passed = &payloads[..=index];
    }
    if floor.is_some() {
        result.outcome = Outcome::KeepsHigher;
        result.code = ReasonCode::KeepsHigher;
    } else if withdrawn {
        result.code = ReasonCode::WithdrawnNoFallback;
    } else if support.verdict == KernelSupport::KernelUpgradeRequired {
        result.outcome = Outcome::KernelUpgradeRequired;
        result.code = ReasonCode::KernelUpgradeRequired;
    }
    Some(result)
}
