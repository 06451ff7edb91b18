//! Ids of the texts that machines report, as far as they are known in memory.
//!
//! A check-in finds them while it is worked on; only what nobody reported before is left to the writer, which asks the
//! database. So the one task that writes has numbers to move and no texts.

use crate::db::words::WordKind;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Words of each kind that are remembered. Beyond, texts are looked up in the database again.
const MOST: usize = 50_000;

const KINDS: [WordKind; 3] = [
    WordKind::Kernel,
    WordKind::ClientVersion,
    WordKind::CpuModel,
];

/// The ids that are known.
#[derive(Debug, Default)]
pub(super) struct Words {
    known: RwLock<[HashMap<Box<str>, i32>; KINDS.len()]>,
}

impl Words {
    /// The ids of a kernel, a client version and a CPU model, in this order, where they are given and known.
    pub(super) fn ids(&self, texts: [Option<&str>; KINDS.len()]) -> [Option<i32>; KINDS.len()] {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut ids = [None; KINDS.len()];
        for ((id, text), known) in ids.iter_mut().zip(texts).zip(known.iter()) {
            *id = text.and_then(|text| known.get(text).copied());
        }
        ids
    }

    /// Adds what the database said: kind, text, id.
    pub(super) fn learn(&self, ids: Vec<(i16, String, i32)>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (kind, text, id) in ids {
            let Some(at) = KINDS.iter().position(|known| *known as i16 == kind) else {
                continue;
            };
            if known[at].len() >= MOST {
                known[at].clear();
            }
            known[at].insert(text.into_boxed_str(), id);
        }
    }
}

/// The kinds in the order of [`Words::ids`].
pub(super) const fn kinds() -> [WordKind; KINDS.len()] {
    KINDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_does_not_know_the_words_of_another() {
        let words = Words::default();
        words.learn(vec![
            (WordKind::Kernel as i16, "a".to_owned(), 1),
            (WordKind::CpuModel as i16, "b".to_owned(), 2),
            (99, "c".to_owned(), 3),
        ]);
        assert_eq!(
            words.ids([Some("a"), Some("a"), Some("b")]),
            [Some(1), None, Some(2)]
        );
        assert_eq!(words.ids([None, Some("b"), Some("c")]), [None; 3]);
        for n in 0..=MOST {
            words.learn(vec![(WordKind::Kernel as i16, n.to_string(), 4)]);
        }
        let last = MOST.to_string();
        assert_eq!(words.ids([Some(&last), None, None])[0], Some(4));
        assert_eq!(
            words.ids([Some("a"), None, Some("b")]),
            [None, None, Some(2)]
        );
    }
}
