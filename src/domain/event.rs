//! Kinds of events that webhooks are told of, and how one chooses among them. The names are for programs and never change.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// Writes the table of kinds; one line each, so that it can be read as a table.
macro_rules! kinds {
    ($($variant:ident $name:literal $about:literal;)*) => {
        /// What happened. A closed set: each kind stands in `docs/reference/events.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum EventKind {
            $(#[doc = $about] $variant,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name, `noun.what-happened`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it says, in one line.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

kinds! {
    SyncCompleted "sync.completed" "A run of sync or an import came to its end, with or without anything new.";
    SyncFailed "sync.failed" "A run of sync or an import failed.";
    SyncWaiting "sync.waiting" "A run of sync waits for a person: `livepatch-admin sync confirm`.";
    PatchArrived "patch.arrived" "A patch that was never seen before is here.";
    PatchPromoted "patch.promoted" "A patch, or a part of it, reached a tier.";
    PatchBlocked "patch.blocked" "A patch, or a part of it, was withdrawn.";
    PatchUnblocked "patch.unblocked" "A block was lifted.";
    PatchHeld "patch.held" "A patch, or a part of it, is offered to nobody anew.";
    PatchResumed "patch.resumed" "A hold was lifted.";
    PayloadQuarantined "payload.quarantined" "A file was refused at the door and is kept apart.";
    RolloutStarted "rollout.started" "A rollout began.";
    RolloutAdvanced "rollout.advanced" "A rollout entered its next phase.";
    RolloutHalted "rollout.halted" "A rollout was stopped by its gate or by a person; the patch is offered to nobody anew.";
    RolloutResumed "rollout.resumed" "A rollout that was halted goes on.";
    RolloutCompleted "rollout.completed" "A rollout reached every machine of its tier.";
    RolloutAborted "rollout.aborted" "A rollout was given up by a person.";
    RolloutApprovalNeeded "rollout.approval-needed" "A rollout waits for a second person.";
    CoverageChanged "coverage.changed" "The table of supported kernels changed, and with it which machines are covered.";
    WebhookTest "webhook.test" "Somebody tries this webhook out.";
}

impl EventKind {
    /// The first part of the name, e.g. `patch`.
    pub fn noun(self) -> &'static str {
        self.as_str().split('.').next().unwrap_or_default()
    }

    /// What chooses every kind of the same noun, e.g. `patch.*`.
    pub fn group(self) -> String {
        format!("{}.*", self.noun())
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| ParseError::new("kind of event", text, expected()))
    }
}

serde_as_str!(EventKind);

fn expected() -> String {
    let names: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    format!("known are {}, and groups such as patch.*", names.join(", "))
}

/// A kind, or all kinds of a noun: `patch.promoted` or `patch.*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventPattern(String);

impl EventPattern {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it chooses this kind.
    pub fn chooses(&self, kind: EventKind) -> bool {
        self.0 == kind.as_str() || self.0 == kind.group()
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for EventPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let pattern = Self(text.to_owned());
        if EventKind::ALL.iter().any(|kind| pattern.chooses(*kind)) {
            Ok(pattern)
        } else {
            Err(ParseError::new("kind of event", text, expected()))
        }
    }
}

serde_as_str!(EventPattern);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_read_back() {
        let names: BTreeSet<_> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(kind.as_str().split('.').count(), 2, "{kind}");
            assert!(kind.about().ends_with('.'), "{kind}");
        }
    }

    #[test]
    fn patterns_choose_a_kind_or_a_noun() {
        let chosen = |pattern: &str| {
            let pattern: EventPattern = pattern.parse().unwrap();
            let all = EventKind::ALL.iter();
            all.filter(|kind| pattern.chooses(**kind)).count()
        };
        assert_eq!((chosen("patch.*"), chosen("patch.blocked")), (6, 1));
        for wrong in ["", "*", "patch", "patch.", "patch.b*", "Patch.*", "pat.*"] {
            let error = wrong.parse::<EventPattern>().unwrap_err();
            assert!(error.to_string().contains("patch.promoted"), "{error}");
        }
    }
}
