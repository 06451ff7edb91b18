//! Answers that were rendered once and are equal for every machine of which the same is decided.
//!
//! Belongs to one snapshot and ends with it, so that nothing here can outlive what it says. An answer is a pure function
//! of the decision; whether it is found here or rendered anew makes no difference but time.

use super::decide::Decision;
use super::reason::ReasonCode;
use super::support::Support;
use crate::domain::PatchVersion;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Answers that are kept. There are a few for each kernel and tier; machines that report nonsense could make more.
const MOST: usize = 10_000;

/// Everything an answer depends on but the address of the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    code: ReasonCode,
    tier: u16,
    payload: Option<i64>,
    /// The first payload that was passed over, and how many were: they follow each other in the catalog.
    passed: Option<(i64, usize)>,
    /// Why they were.
    skipped: u64,
    applied: Option<PatchVersion>,
    support: Support,
}

/// A rendered answer: whole, or what stands before and after the address of the download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    head: Bytes,
    gap: Option<Gap>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    filename: Arc<str>,
    tail: Bytes,
}

/// What a machine is told once its report was stored, and if it could not be.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// It was stored.
    pub stored: Answer,
    /// It was not.
    pub not_stored: Answer,
}

impl Answer {
    /// An answer without a download.
    pub fn whole(body: impl Into<Bytes>) -> Self {
        Self {
            head: body.into(),
            gap: None,
        }
    }

    /// An answer with a place, where the mark first stands, for the address of a file. `None` if the mark is not in it.
    pub fn with_gap(body: impl Into<Bytes>, mark: &[u8], filename: Arc<str>) -> Option<Self> {
        let mut head: Bytes = body.into();
        let at = head.windows(mark.len()).position(|part| part == mark)?;
        let tail = head.split_off(at).slice(mark.len()..);
        Some(Self {
            head,
            gap: Some(Gap { filename, tail }),
        })
    }

    /// The body to send; `address` is asked for what stands in the gap, if there is one, with the file's name.
    pub fn body(&self, address: impl FnOnce(&str) -> String) -> Bytes {
        let Some(Gap { filename, tail }) = &self.gap else {
            return self.head.clone();
        };
        let address = address(filename);
        let mut body = BytesMut::with_capacity(self.head.len() + address.len() + tail.len());
        body.put_slice(&self.head);
        body.put_slice(address.as_bytes());
        body.put_slice(tail);
        body.freeze()
    }
}

/// The answers of a snapshot.
#[derive(Debug, Default)]
pub struct Answers {
    known: RwLock<HashMap<Key, Arc<Rendered>>>,
}

impl Answers {
    /// The answer to this decision, rendered by `render` the first time.
    pub fn of(&self, decision: &Decision<'_>, render: impl FnOnce() -> Rendered) -> Arc<Rendered> {
        let key = Key {
            code: decision.code,
            tier: decision.tier_index,
            payload: decision.payload.map(|payload| payload.id),
            passed: decision
                .passed
                .first()
                .map(|first| (first.id, decision.passed.len())),
            skipped: decision.skipped(),
            applied: decision.applied,
            support: decision.support,
        };
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = known.get(&key) {
            return Arc::clone(answer);
        }
        drop(known);
        let answer = Arc::new(render());
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, Arc::clone(&answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_fills_the_gap() {
        let text = r##"{"url":"#","fixes":"#"}"##.as_bytes();
        let answer = Answer::with_gap(text, br##""#""##, "y".into()).unwrap();
        let body = answer.body(|filename| format!(r#""http://x/{filename}""#));
        assert_eq!(body, r##"{"url":"http://x/y","fixes":"#"}"##);
        assert_eq!(Answer::with_gap(text, b"?", "y".into()), None);
        let whole = Answer::whole(text);
        assert_eq!(whole.body(|_| panic!("nobody asks")), text);
    }
}
