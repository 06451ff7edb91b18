//! What a server remembers of an index that it serves: the newest text, the one before it, and how earlier versions differ
//! from the newest. Differences are kept, not states: they are small, and a server below that looks in once an hour
//! asks for one of the last few.

use crate::domain::Sha256;
use crate::index::State;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Earlier contents that are remembered.
const PAST: usize = 32;
/// Texts that are kept whole.
const WHOLE: usize = 2;

/// One version of an index.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) number: u64,
    pub(super) digest: Sha256,
    pub(super) payloads: u64,
    pub(super) text: Bytes,
}

/// How an earlier content, which stood from version `first` to `last`, differs from the newest.
#[derive(Debug)]
struct Past {
    first: u64,
    last: u64,
    gone: BTreeSet<String>,
    come: BTreeSet<String>,
}

/// The versions of one index.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The newest first.
    whole: VecDeque<Arc<Version>>,
    /// Since when the newest content stands.
    since: u64,
    past: VecDeque<Past>,
}

impl History {
    /// The newest version.
    pub(super) fn newest(&self) -> Option<&Arc<Version>> {
        self.whole.front()
    }

    /// This version, if its text is kept.
    pub(super) fn get(&self, version: u64) -> Option<&Arc<Version>> {
        self.whole.iter().find(|v| v.number == version)
    }

    /// Adds a version. Takes a while for a large index: call it where that may be.
    pub(super) fn push(&mut self, version: u64, state: &State) {
        let digest = state.digest();
        match self.newest().cloned() {
            None => self.since = version,
            Some(newest) if newest.digest == digest => {
                self.keep(Version {
                    number: version,
                    digest,
                    payloads: newest.payloads,
                    text: newest.text.clone(),
                });
                return;
            }
            Some(newest) => {
                self.turn(&newest, state);
                self.since = version;
            }
        }
        self.keep(Version {
            number: version,
            digest,
            payloads: state.payloads().count() as u64,
            text: state.text().into(),
        });
    }

    fn keep(&mut self, version: Version) {
        self.whole.push_front(Arc::new(version));
        self.whole.truncate(WHOLE);
    }

    /// The newest content becomes a past one, and all past ones now differ from `state`.
    fn turn(&mut self, newest: &Version, state: &State) {
        let Some(old) = std::str::from_utf8(&newest.text)
            .ok()
            .and_then(|text| State::parse(text).ok())
        else {
            // Made here from a state; if it cannot be read all the same, nothing is remembered.
            self.past.clear();
            return;
        };
        let mut latest = Past {
            first: self.since,
            last: newest.number,
            gone: BTreeSet::new(),
            come: BTreeSet::new(),
        };
        latest.follow(&old.difference(state));
        for past in &mut self.past {
            past.follow(&old.difference(state));
        }
        self.past.push_front(latest);
        let worth = state.bytes() as usize / 2;
        self.past.retain(|past| past.size() <= worth);
        self.past.truncate(PAST);
    }

    /// What makes the newest text of the one of version `since`, if it is remembered and shorter.
    pub(super) fn difference(&self, since: u64) -> Option<String> {
        let newest = self.newest()?;
        if (self.since..=newest.number).contains(&since) {
            return Some(String::new());
        }
        let past = self
            .past
            .iter()
            .find(|past| (past.first..=past.last).contains(&since))?;
        let text = past.text();
        (text.len() < newest.text.len()).then_some(text)
    }
}

impl Past {
    /// Goes on by a difference, so that it leads from the same content to a newer one.
    fn follow(&mut self, difference: &str) {
        for line in difference.lines() {
            if let Some(gone) = line.strip_prefix('-') {
                if !self.come.remove(gone) {
                    self.gone.insert(gone.to_owned());
                }
            } else if let Some(come) = line.strip_prefix('+')
                && !self.gone.remove(come)
            {
                self.come.insert(come.to_owned());
            }
        }
    }

    fn size(&self) -> usize {
        let lines = self.gone.iter().chain(&self.come);
        lines.map(|line| line.len() + 2).sum()
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(self.size());
        let gone = self.gone.iter().map(|line| ('-', line));
        for (sign, line) in gone.chain(self.come.iter().map(|line| ('+', line))) {
            text.push(sign);
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sync::{PayloadRecord, Record};

    fn state(abis: impl IntoIterator<Item = u32>) -> State {
        let records: Vec<Record> = abis
            .into_iter()
            .map(|abi| {
                Record::Payload(PayloadRecord {
                    filename: format!("livepatch-5.15.0-{abi}.117-generic-107.1-amd64.tar.bz2"),
                    sha256: Sha256([1; 32]),
                    size: 1,
                })
            })
            .collect();
        State::of(&records).unwrap()
    }

    #[test]
    fn every_remembered_version_leads_to_the_newest() {
        let mut history = History::default();
        let states = [
            (5, state(1..100)),
            (9, state(1..101)),
            (12, state(1..101)),
            (20, state(2..110)),
            (21, state(1..110)),
        ];
        for (version, state) in &states {
            history.push(*version, state);
        }
        let newest = &states[4].1;
        for (version, state) in &states {
            let difference = history.difference(*version).unwrap();
            assert_eq!(state.apply(&difference).unwrap(), *newest, "{version}");
        }
        // What went and came back is in no difference.
        assert_eq!(history.difference(20).unwrap().lines().count(), 1);
        // Versions between two looks had the content of the first one or that of the second: only what was seen counts.
        assert_eq!(
            history.difference(10).unwrap(),
            history.difference(9).unwrap()
        );
        for unknown in [0, 4, 6, 13, 22] {
            assert_eq!(history.difference(unknown), None, "{unknown}");
        }
        assert_eq!(history.newest().unwrap().digest, newest.digest());
        assert!(history.get(21).is_some() && history.get(20).is_some());
        assert!(history.get(12).is_none());
    }

    #[test]
    fn what_is_longer_than_the_whole_is_not_kept() {
        let mut history = History::default();
        history.push(1, &state(1..100));
        history.push(2, &state(500..600));
        assert_eq!(history.difference(1), None);
        assert_eq!(history.difference(2).as_deref(), Some(""));
    }
}
