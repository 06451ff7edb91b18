//! The machines of a fleet: everything about number `n` follows from the seed and `n`, so that the same fleet comes back
//! in every run.

use super::kernels::{Kernel, Spread};
use crate::domain::{MachineId, MachineState, PatchVersion, Sha256};
use crate::wire::{LivepatchStatus, StatusDocument, StatusEntry};
use jiff::{SignedDuration, Timestamp};

/// Processors that machines say they have; a few, as at a real site.
const CPU_MODELS: [&str; 6] = [
    "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
    "Intel(R) Xeon(R) Platinum 8488C",
    "AMD EPYC 7763 64-Core Processor",
    "AMD EPYC 9654 96-Core Processor",
    "Neoverse-N1",
    "Intel(R) Core(TM) i7-1185G7 @ 3.00GHz",
];

/// The longest a machine has been up when the run begins, in seconds: live patching is there for long uptimes.
const UPTIME: u64 = 120 * 24 * 3600;

/// What a machine says of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runs {
    /// None.
    #[default]
    Nothing,
    /// This one is applied.
    Applied(PatchVersion),
    /// This one failed, in this way.
    Failed(MachineState, PatchVersion),
}

/// One machine, as far as it is told by its number.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// Its id.
    pub id: MachineId,
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// Its processor.
    pub cpu_model: &'static str,
    /// Seconds it was up when the run began.
    pub uptime: u64,
}

/// A digest that only the seed and the number determine.
fn digest(seed: u64, number: u32, purpose: &str) -> [u8; 32] {
    Sha256::of(format!("livepatch fleet {purpose} {seed} {number}").as_bytes()).0
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

/// The id of machine `n` of the fleet `seed`.
pub fn id(seed: u64, n: u32) -> MachineId {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(seed, n, "machine")[..16]);
    MachineId(bytes)
}

/// Machine `n` of the fleet `seed`.
pub fn machine(seed: u64, n: u32, spread: &Spread) -> Machine<'_> {
    let facts = digest(seed, n, "facts");
    Machine {
        id: id(seed, n),
        kernel: spread.pick(number(&facts[..8])),
        cpu_model: CPU_MODELS[(number(&facts[8..16]) % CPU_MODELS.len() as u64) as usize],
        uptime: number(&facts[16..24]) % UPTIME,
    }
}

impl Machine<'_> {
    /// What it reports of what it runs; `begun` is when the run began.
    pub fn status(&self, runs: Runs, begun: Timestamp) -> StatusDocument {
        let boot_time = begun
            .checked_sub(SignedDuration::from_secs(self.uptime as i64))
            .ok();
        let (state, version) = match runs {
            Runs::Nothing => (MachineState::NothingToApply, None),
            Runs::Applied(version) => (MachineState::Applied, Some(version)),
            // A patch that could not be inserted is not in the kernel.
            Runs::Failed(MachineState::ApplyFailed, _) => (MachineState::ApplyFailed, None),
            Runs::Failed(state, version) => (state, Some(version)),
        };
        StatusDocument {
            client_version: concat!("fleet-", env!("CARGO_PKG_VERSION")).to_owned(),
            machine_id: self.id,
            architecture: self.kernel.architecture,
            cpu_model: self.cpu_model.to_owned(),
            last_check: None,
            boot_time,
            uptime: self.uptime.to_string(),
            status: vec![StatusEntry {
                kernel: self.kernel.version.to_string(),
                running: true,
                livepatch: LivepatchStatus {
                    check_state: "checked".to_owned(),
                    state: state.to_string(),
                    version: version.map(|v| v.to_string()).unwrap_or_default(),
                    fixes: Vec::new(),
                },
                supported: None,
                upgrade_required_date: None,
            }],
            tier: None,
            auth_token: None,
            kernel_build_date: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_fleet_is_the_same_each_time() {
        // Written out: a change of these would make every existing fleet a new one.
        assert_eq!(id(1, 0).to_string(), "987274a5e09a3c0dd0af31f8c5c13ce0");
        assert_eq!(id(1, 1).to_string(), "3981c624b0830dc17e8ea6abd694b49f");
        let spread = Spread::built_in().unwrap();
        let (one, again) = (machine(7, 41, &spread), machine(7, 41, &spread));
        assert_eq!((one.id, one.uptime), (again.id, again.uptime));
        assert_eq!(one.kernel, again.kernel);
    }

    #[test]
    fn machines_and_fleets_differ() {
        let ids: HashSet<_> = (0..5000).flat_map(|n| [id(1, n), id(2, n)]).collect();
        assert_eq!(ids.len(), 10_000);
        let spread = Spread::built_in().unwrap();
        let kernels: HashSet<_> = (0..5000)
            .map(|n| machine(1, n, &spread).kernel.version.to_string())
            .collect();
        assert!(kernels.len() > 15, "{}", kernels.len());
    }
}
