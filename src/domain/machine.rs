//! What a machine can say of itself and what can be said of its kernel. The words are Canonical's.

use super::{ParseError, PatchVersion, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// A closed list of words with database codes, written and read in kebab case.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $what:literal, { $($(#[$vmeta:meta])* $variant:ident = $code:literal => $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum $name {
            $($(#[$vmeta])* $variant = $code,)*
        }

        impl $name {
            /// Every word, in the order of the database codes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The number stored in the database: append only.
            pub const fn code(self) -> i16 {
                self as i16
            }

            /// The inverse of [`Self::code`].
            pub fn from_code(code: i16) -> Option<Self> {
                Self::ALL.iter().copied().find(|w| w.code() == code)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::ALL.iter().copied().find(|w| w.as_str() == text).ok_or_else(|| {
                    let words: Vec<_> = Self::ALL.iter().map(|w| w.as_str()).collect();
                    ParseError::new($what, text, format!("one of {} expected", words.join(", ")))
                })
            }
        }

        serde_as_str!($name);
    };
}

words! {
    /// The state of the patch on a machine, as the client reports it.
    MachineState, "machine state", {
        /// Nothing is known, e.g. registered but never checked in.
        Unknown = 0 => "unknown",
        /// The newest patch is applied.
        Applied = 1 => "applied",
        /// Inserting the patch failed.
        ApplyFailed = 2 => "apply-failed",
        /// A patch is there but not applied.
        Unapplied = 3 => "unapplied",
        /// The machine has not asked yet.
        NeedsCheck = 4 => "needs-check",
        /// No patch exists for this kernel.
        NothingToApply = 5 => "nothing-to-apply",
        /// Asking the server failed.
        CheckFailed = 6 => "check-failed",
        /// Applied, and the kernel complained.
        AppliedWithBug = 7 => "applied-with-bug",
        /// The kernel must be upgraded before patches can be had.
        KernelUpgradeRequired = 8 => "kernel-upgrade-required",
    }
}

impl MachineState {
    /// Reads the state tolerantly: any case, `_` for `-`; what is not known is `unknown`.
    pub fn read(text: &str) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|w| {
                text.len() == w.as_str().len()
                    && text.bytes().zip(w.as_str().bytes()).all(|(a, b)| {
                        let a = if a == b'_' || a == b' ' {
                            b'-'
                        } else {
                            a.to_ascii_lowercase()
                        };
                        a == b
                    })
            })
            .unwrap_or(Self::Unknown)
    }

    /// Whether the version that is reported beside this state really is in the kernel.
    pub const fn runs_patch(self) -> bool {
        matches!(self, Self::Applied | Self::AppliedWithBug)
    }

    /// Whether the state says that a patch did harm or could not be inserted.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::ApplyFailed | Self::AppliedWithBug)
    }
}

/// One state or several, as queries ask for them: `applied`, or `apply-failed,applied-with-bug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States(Vec<MachineState>);

impl States {
    /// All that are of a kind, e.g. [`MachineState::is_failure`].
    pub fn those(kind: impl Fn(MachineState) -> bool) -> Self {
        let all = MachineState::ALL.iter().copied();
        Self(all.filter(|state| kind(*state)).collect())
    }

    /// Whether a state is among them.
    pub fn contains(&self, state: MachineState) -> bool {
        self.0.contains(&state)
    }

    /// A bit for each of their codes.
    pub fn bits(&self) -> i64 {
        let codes = self.0.iter().map(|state| state.code());
        codes.fold(0, |bits, code| bits | 1 << code)
    }

    /// The state, if it is one.
    pub fn only(&self) -> Option<MachineState> {
        match self.0[..] {
            [state] => Some(state),
            _ => None,
        }
    }
}

impl fmt::Display for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(|state| state.as_str()).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for States {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.split(',')
            .map(|word| word.trim().parse())
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

serde_as_str!(States);

words! {
    /// What came of a patch on a machine that reports it or was offered it last.
    Fate, "fate", {
        /// Nothing yet: it is not in the kernel, and did not fail.
        Waiting = 0 => "waiting",
        /// It did harm or could not be inserted.
        Failed = 1 => "failed",
        /// It is in the kernel, and nothing is wrong with it.
        Applied = 2 => "applied",
        /// Whatever it is.
        Any = 3 => "any",
    }
}

impl Fate {
    /// That of a patch on a machine which reports this and was last offered that; `None` if it is about other patches. Never
    /// [`Fate::Any`].
    pub fn of(
        patch: PatchVersion,
        reported: Option<PatchVersion>,
        state: MachineState,
        offered: Option<PatchVersion>,
    ) -> Option<Self> {
        if reported != Some(patch) && offered != Some(patch) {
            None
        } else if state.is_failure() {
            Some(Self::Failed)
        } else if reported == Some(patch) && state.runs_patch() {
            Some(Self::Applied)
        } else {
            Some(Self::Waiting)
        }
    }

    /// Whether this is what is asked for.
    pub fn is(self, asked: Self) -> bool {
        asked == Self::Any || asked == self
    }
}

words! {
    /// Whether live patches are made for a kernel.
    KernelSupport, "kernel support", {
        /// Not in the table, or the build date is not known.
        Unknown = 0 => "unknown",
        /// Patches are made for it.
        Supported = 1 => "supported",
        /// Its interval has passed; a newer kernel of the series is covered.
        KernelUpgradeRequired = 2 => "kernel-upgrade-required",
        /// Its series is no longer covered.
        KernelEndOfLife = 3 => "kernel-end-of-life",
        /// Never covered: wrong flavour, architecture or series.
        Unsupported = 4 => "unsupported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_tolerantly_and_stored_by_code() {
        assert_eq!(MachineState::read("Applied"), MachineState::Applied);
        assert_eq!(
            MachineState::read("APPLY_FAILED"),
            MachineState::ApplyFailed
        );
        assert_eq!(MachineState::read("on fire"), MachineState::Unknown);
        for state in MachineState::ALL {
            assert_eq!(MachineState::from_code(state.code()), Some(*state));
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        assert!("Applied".parse::<MachineState>().is_err());
        // The database's queries name these two codes.
        let running: Vec<i16> = MachineState::ALL
            .iter()
            .filter(|s| s.runs_patch())
            .map(|s| s.code())
            .collect();
        assert_eq!(running, [1, 7]);
    }
}
