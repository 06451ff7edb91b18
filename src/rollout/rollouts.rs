//! The rollouts as requests see them: which tiers have a policy, how far each patch has come in each of them, and whether a
//! machine is let in now.
//!
//! Invariants: a tier without a policy lets everybody in. In a tier with one nobody is let in before a rollout of that patch has
//! begun there. A halt stops its patch in every tier, with or without a policy.

use super::catalog::Payload;
use super::cohort::{PLACES, place};
use super::reason::ReasonCode;
use crate::domain::policy::{Opening, Policy};
use crate::domain::selector::{Selector, Test, Traits};
use crate::domain::{LabelKey, Labels, MachineId, PatchVersion, Scope};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// How a rollout stands; the discriminant is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum RolloutState {
    /// A second person must approve it first.
    AwaitingApproval = 1,
    /// It advances by itself.
    Running = 2,
    /// A person stopped it for a while.
    Paused = 3,
    /// It stopped itself, because of what machines reported.
    Halted = 4,
    /// Everybody is let in.
    Done = 5,
    /// A person ended it.
    Aborted = 6,
}

impl RolloutState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::AwaitingApproval,
        Self::Running,
        Self::Paused,
        Self::Halted,
        Self::Done,
        Self::Aborted,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingApproval => "awaiting-approval",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Halted => "halted",
            Self::Done => "done",
            Self::Aborted => "aborted",
        }
    }

    /// The number stored in the database.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The inverse of [`Self::code`].
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }
}

/// A value of a label, e.g. `rack` and `r12`.
pub type LabelValue = (String, String);

/// The labels that a policy speaks of.
pub fn labels_of(policy: &Policy) -> impl Iterator<Item = &str> {
    let caps = policy.label_caps.iter().map(|cap| cap.label.as_str());
    let terms = policy.hold_back.iter().flat_map(Selector::terms);
    let held = terms.filter_map(|term| match &term.test {
        Test::Label(key, _) => Some(key.as_str()),
        _ => None,
    });
    caps.chain(held)
}

/// A rollout: one patch, or the part of it under a scope, in one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Database id.
    pub id: i64,
    /// Patch.
    pub version: PatchVersion,
    /// Tier.
    pub tier_id: i32,
    /// For which kernels.
    pub scope: Scope,
    /// How it stands.
    pub state: RolloutState,
    /// Number of its phase, from 0.
    pub phase: usize,
    /// Machines whose place is below this are let in.
    pub threshold: u64,
    /// Thresholds of single label values, where the policy caps them; a value that is not here lets nobody in yet.
    pub limits: HashMap<LabelValue, u64>,
}

/// All policies and rollouts.
#[derive(Debug, Clone, Default)]
pub struct Rollouts {
    policies: HashMap<i32, Arc<Policy>>,
    by_patch: HashMap<(i32, PatchVersion), Vec<Rollout>>,
    halted: HashMap<PatchVersion, Vec<Scope>>,
    labels: HashMap<String, HashMap<MachineId, Arc<str>>>,
}

impl Rollouts {
    /// Indexes policies, by tier id, and rollouts.
    pub fn new(
        policies: impl IntoIterator<Item = (i32, Arc<Policy>)>,
        rollouts: impl IntoIterator<Item = Rollout>,
    ) -> Self {
        let mut all = Self {
            policies: policies.into_iter().collect(),
            ..Self::default()
        };
        for rollout in rollouts {
            if rollout.state == RolloutState::Halted {
                let halted = all.halted.entry(rollout.version).or_default();
                halted.push(rollout.scope.clone());
            }
            let of_patch = all.by_patch.entry((rollout.tier_id, rollout.version));
            of_patch.or_default().push(rollout);
        }
        all
    }

    /// The same with the values that machines have of the labels that policies cap.
    #[must_use]
    pub fn with_labels(
        mut self,
        labels: impl IntoIterator<Item = (String, MachineId, String)>,
    ) -> Self {
        let mut known: HashSet<Arc<str>> = HashSet::new();
        for (label, machine, value) in labels {
            let value = known
                .get(value.as_str())
                .map_or_else(|| Arc::from(value.as_str()), Arc::clone);
            known.insert(Arc::clone(&value));
            self.labels.entry(label).or_default().insert(machine, value);
        }
        self
    }

    /// Whether there is neither a policy nor a halt, so that nothing here has a say.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.halted.is_empty()
    }

    /// A tier's policy.
    pub fn policy(&self, tier_id: i32) -> Option<&Arc<Policy>> {
        self.policies.get(&tier_id)
    }

    /// The rollouts of a patch in a tier.
    pub fn of(&self, tier_id: i32, version: PatchVersion) -> &[Rollout] {
        self.by_patch
            .get(&(tier_id, version))
            .map_or(&[], Vec::as_slice)
    }

    /// Every rollout, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Rollout> {
        self.by_patch.values().flatten()
    }

    /// The labels that policies speak of.
    pub fn labels_asked(&self) -> HashSet<&str> {
        self.policies
            .values()
            .flat_map(|policy| labels_of(policy))
            .collect()
    }

    /// Why a payload, which is available in the tier, is not offered to this machine now; `None` if it is. Of several rollouts
    /// that speak of its kernel the kindest counts.
    pub fn stops(
        &self,
        tier_id: i32,
        payload: &Payload,
        machine: &MachineId,
        now: Timestamp,
    ) -> Option<ReasonCode> {
        let covers = |scope: &Scope| scope.covers(&payload.kernel, payload.architecture);
        let halted = self.halted.get(&payload.version);
        if halted.is_some_and(|scopes| scopes.iter().any(covers)) {
            return Some(ReasonCode::Halted);
        }
        let policy = self.policies.get(&tier_id)?;
        let mut reason = Some(ReasonCode::RolloutNotBegun);
        for rollout in self.of(tier_id, payload.version) {
            if covers(&rollout.scope) {
                reason = self.stopped_by(rollout, policy, payload, machine, now);
                if reason.is_none() {
                    break;
                }
            }
        }
        reason
    }

    /// Whether a selector means a machine that runs the payload's kernel.
    fn means(&self, selector: &Selector, payload: &Payload, machine: &MachineId) -> bool {
        let keys = selector.terms().iter().filter_map(|term| match &term.test {
            Test::Label(key, _) => Some(key),
            _ => None,
        });
        let labels: BTreeMap<LabelKey, crate::domain::LabelValue> = keys
            .filter_map(|key| {
                let value = self.labels.get(key.as_str())?.get(machine)?;
                Some((key.clone(), value.parse().ok()?))
            })
            .collect();
        selector.matches(&Traits {
            kernel: Some(&payload.kernel.to_string()),
            architecture: Some(payload.architecture),
            labels: &Labels::try_from(labels).unwrap_or_default(),
        })
    }

    fn stopped_by(
        &self,
        rollout: &Rollout,
        policy: &Policy,
        payload: &Payload,
        machine: &MachineId,
        now: Timestamp,
    ) -> Option<ReasonCode> {
        match rollout.state {
            RolloutState::AwaitingApproval => return Some(ReasonCode::AwaitingApproval),
            RolloutState::Paused => return Some(ReasonCode::RolloutPaused),
            RolloutState::Halted => return Some(ReasonCode::Halted),
            RolloutState::Aborted => return Some(ReasonCode::RolloutAborted),
            RolloutState::Running | RolloutState::Done => {}
        }
        match policy.schedule.at(now) {
            Opening::Frozen(_) => return Some(ReasonCode::Frozen),
            Opening::OutsideWindow => return Some(ReasonCode::OutsideWindow),
            Opening::Open => {}
        }
        if rollout.state == RolloutState::Done {
            return None;
        }
        let last = rollout.phase + 1 >= policy.phases.len();
        let held_back = policy.hold_back.as_ref().filter(|_| !last);
        if held_back.is_some_and(|selector| self.means(selector, payload, machine)) {
            return Some(ReasonCode::HeldBack);
        }
        let capped = !policy.label_caps.is_empty();
        if rollout.threshold >= PLACES && !capped {
            return None;
        }
        let place = place(rollout.version, machine);
        if place >= rollout.threshold {
            return Some(ReasonCode::NotYet);
        }
        let over = policy.label_caps.iter().any(|cap| {
            let values = self.labels.get(&cap.label);
            values
                .and_then(|values| values.get(machine))
                .is_some_and(|value| {
                    let key = (cap.label.clone(), value.to_string());
                    rollout.limits.get(&key).is_none_or(|limit| place >= *limit)
                })
        });
        over.then_some(ReasonCode::LabelCap)
    }
}
