//! Labels of machines: `rack=r1`. Keys and values follow the syntax that Kubernetes gives its labels
//! (kubernetes.io, "Labels and Selectors"), so that what is written there can be used here as it is.

use super::{ParseError, serde_as_str};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// The longest name of a key, and the longest value.
const MAX_NAME: usize = 63;
/// The longest prefix of a key.
const MAX_PREFIX: usize = 253;

/// Words that have a meaning of their own in selectors and options, and so cannot be keys.
const RESERVED: [&str; 8] = [
    "kernel",
    "flavour",
    "flavor",
    "arch",
    "architecture",
    "tier",
    "state",
    "label",
];

/// Letters, digits and inner `-`, `_` and `.`.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= MAX_NAME
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A DNS subdomain: lower-case labels of at most 63 characters, separated by dots.
fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        is_name(label)
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= MAX_PREFIX && text.split('.').all(label)
}

/// The key of a label: a name, with or without a domain before it: `rack`, `example.com/rack`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelKey(String);

impl LabelKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for LabelKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = |why: &str| Err(ParseError::new("label key", text, why));
        if RESERVED.contains(&text) {
            return err(
                "this word has a meaning of its own in selectors and options; take another, e.g. with a domain before it",
            );
        }
        let (domain, name) = match text.split_once('/') {
            Some((domain, name)) => (Some(domain), name),
            None => (None, text),
        };
        if domain.is_some_and(|domain| !is_domain(domain)) {
            return err(
                "what stands before the slash must be a domain name, e.g. example.com/rack",
            );
        }
        if !is_name(name) {
            return err(
                "1 to 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

serde_as_str!(LabelKey);

/// The value of a label; may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LabelValue(String);

impl LabelValue {
    /// The value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LabelValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for LabelValue {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() || is_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                "label value",
                text,
                "at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit; or empty",
            ))
        }
    }
}

serde_as_str!(LabelValue);

/// The labels of a machine, or those that an auth token gives: at most [`Labels::MAX`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(
    try_from = "BTreeMap<LabelKey, LabelValue>",
    into = "BTreeMap<LabelKey, LabelValue>"
)]
pub struct Labels(BTreeMap<LabelKey, LabelValue>);

impl Labels {
    /// The most labels of one machine.
    pub const MAX: usize = 32;

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The value of a key.
    pub fn get(&self, key: &LabelKey) -> Option<&LabelValue> {
        self.0.get(key)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&LabelKey, &LabelValue)> {
        self.0.iter()
    }

    /// As texts, by key.
    pub fn to_texts(&self) -> BTreeMap<String, String> {
        self.iter()
            .map(|(key, value)| (key.0.clone(), value.0.clone()))
            .collect()
    }
}

impl TryFrom<BTreeMap<LabelKey, LabelValue>> for Labels {
    type Error = ParseError;

    fn try_from(map: BTreeMap<LabelKey, LabelValue>) -> Result<Self, ParseError> {
        if map.len() > Self::MAX {
            return Err(ParseError::new(
                "set of labels",
                &format!("{} labels", map.len()),
                format!("at most {} are taken", Self::MAX),
            ));
        }
        Ok(Self(map))
    }
}

impl From<Labels> for BTreeMap<LabelKey, LabelValue> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

/// What is to become of labels: those that are set and those that are taken away. Never empty, never contradictory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelChanges {
    set: Labels,
    remove: BTreeSet<LabelKey>,
}

impl LabelChanges {
    /// Checks that something changes, and that no key is both set and taken away.
    pub fn new(set: Labels, remove: BTreeSet<LabelKey>) -> Result<Self, ParseError> {
        if set.is_empty() && remove.is_empty() {
            return Err(change_error("", "it changes nothing"));
        }
        if remove.len() > Labels::MAX {
            return Err(change_error(
                "",
                "it takes away more labels than a machine can have",
            ));
        }
        if let Some(key) = remove.iter().find(|key| set.get(key).is_some()) {
            return Err(change_error(key.as_str(), "it is both set and taken away"));
        }
        Ok(Self { set, remove })
    }

    /// Reads what stands on a command line: `key=value` sets, `key-` takes away.
    pub fn read<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, ParseError> {
        let (mut set, mut remove) = (BTreeMap::new(), BTreeSet::new());
        for text in texts {
            let twice = if let Some((key, value)) = text.split_once('=') {
                set.insert(key.parse::<LabelKey>()?, value.parse::<LabelValue>()?)
                    .is_some()
            } else if let Some(key) = text.strip_suffix('-') {
                !remove.insert(key.parse::<LabelKey>()?)
            } else {
                return Err(change_error(
                    text,
                    "KEY=VALUE expected, or KEY- to take it away",
                ));
            };
            if twice {
                return Err(change_error(text, "this key stands twice"));
            }
        }
        Self::new(Labels::try_from(set)?, remove)
    }

    /// What is set.
    pub fn set(&self) -> &Labels {
        &self.set
    }

    /// What is taken away.
    pub fn remove(&self) -> &BTreeSet<LabelKey> {
        &self.remove
    }
}

fn change_error(given: &str, why: &str) -> ParseError {
    ParseError::new("change of labels", given, why)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
        let map = pairs
            .iter()
            .map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
        map.collect::<BTreeMap<_, _>>().try_into().unwrap()
    }

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        let (longest, domain) = ("x".repeat(63), format!("{}example.com", "a.".repeat(121)));
        assert_eq!(domain.len(), 253);
        for good in [
            "rack",
            "a",
            "9",
            "A-b_c.d",
            &longest,
            "topology.kubernetes.io/zone",
            "example.com/kernel",
            &format!("{domain}/{longest}"),
        ] {
            assert_eq!(good.parse::<LabelKey>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "-a",
            "a-",
            ".a",
            "a b",
            "a=b",
            "a,b",
            "!a",
            "ä",
            "a\0",
            "a\n",
            "\u{202e}rack",
            "/a",
            "a/",
            "a/b/c",
            "Example.com/a",
            "exa_mple/a",
            "a..b/c",
            "-a.b/c",
            "kernel",
            "tier",
            &"x".repeat(64),
            &format!("a{domain}/x"),
            "'; drop table machines --",
        ] {
            assert!(bad.parse::<LabelKey>().is_err(), "{bad:?} was accepted");
        }
        for good in ["", "r1", "5.15", &longest, "A"] {
            assert_eq!(good.parse::<LabelValue>().unwrap().as_str(), good);
        }
        for bad in [
            " ",
            "a b",
            "a/b",
            "-",
            "a-",
            "ü",
            "a\0",
            "*",
            "a*",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<LabelValue>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn there_is_a_most() {
        let many = |n: usize| {
            let map = (0..n).map(|i| (format!("k{i}").parse().unwrap(), LabelValue::default()));
            Labels::try_from(map.collect::<BTreeMap<_, _>>())
        };
        assert_eq!(many(32).unwrap().len(), 32);
        assert!(many(33).unwrap_err().to_string().contains("33 labels"));
        let json = serde_json::to_string(&labels(&[("a", "1"), ("b", "")])).unwrap();
        assert_eq!(json, r#"{"a":"1","b":""}"#);
        assert!(serde_json::from_str::<Labels>(r#"{"a b":"1"}"#).is_err());
        assert!(serde_json::from_str::<Labels>(r#"{"a":1}"#).is_err());
    }

    #[test]
    fn changes_are_read_and_do_not_contradict() {
        let changes = LabelChanges::read(["rack=r1", "site=", "old-", "a-b-"]).unwrap();
        assert_eq!(*changes.set(), labels(&[("rack", "r1"), ("site", "")]));
        let removed: Vec<_> = changes.remove().iter().map(LabelKey::as_str).collect();
        assert_eq!(removed, ["a-b", "old"]);
        for (bad, word) in [
            (&[][..], "nothing"),
            (&["rack"], "KEY=VALUE"),
            (&["rack=r1", "rack=r2"], "twice"),
            (&["rack-", "rack-"], "twice"),
            (&["rack=r1", "rack-"], "both"),
            (&["=r1"], "label key"),
            (&["-"], "label key"),
            (&["rack=r 1"], "label value"),
            (&["kernel=5.15"], "meaning of its own"),
        ] {
            let error = LabelChanges::read(bad.iter().copied()).unwrap_err();
            assert!(error.to_string().contains(word), "{bad:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_comes_back_and_is_plain(text in "\\PC{0,70}") {
            if let Ok(key) = text.parse::<LabelKey>() {
                prop_assert_eq!(key.to_string(), text.clone());
                prop_assert!(text.is_ascii() && !text.contains(['=', ',', '!', '*', ' ', '\'']));
            }
            if let Ok(value) = text.parse::<LabelValue>() {
                prop_assert_eq!(value.to_string(), text.clone());
                prop_assert!(text.is_ascii() && text.len() <= 63);
            }
            let _ = LabelChanges::read([text.as_str()]);
        }
    }
}
