//! What goes wrong with a patch on some machines, for simulations: `patch=107.1,rate=0.02,state=apply-failed`.

use super::policy::Share;
use super::{MachineId, MachineState, ParseError, PatchVersion, Sha256};
use std::fmt;
use std::str::FromStr;

/// What a machine does that a patch is bad for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It reports this state.
    Reports(MachineState),
    /// It goes silent.
    Crashes,
}

/// A patch that is bad for a share of the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which patch; `None`: every one.
    pub patch: Option<PatchVersion>,
    /// For which share of the machines.
    pub rate: Share,
    /// What happens to them.
    pub harm: Harm,
}

impl Fault {
    /// Whether this patch is bad for this machine. The same patch is bad for the same machines in every run.
    pub fn strikes(&self, version: PatchVersion, machine: &MachineId) -> bool {
        if self.patch.is_some_and(|patch| patch != version) {
            return false;
        }
        let digest = Sha256::of(
            &[
                b"fault".as_slice(),
                &version.code().to_be_bytes(),
                &machine.0,
            ]
            .concat(),
        );
        let [a, b, c, d, ..] = digest.0;
        let place = u64::from(u32::from_be_bytes([a, b, c, d]));
        place < self.rate.of(1 << 32)
    }
}

/// Reads `2%` or `0.02`.
fn rate(text: &str) -> Result<Share, ParseError> {
    if text.ends_with('%') {
        return text.parse();
    }
    let err = || {
        ParseError::new(
            "rate",
            text,
            "a share from 0 to 1 or a percentage expected, e.g. 0.02 or 2%",
        )
    };
    let share: f64 = text.parse().map_err(|_| err())?;
    if (0.0..=1.0).contains(&share) {
        Ok(Share::millionths((share * 1e6).round() as u32))
    } else {
        Err(err())
    }
}

impl FromStr for Fault {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = |why: String| ParseError::new("fault", text, why);
        let mut fault = Self {
            patch: None,
            rate: Share::ALL,
            harm: Harm::Reports(MachineState::ApplyFailed),
        };
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| err(format!("{part:?} has no value; write e.g. rate=0.02")))?;
            match key {
                "patch" => fault.patch = Some(value.parse()?),
                "rate" => fault.rate = rate(value)?,
                "state" if value == "crash" => fault.harm = Harm::Crashes,
                "state" => {
                    let state: MachineState = value.parse()?;
                    if !state.is_failure() {
                        return Err(err(format!(
                            "{value} is no failure; write apply-failed, applied-with-bug or crash"
                        )));
                    }
                    fault.harm = Harm::Reports(state);
                }
                _ => {
                    return Err(err(format!(
                        "{key:?} is not known; patch, rate and state are"
                    )));
                }
            }
        }
        Ok(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.patch {
            Some(patch) => write!(f, "{patch} ")?,
            None => write!(f, "the patch ")?,
        }
        match self.harm {
            Harm::Reports(state) => write!(f, "ends in {state} on {} of the machines", self.rate),
            Harm::Crashes => write!(f, "silences {} of the machines", self.rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_strike_a_share() {
        let fault: Fault = "patch=107.1,rate=0.02,state=apply-failed".parse().unwrap();
        assert_eq!(
            fault.to_string(),
            "107.1 ends in apply-failed on 2% of the machines"
        );
        assert_eq!(
            "rate=2%, state=crash".parse::<Fault>().unwrap().harm,
            Harm::Crashes
        );
        let version = "107.1".parse().unwrap();
        let machine = |n: u32| MachineId(u128::from(n + 1).to_be_bytes());
        let struck = (0..10_000)
            .filter(|n| fault.strikes(version, &machine(*n)))
            .count();
        assert!((130..=270).contains(&struck), "{struck}");
        assert!(!fault.strikes("107.2".parse().unwrap(), &machine(1)));
        for bad in [
            "rate",
            "rate=2",
            "state=applied",
            "state=broken",
            "patch=x",
            "share=1%",
        ] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }
}
