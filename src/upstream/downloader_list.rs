//! What `canonical-livepatch-downloader list` prints, read strictly.
//!
//! Public form: a YAML list of items, `- filename: NAME` followed by `  hash: SHA-256` on a line of its own. That subset of
//! YAML is read line by line, so that forty thousand items cost no tree; anything else is refused with its line.

use crate::domain::Sha256;

/// The most items of one list. All patches for all kernels are some tens of thousands.
const MAX_ITEMS: usize = 500_000;

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// As written; may be no bundle's name.
    pub(super) filename: String,
    /// SHA-256 of the tarball.
    pub(super) hash: Sha256,
}

/// The item being read.
#[derive(Default)]
struct Open {
    line: usize,
    filename: Option<String>,
    hash: Option<Sha256>,
}

impl Open {
    fn close(self) -> Result<Item, String> {
        let line = self.line;
        let missing = |key: &str| format!("the item at line {line} has no {key}");
        Ok(Item {
            filename: self.filename.ok_or_else(|| missing("filename"))?,
            hash: self.hash.ok_or_else(|| missing("hash"))?,
        })
    }

    fn set(&mut self, line: usize, text: &str) -> Result<(), String> {
        let (key, value) = text
            .split_once(':')
            .filter(|(_, value)| value.is_empty() || value.starts_with([' ', '\t']))
            .ok_or_else(|| format!("line {line} is not `key: value`"))?;
        let value =
            unquoted(value.trim()).ok_or_else(|| format!("line {line} has half a quote"))?;
        let twice = match key.trim_end() {
            "filename" if value.is_empty() => return Err(format!("line {line} names no file")),
            "filename" => self.filename.replace(value.to_owned()).is_some(),
            "hash" => {
                let hash = value
                    .parse::<Sha256>()
                    .map_err(|error| format!("line {line}: {error}"))?;
                self.hash.replace(hash).is_some()
            }
            // A later release may say more of a file; the two keys are all that is needed.
            _ => false,
        };
        if twice {
            return Err(format!("line {line} gives {key} a second time"));
        }
        Ok(())
    }
}

fn unquoted(value: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return rest.strip_suffix(quote);
        }
    }
    Some(value)
}

/// Reads a whole list; nothing at all and `[]` are empty ones. The error names the line and never repeats the text.
pub(super) fn parse(output: &[u8]) -> Result<Vec<Item>, String> {
    let text = std::str::from_utf8(output).map_err(|_| "it is not text".to_owned())?;
    if text.trim() == "[]" {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    let mut open: Option<Open> = None;
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') || content == "---" {
            continue;
        }
        if let Some(first) = line.strip_prefix("- ") {
            if let Some(whole) = open.take() {
                items.push(whole.close()?);
            }
            if items.len() >= MAX_ITEMS {
                return Err(format!("it has more than {MAX_ITEMS} items"));
            }
            let mut next = Open {
                line: number,
                ..Open::default()
            };
            next.set(number, first.trim())?;
            open = Some(next);
        } else {
            let item = open
                .as_mut()
                .filter(|_| line.starts_with("  "))
                .ok_or_else(|| format!("line {number} is not part of an item"))?;
            item.set(number, content)?;
        }
    }
    if let Some(whole) = open {
        items.push(whole.close()?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_documented_form_is_read() {
        let (one, two) = (Sha256([1; 32]), Sha256([2; 32]));
        let text = format!(
            "- filename: a.tar.bz2\n  hash: {one}\n\n- hash: '{two}'\n  size: 7\n  filename: \"b\"\n"
        );
        let item = |name: &str, hash| Item {
            filename: name.to_owned(),
            hash,
        };
        assert_eq!(
            parse(text.as_bytes()),
            Ok(vec![item("a.tar.bz2", one), item("b", two)])
        );
        for empty in ["", "\n", "[]\n", "---\n"] {
            assert_eq!(parse(empty.as_bytes()), Ok(Vec::new()));
        }
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        let hash = Sha256([1; 32]);
        for (text, why) in [
            ("- filename: a\n".to_owned(), "line 1 has no hash"),
            (format!("- hash: {hash}\n"), "line 1 has no filename"),
            (format!("- filename: a\n  hash: {hash}0\n"), "line 2"),
            ("- filename: a\n  hash: deadbeef\n".to_owned(), "line 2"),
            (
                format!("- filename: a\nhash: {hash}\n"),
                "line 2 is not part of an item",
            ),
            (format!("  hash: {hash}\n"), "line 1 is not part"),
            ("<html>\n".to_owned(), "line 1 is not part"),
            ("Error: not enabled\n".to_owned(), "line 1 is not part"),
            ("- filename\n".to_owned(), "line 1 is not `key: value`"),
            (
                format!("- filename: a\n  filename: b\n  hash: {hash}\n"),
                "second time",
            ),
            (format!("- filename: \"a\n  hash: {hash}\n"), "half a quote"),
            (format!("- filename:\n  hash: {hash}\n"), "names no file"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert_eq!(parse(b"\xff\xfe").unwrap_err(), "it is not text");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(- |  )?(filename|hash)?:? ?[ -~\n]{0,80}") {
            let _ = parse(text.as_bytes());
        }
    }
}
