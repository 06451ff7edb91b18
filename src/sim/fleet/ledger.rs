//! What the server acknowledged, kept by those who were told: the other half of a proof that nothing was lost.
//!
//! The file has a line `MACHINE-ID COUNT SENT-AT` for each machine that was acknowledged at least one check-in:
//! how many, and when the last of them was sent, in unix microseconds by the clock of the machine the fleet runs on.
//! A server that lost none has a check-in of each of these machines that is not older than that.

use super::machines;
use super::register::Member;
use crate::domain::MachineId;
use crate::sim::error::{Error, file};
use std::io::Write;
use std::path::Path;

/// The check-ins of one machine that were acknowledged as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// How many.
    pub count: u64,
    /// When the last of them was sent, in unix microseconds.
    pub sent_at: i64,
}

impl Entry {
    /// Adds a check-in that was sent then.
    pub(super) fn acknowledged(&mut self, sent_at: i64) {
        self.count += 1;
        self.sent_at = self.sent_at.max(sent_at);
    }
}

/// Writes the file; `entries` are in the order of the members.
pub(super) fn write(
    path: &Path,
    seed: u64,
    members: &[Member],
    entries: &[Entry],
) -> Result<(), Error> {
    let wrong = |e: std::io::Error| file("write", path, e);
    let mut out = std::io::BufWriter::new(std::fs::File::create(path).map_err(wrong)?);
    for (member, entry) in members.iter().zip(entries) {
        if entry.count > 0 {
            let id = machines::id(seed, member.number);
            writeln!(out, "{id} {} {}", entry.count, entry.sent_at).map_err(wrong)?;
        }
    }
    out.into_inner()
        .map_err(|e| wrong(e.into_error()))
        .map(drop)
}

/// Reads the file back.
pub fn read(path: &Path) -> Result<Vec<(MachineId, Entry)>, Error> {
    let text = std::fs::read_to_string(path).map_err(|e| file("read", path, e))?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next()?.parse().ok()?;
        let count = words.next()?.parse().ok()?;
        let sent_at = words.next()?.parse().ok()?;
        words
            .next()
            .is_none()
            .then_some((id, Entry { count, sent_at }))
    };
    text.lines()
        .map(|text| line(text).ok_or_else(|| file("use", path, "it is not a ledger of a fleet")))
        .collect()
}
