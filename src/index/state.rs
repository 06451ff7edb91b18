//! A state: every record of an index as one sorted text, its digest, and the difference between two of them.
//!
//! Invariant: the text of a [`State`] is the sorted lines of records that all parse, each once, and so the same state always has
//! the same digest.

use crate::bundle::BundleName;
use crate::domain::Sha256;
use crate::wire::sync::{PayloadRecord, Record};
use std::collections::{BTreeMap, BTreeSet};

/// A whole index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    lines: BTreeSet<String>,
}

/// Why a text is no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A line cannot be read.
    #[error("line {line} of the index cannot be read: {why}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why not.
        why: String,
    },
    /// The lines are not in order, or one is there twice.
    #[error("line {0} of the index is not in its place")]
    Order(usize),
    /// A file name stands for two contents.
    #[error("the index names {0} twice with different contents")]
    Twice(String),
    /// A difference does not fit the state it is applied to.
    #[error("the difference does not fit: {0}")]
    Misfit(String),
}

/// How two states differ in payloads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Payloads that are only in the newer.
    pub added: u64,
    /// Payloads that are only in the older.
    pub gone: u64,
    /// Payloads in the older.
    pub before: u64,
}

impl Summary {
    /// Whether more than `percent` of what was there is gone.
    pub fn shrinks_beyond(&self, percent: u32) -> bool {
        self.gone * 100 > self.before * u64::from(percent)
    }
}

impl State {
    /// A state of these records.
    pub fn of<'a>(
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Self, serde_json::Error> {
        let lines = records
            .into_iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        Ok(Self { lines })
    }

    /// Reads a state's text, which must be in order and end with a newline unless it is empty.
    pub fn parse(text: &str) -> Result<Self, StateError> {
        let mut lines = BTreeSet::new();
        let mut last = "";
        for (at, line) in text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else {
                let why = "it breaks off".to_owned();
                return Err(StateError::Line { line: at + 1, why });
            };
            if at > 0 && line <= last {
                return Err(StateError::Order(at + 1));
            }
            read(line).map_err(|why| StateError::Line { line: at + 1, why })?;
            last = line;
            lines.insert(line.to_owned());
        }
        let state = Self { lines };
        state.unique()?;
        Ok(state)
    }

    fn unique(&self) -> Result<(), StateError> {
        let mut names = BTreeSet::new();
        for payload in self.payloads() {
            if !names.insert(payload.filename.clone()) {
                return Err(StateError::Twice(payload.filename));
            }
        }
        Ok(())
    }

    /// The text.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes() as usize);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Length of the text.
    pub fn bytes(&self) -> u64 {
        self.lines.iter().map(|line| line.len() as u64 + 1).sum()
    }

    /// SHA-256 of the text.
    pub fn digest(&self) -> Sha256 {
        let mut hasher = openssl::sha::Sha256::new();
        for line in &self.lines {
            hasher.update(line.as_bytes());
            hasher.update(b"\n");
        }
        Sha256(hasher.finish())
    }

    /// Every record.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        // Lines were read once when the state was made.
        self.lines.iter().filter_map(|line| read(line).ok())
    }

    /// Every payload.
    pub fn payloads(&self) -> impl Iterator<Item = PayloadRecord> + '_ {
        self.records().filter_map(|record| match record {
            Record::Payload(payload) => Some(payload),
            _ => None,
        })
    }

    /// What makes `newer` of this: a line each, `-` and what goes, `+` and what comes.
    pub fn difference(&self, newer: &Self) -> String {
        let mut text = String::new();
        let gone = self.lines.difference(&newer.lines).map(|line| ('-', line));
        let come = newer.lines.difference(&self.lines).map(|line| ('+', line));
        for (sign, line) in gone.chain(come) {
            text.push(sign);
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// Applies a difference. What comes of it is only as good as its digest.
    pub fn apply(&self, difference: &str) -> Result<Self, StateError> {
        let mut newer = self.clone();
        for (at, line) in difference.split_inclusive('\n').enumerate() {
            let misfit = |why: &str| StateError::Misfit(format!("line {}: {why}", at + 1));
            let line = line
                .strip_suffix('\n')
                .ok_or_else(|| misfit("it breaks off"))?;
            if let Some(gone) = line.strip_prefix('-') {
                if !newer.lines.remove(gone) {
                    return Err(misfit("what it takes away is not there"));
                }
            } else if let Some(come) = line.strip_prefix('+') {
                read(come).map_err(|why| misfit(&why))?;
                if !newer.lines.insert(come.to_owned()) {
                    return Err(misfit("what it adds is there already"));
                }
            } else {
                return Err(misfit("it begins with neither + nor -"));
            }
        }
        newer.unique()?;
        Ok(newer)
    }

    /// How the payloads of `newer` differ from those here. A changed content counts as gone and added.
    pub fn summary(&self, newer: &Self) -> Summary {
        let of = |state: &Self| -> BTreeMap<String, Sha256> {
            state.payloads().map(|p| (p.filename, p.sha256)).collect()
        };
        let (old, new) = (of(self), of(newer));
        let only = |a: &BTreeMap<String, Sha256>, b: &BTreeMap<String, Sha256>| {
            a.iter()
                .filter(|(name, sha)| b.get(*name) != Some(sha))
                .count() as u64
        };
        Summary {
            added: only(&new, &old),
            gone: only(&old, &new),
            before: old.len() as u64,
        }
    }
}

/// Reads a line. A payload's name must be a bundle's, so that nothing else is ever asked for.
fn read(line: &str) -> Result<Record, String> {
    let record: Record = serde_json::from_str(line).map_err(|e| e.to_string())?;
    match &record {
        Record::Payload(payload) => {
            payload
                .filename
                .parse::<BundleName>()
                .map_err(|e| e.to_string())?;
            if payload.size == 0 {
                return Err(format!("{} has no content", payload.filename));
            }
        }
        Record::Promotion(promotion) => {
            promotion.scope.scope().map_err(|e| e.to_string())?;
        }
        Record::Block(block) => {
            block.scope.scope().map_err(|e| e.to_string())?;
        }
        Record::Tier(_) | Record::Kernel(_) => {}
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload(abi: u8, content: u8) -> Record {
        Record::Payload(PayloadRecord {
            filename: format!("livepatch-5.15.0-{abi}.117-generic-107.1-amd64.tar.bz2"),
            sha256: Sha256([content; 32]),
            size: 1000,
        })
    }

    #[test]
    fn the_text_is_read_back_and_nothing_else() {
        let state = State::of(&[payload(2, 1), payload(1, 1)]).unwrap();
        let text = state.text();
        assert_eq!(State::parse(&text).unwrap(), state);
        assert_eq!(state.bytes(), text.len() as u64);
        assert_eq!(state.digest(), Sha256::of(text.as_bytes()));
        assert_eq!(State::parse("").unwrap(), State::default());
        let swapped: String = text.split_inclusive('\n').rev().collect();
        assert_eq!(State::parse(&swapped), Err(StateError::Order(2)));
        let doubled = format!("{text}{}\n", text.lines().last().unwrap());
        assert_eq!(State::parse(&doubled), Err(StateError::Order(3)));
        assert!(matches!(
            State::parse(text.trim_end()),
            Err(StateError::Line { line: 2, .. })
        ));
        assert!(State::parse("{\"payload\":{\"filename\":\"../x\"}}\n").is_err());
        let twice = State::of(&[payload(1, 1), payload(1, 2)]).unwrap();
        assert!(matches!(
            State::parse(&twice.text()),
            Err(StateError::Twice(_))
        ));
    }

    #[test]
    fn what_is_gone_is_counted() {
        let old = State::of(&(1..=10).map(|n| payload(n, 1)).collect::<Vec<_>>()).unwrap();
        let new = State::of(&(2..=12).map(|n| payload(n, 1)).collect::<Vec<_>>()).unwrap();
        let summary = old.summary(&new);
        assert_eq!((summary.added, summary.gone, summary.before), (2, 1, 10));
        assert!(!summary.shrinks_beyond(10) && summary.shrinks_beyond(9));
        assert!(!State::default().summary(&new).shrinks_beyond(0));
    }

    proptest! {
        #[test]
        fn a_difference_makes_the_newer_of_the_older(
            old in proptest::collection::btree_map(0u8..40, 0u8..3, 0..30),
            new in proptest::collection::btree_map(0u8..40, 0u8..3, 0..30),
        ) {
            let of = |map: &BTreeMap<u8, u8>| State::of(&map.iter().map(|(n, c)| payload(*n, *c)).collect::<Vec<_>>()).unwrap();
            let (old, new) = (of(&old), of(&new));
            let difference = old.difference(&new);
            prop_assert_eq!(old.apply(&difference).unwrap(), new.clone());
            if !difference.is_empty() {
                prop_assert!(new.apply(&difference).is_err());
            }
        }
    }
}
