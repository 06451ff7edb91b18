//! Places: where a machine stands in the line for a patch.
//!
//! A machine's place is a hash of patch and machine, so that it never changes for that patch, is spread evenly over all places, and
//! is another one for the next patch. A rollout admits the places below its threshold, which only grows: widening takes no offer
//! back, and a machine that registers later falls into its place.

use crate::domain::policy::Share;
use crate::domain::{MachineId, PatchVersion};

/// All places. A threshold of this admits everybody.
pub const PLACES: u64 = 1 << 32;

/// The place of a machine in the line for a patch, below [`PLACES`].
pub fn place(version: PatchVersion, machine: &MachineId) -> u64 {
    let mut hasher = openssl::sha::Sha256::new();
    hasher.update(&version.code().to_be_bytes());
    hasher.update(&machine.0);
    let [a, b, c, d, ..] = hasher.finish();
    u64::from(u32::from_be_bytes([a, b, c, d]))
}

/// The threshold that admits this share of all machines.
pub fn threshold(share: Share) -> u64 {
    share.of(PLACES)
}

/// How many places so many of `population` machines take up, as far as there are places; all of them if nobody is there.
pub fn places_for(machines: u64, population: u64) -> u64 {
    if machines >= population {
        return PLACES;
    }
    let places = u128::from(machines) * u128::from(PLACES) / u128::from(population);
    u64::try_from(places).unwrap_or(PLACES)
}

/// The share of machines that a threshold admits, to the nearest millionth.
pub fn share_of(threshold: u64) -> Share {
    let millionths =
        (u128::from(threshold) * 1_000_000 + u128::from(PLACES / 2)) / u128::from(PLACES);
    Share::millionths(u32::try_from(millionths).unwrap_or(1_000_000))
}
