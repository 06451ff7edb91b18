//! Reads a YAML configuration file into a tree that keeps each value's text as written and its line.
//!
//! The text matters because YAML would make `5.10` a number and `no` a truth value, while a key may take text.
//! Size, depth, aliases and nodes are bounded: a configuration file can be handed to a container by others.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};
use std::fmt;

/// The largest configuration file, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// A node and the line it stands on, counted from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The line; 0 when not known.
    pub(super) line: u64,
    /// What it holds.
    pub(super) raw: Raw,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(super) enum Raw {
    /// Nothing: `key:`, `~` or `null`.
    Null,
    /// A single value as written, and whether YAML takes it for a truth value.
    Scalar {
        /// The text as written, without quotes.
        text: String,
        /// Written without quotes, and one of YAML's words for true and false.
        truth: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order written; a key may stand in it twice.
    Map(Vec<(String, Node)>),
}

impl Raw {
    /// A text from elsewhere than YAML.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Scalar {
            text: text.into(),
            truth: false,
        }
    }
}

/// A file that is not YAML: the line (0 when not known) and the reason.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) line: u64,
    pub(super) message: String,
}

/// Parses one document. An empty one is `Null`.
pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.len() as u64 > MAX_BYTES {
        return Err(SyntaxError {
            line: 0,
            message: format!("larger than {MAX_BYTES} bytes"),
        });
    }
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_nodes: 20_000,
            max_aliases: 100,
            max_anchors: 100,
            max_documents: 1,
        },
    };
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Node {
            line: 1,
            raw: Raw::Null,
        });
    }
    let parsed: Spanned<Loose> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| SyntaxError {
            line: error.location().map_or(0, |location| location.line()),
            message: reason(&error.without_snippet().to_string()),
        })?;
    Ok(node(parsed, text))
}

/// The first line of the parser's message; it says the place again, which callers show in their own form.
fn reason(message: &str) -> String {
    let line = message.lines().next().unwrap_or("not YAML");
    line.chars().take(200).collect()
}

/// A value as the deserialiser gives it, before its text as written is looked up.
enum Loose {
    Null,
    /// Recognised by YAML as a truth value or number; the text is a stand-in for the one in the source.
    Typed {
        text: String,
        truth: bool,
    },
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(String, Spanned<Self>)>),
}

fn node(parsed: Spanned<Loose>, source: &str) -> Node {
    let line = parsed.referenced.line();
    let span = parsed.defined.span();
    let raw = match parsed.value {
        Loose::Null => Raw::Null,
        Loose::Text(text) => Raw::text(text),
        Loose::Typed { text, truth } => {
            let written = span
                .byte_offset()
                .zip(span.byte_len())
                .and_then(|(at, len)| {
                    let at = usize::try_from(at).ok()?;
                    source.get(at..at + usize::try_from(len).ok()?)
                });
            Raw::Scalar {
                text: written.map_or(text, |written| written.trim().to_owned()),
                truth,
            }
        }
        Loose::List(items) => Raw::List(items.into_iter().map(|item| node(item, source)).collect()),
        Loose::Map(entries) => Raw::Map(
            entries
                .into_iter()
                .map(|(key, value)| (key, node(value, source)))
                .collect(),
        ),
    };
    Node { line, raw }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_none<E>(self) -> Result<Loose, E> {
        Ok(Loose::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Loose, D::Error> {
        Loose::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Typed {
            text: value.to_string(),
            truth: true,
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Loose, E> {
        Ok(Loose::Typed {
            text: value.to_string(),
            truth: false,
        })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Loose, E> {
        Ok(Loose::Typed {
            text: value.to_string(),
            truth: false,
        })
    }

    fn visit_i128<E>(self, value: i128) -> Result<Loose, E> {
        Ok(Loose::Typed {
            text: value.to_string(),
            truth: false,
        })
    }

    fn visit_u128<E>(self, value: u128) -> Result<Loose, E> {
        Ok(Loose::Typed {
            text: value.to_string(),
            truth: false,
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Loose, E> {
        Ok(Loose::Typed {
            text: value.to_string(),
            truth: false,
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Loose, E> {
        Ok(Loose::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Loose, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Loose::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Loose, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Loose>()? {
            let key = match key {
                Loose::Text(text) | Loose::Typed { text, .. } => text,
                Loose::Null | Loose::List(_) | Loose::Map(_) => {
                    return Err(A::Error::custom("a key must be a plain word"));
                }
            };
            entries.push((key, access.next_value()?));
        }
        Ok(Loose::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(text: &str) -> Vec<(String, Node)> {
        match parse(text).unwrap().raw {
            Raw::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    fn scalar(node: &Node) -> (&str, bool) {
        match &node.raw {
            Raw::Scalar { text, truth } => (text, *truth),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_stays_as_written() {
        let text = "version: 5.10\nbig: 0123\nword: no\nquoted: \"5.10\"\nquiet: 'true'\nalias: &a 1.50\nagain: *a # c\nhex: 0x10\nsum: 1_000\n";
        let all: Vec<_> = entries(text)
            .iter()
            .map(|(key, node)| format!("{key}@{}={:?}", node.line, scalar(node)))
            .collect();
        assert_eq!(
            all,
            [
                "version@1=(\"5.10\", false)",
                "big@2=(\"0123\", false)",
                "word@3=(\"no\", true)",
                "quoted@4=(\"5.10\", false)",
                "quiet@5=(\"true\", false)",
                "alias@6=(\"1.50\", false)",
                "again@7=(\"1.50\", false)",
                "hex@8=(\"0x10\", false)",
                "sum@9=(\"1_000\", false)",
            ]
        );
    }

    #[test]
    fn duplicates_reach_the_caller() {
        let all = entries("a: 1\nb: 2\na: 3\n");
        assert_eq!(
            all.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
            ["a", "b", "a"]
        );
    }

    #[test]
    fn empty_files_and_nulls() {
        assert!(matches!(parse("").unwrap().raw, Raw::Null));
        assert!(matches!(parse("# nothing\n\n").unwrap().raw, Raw::Null));
        assert!(matches!(entries("a:\nb: ~\n")[0].1.raw, Raw::Null));
    }

    #[test]
    fn broken_files_say_where() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.line >= 2, "{error:?}");
        assert!(!parse("a: 1\n---\nb: 2\n").unwrap_err().message.is_empty());
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let row = vec![format!("*a{}", i - 1); 9].join(", ");
            bomb = format!("{bomb}a{i}: &a{i} [{row}]\n");
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
        assert!(parse(&"a".repeat(2 << 20)).is_err());
    }
}
