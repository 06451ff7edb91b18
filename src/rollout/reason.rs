//! Why: the closed list of reasons. API, `explain`, logs and console all show these codes and texts.

use crate::domain::{PatchVersion, TierName};

/// A reason's code, stable for programs; the text is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReasonCode {
    /// The offer: the highest version that is available to this machine.
    Offered,
    /// The machine runs the highest version that is available to it.
    UpToDate,
    /// The machine runs a higher version than its tier offers and keeps it: no machine is taken back.
    KeepsHigher,
    /// What the machine runs was withdrawn, and nothing lower is available.
    WithdrawnNoFallback,
    /// No patch has a payload for this kernel and architecture.
    NoPayload,
    /// Payloads exist, but none is available to this machine now.
    NoneAvailable,
    /// Passed over: has not reached the machine's tier.
    NotInTier,
    /// Passed over: blocked.
    Blocked,
    /// Passed over: held.
    Held,
    /// Passed over: its object does not verify.
    Damaged,
    /// Passed over: its rollout stopped itself because of what machines reported.
    Halted,
    /// Passed over: the tier has a policy, and no rollout of it has begun there yet.
    RolloutNotBegun,
    /// Passed over: its rollout waits for a second person.
    AwaitingApproval,
    /// Passed over: a person paused its rollout.
    RolloutPaused,
    /// Passed over: a person ended its rollout.
    RolloutAborted,
    /// Passed over: the tier is frozen at this time.
    Frozen,
    /// Passed over: no maintenance window of the tier is open.
    OutsideWindow,
    /// Passed over: its rollout has not come to this machine's place.
    NotYet,
    /// Passed over: the policy lets machines like this one in only in the last phase.
    HeldBack,
    /// Passed over: as many machines with this machine's label as may be at it at a time are.
    LabelCap,
    /// The kernel must be upgraded before patches can be had.
    KernelUpgradeRequired,
    /// The series is no longer covered.
    KernelEndOfLife,
    /// Patches are not made for this kernel.
    KernelUnsupported,
    /// The machine did not say which kernel or architecture it runs, or not in a form that is known.
    KernelUnknown,
}

impl ReasonCode {
    /// Every code.
    pub const ALL: [Self; 24] = [
        Self::Offered,
        Self::UpToDate,
        Self::KeepsHigher,
        Self::WithdrawnNoFallback,
        Self::NoPayload,
        Self::NoneAvailable,
        Self::NotInTier,
        Self::Blocked,
        Self::Held,
        Self::Damaged,
        Self::Halted,
        Self::RolloutNotBegun,
        Self::AwaitingApproval,
        Self::RolloutPaused,
        Self::RolloutAborted,
        Self::Frozen,
        Self::OutsideWindow,
        Self::NotYet,
        Self::HeldBack,
        Self::LabelCap,
        Self::KernelUpgradeRequired,
        Self::KernelEndOfLife,
        Self::KernelUnsupported,
        Self::KernelUnknown,
    ];

    /// The code as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::UpToDate => "up-to-date",
            Self::KeepsHigher => "keeps-higher",
            Self::WithdrawnNoFallback => "withdrawn-no-fallback",
            Self::NoPayload => "no-payload",
            Self::NoneAvailable => "none-available",
            Self::NotInTier => "not-in-tier",
            Self::Blocked => "blocked",
            Self::Held => "held",
            Self::Damaged => "damaged",
            Self::Halted => "halted",
            Self::RolloutNotBegun => "rollout-not-begun",
            Self::AwaitingApproval => "awaiting-approval",
            Self::RolloutPaused => "rollout-paused",
            Self::RolloutAborted => "rollout-aborted",
            Self::Frozen => "frozen",
            Self::OutsideWindow => "outside-window",
            Self::NotYet => "not-yet",
            Self::HeldBack => "held-back",
            Self::LabelCap => "label-cap",
            Self::KernelUpgradeRequired => "kernel-upgrade-required",
            Self::KernelEndOfLife => "kernel-end-of-life",
            Self::KernelUnsupported => "kernel-unsupported",
            Self::KernelUnknown => "kernel-unknown",
        }
    }
}

/// A version that was passed over, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skip<'s> {
    /// The version.
    pub version: PatchVersion,
    /// Why: one of the codes for what was passed over.
    pub code: ReasonCode,
    /// With `NotInTier`: the last tier it has reached.
    pub reached: Option<&'s TierName>,
}

impl Skip<'_> {
    /// The sentence for people.
    pub fn text(&self, tier: &TierName) -> String {
        let version = self.version;
        match (self.code, self.reached) {
            (ReasonCode::NotInTier, Some(reached)) => {
                format!("{version} is not offered: it has reached tier {reached}, not yet {tier}")
            }
            (ReasonCode::NotInTier, None) => {
                format!("{version} is not offered: it has not been promoted for this kernel")
            }
            (ReasonCode::Blocked, _) => format!("{version} is not offered: it is blocked"),
            (ReasonCode::Held, _) => format!("{version} is not offered: it is held"),
            (ReasonCode::Halted, _) => {
                format!(
                    "{version} is not offered: its rollout halted, because too many machines failed with it"
                )
            }
            (ReasonCode::RolloutNotBegun, _) => {
                format!("{version} is not offered: its rollout in tier {tier} has not begun")
            }
            (ReasonCode::AwaitingApproval, _) => {
                format!(
                    "{version} is not offered: its rollout in tier {tier} awaits the approval of a second person"
                )
            }
            (ReasonCode::RolloutPaused, _) => {
                format!("{version} is not offered: its rollout in tier {tier} is paused")
            }
            (ReasonCode::RolloutAborted, _) => {
                format!("{version} is not offered: its rollout in tier {tier} was aborted")
            }
            (ReasonCode::Frozen, _) => {
                format!("{version} is not offered now: tier {tier} is frozen")
            }
            (ReasonCode::OutsideWindow, _) => {
                format!(
                    "{version} is not offered now: no maintenance window of tier {tier} is open"
                )
            }
            (ReasonCode::NotYet, _) => {
                format!(
                    "{version} is not offered yet: its rollout in tier {tier} has not come to this machine"
                )
            }
            (ReasonCode::HeldBack, _) => {
                format!(
                    "{version} is not offered yet: the policy of tier {tier} lets machines like this one in only in the last phase"
                )
            }
            (ReasonCode::LabelCap, _) => {
                format!(
                    "{version} is not offered yet: as many machines with this machine's label as may be at it at a time in tier {tier} are"
                )
            }
            _ => format!("{version} is not offered: its object in storage does not verify"),
        }
    }
}
