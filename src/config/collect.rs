//! Gathers what was given, from the file and the environment, under the names of the keys, and reads files of secrets.
//!
//! Nothing is interpreted here beyond names; unknown names, duplicates and unreadable files are collected as errors.

use super::error::{ConfigError, ErrorKind, Source};
use super::keys::{self, Key};
use super::load::{DEFAULT_PATH, LOCATION_VARIABLE, PREFIX};
use super::suggest::nearest;
use super::yaml::{self, Node, Raw};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The largest file that may hold a secret, in bytes.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// A value as given, before it is read as its key's kind.
pub(super) struct Given {
    pub(super) raw: Raw,
    pub(super) source: Source,
}

pub(super) type ByKey = Vec<(&'static Key, Given)>;

pub(super) struct Collector<'a> {
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<String>,
    pub(super) errors: Vec<ConfigError>,
}

impl Collector<'_> {
    fn error(&mut self, kind: ErrorKind, path: &str, message: impl Into<String>, source: &Source) {
        self.errors
            .push(ConfigError::new(kind, path, message).at(source));
    }

    pub(super) fn file(&mut self, named: Option<PathBuf>) -> (Option<PathBuf>, ByKey) {
        let optional = named.is_none();
        let path = named.unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
        let text = match (self.read)(&path) {
            Ok(text) => text,
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {
                return (None, Vec::new());
            }
            Err(error) => {
                let message = format!(
                    "cannot read the configuration file: {error}; name another with --config or {LOCATION_VARIABLE}"
                );
                self.errors.push(ConfigError::new(
                    ErrorKind::File,
                    path.display().to_string(),
                    message,
                ));
                return (None, Vec::new());
            }
        };
        let root = match yaml::parse(&text) {
            Ok(root) => root,
            Err(error) => {
                let source = Source::File {
                    path: path.clone(),
                    line: error.line,
                };
                let message = format!("not a YAML mapping of keys: {}", error.message);
                self.errors.push(ConfigError::new(
                    ErrorKind::Syntax,
                    source.to_string(),
                    message,
                ));
                return (None, Vec::new());
            }
        };
        let mut found = Found {
            leaves: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        match root.raw {
            Raw::Null => {}
            Raw::Map(entries) => self.walk(&path, "", entries, &mut found),
            Raw::Scalar { .. } | Raw::List(_) => {
                let message = "expected a YAML mapping of keys at the top";
                self.errors.push(ConfigError::new(
                    ErrorKind::Syntax,
                    path.display().to_string(),
                    message,
                ));
            }
        }
        let given = self.settle(found);
        (Some(path), given)
    }

    /// Goes through a mapping, joining nested names with dots.
    fn walk(&mut self, file: &Path, prefix: &str, entries: Vec<(String, Node)>, found: &mut Found) {
        for (name, node) in entries {
            let name = if prefix.is_empty() {
                name
            } else {
                format!("{prefix}.{name}")
            };
            let source = Source::File {
                path: file.to_owned(),
                line: node.line,
            };
            let given = Given {
                raw: node.raw,
                source: source.clone(),
            };
            let (list, key) = if let Some(key) = keys::find(&name) {
                (&mut found.leaves, key)
            } else if let Some(key) = name.strip_suffix("-file").and_then(secret_key) {
                (&mut found.files, key)
            } else {
                let below = format!("{name}.");
                let is_section = keys::all().iter().any(|key| key.name.starts_with(&below));
                match given.raw {
                    Raw::Map(entries) if is_section => self.walk(file, &name, entries, found),
                    Raw::Null if is_section => {}
                    _ if is_section => {
                        let message = "this is a section, not a key; give the keys below it";
                        self.error(ErrorKind::WrongType, &name, message, &source);
                    }
                    _ => self.unknown(&name, &source),
                }
                continue;
            };
            if let Some(before) = list.get(key.name).map(|before| before.source.to_string()) {
                let message = format!("given twice, first at {before}; keep one of them");
                self.error(ErrorKind::Duplicate, &name, message, &source);
            } else {
                list.insert(key.name, given);
            }
        }
    }

    fn unknown(&mut self, name: &str, source: &Source) {
        // Hostile names must not fill the screen.
        let shown: String = name.chars().take(100).collect();
        let sections = keys::all().iter().map(Key::section);
        let names = keys::all().iter().map(|key| key.name).chain(sections);
        let hint = nearest(name, names).map_or_else(
            || "see `livepatch-server config keys`".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        self.error(
            ErrorKind::UnknownKey,
            &shown,
            format!("there is no such key; {hint}"),
            source,
        );
    }

    pub(super) fn environment(&mut self, env: &BTreeMap<String, String>) -> ByKey {
        let by_variable: BTreeMap<String, &'static Key> = keys::all()
            .iter()
            .map(|key| (key.variable(), key))
            .collect();
        let mut found = Found {
            leaves: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        for (name, value) in env.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let source = Source::Environment {
                variable: name.clone(),
            };
            let given = Given {
                raw: Raw::text(value.clone()),
                source: source.clone(),
            };
            let of_file = || {
                let key = by_variable.get(name.strip_suffix("_FILE")?)?;
                key.kind.is_secret().then_some(*key)
            };
            if let Some(key) = by_variable.get(name) {
                found.leaves.insert(key.name, given);
            } else if let Some(key) = of_file() {
                found.files.insert(key.name, given);
            } else {
                let hint = nearest(name, by_variable.keys().map(String::as_str)).map_or_else(
                    || "unset it, or see `livepatch-server config keys`".to_owned(),
                    |near| format!("did you mean {near}?"),
                );
                let message = format!("no key has this environment variable; {hint}");
                self.error(ErrorKind::UnknownKey, name, message, &source);
            }
        }
        self.settle(found)
    }

    /// Reads the files that hold secrets, and drops what was given as nothing.
    fn settle(&mut self, found: Found) -> ByKey {
        let mut settled: ByKey = found
            .leaves
            .into_iter()
            .filter(|(_, given)| !is_nothing(&given.raw))
            .filter_map(|(name, given)| Some((keys::find(name)?, given)))
            .collect();
        for (name, given) in found.files {
            let Some(key) = keys::find(name) else {
                continue;
            };
            let via = match &given.source {
                Source::Environment { variable } => variable.clone(),
                _ => format!("{name}-file"),
            };
            let path = match &given.raw {
                raw if is_nothing(raw) => continue,
                Raw::Scalar { text, .. } => PathBuf::from(text.trim()),
                _ => {
                    self.error(
                        ErrorKind::WrongType,
                        &via,
                        "expected the path of a file",
                        &given.source,
                    );
                    continue;
                }
            };
            if let Some((_, other)) = settled.iter().find(|(other, _)| other.name == name) {
                let message = format!(
                    "given both as a value ({}) and as a file; keep one of them",
                    other.source
                );
                self.error(ErrorKind::Contradiction, &via, message, &given.source);
                continue;
            }
            let source = Source::SecretFile {
                path: path.clone(),
                via: via.clone(),
            };
            match (self.read)(&path) {
                Ok(text) if text.len() as u64 > MAX_SECRET_BYTES => {
                    let message =
                        format!("{} is larger than {MAX_SECRET_BYTES} bytes", path.display());
                    self.error(ErrorKind::Refused, &via, message, &given.source);
                }
                Ok(text) if text.trim().is_empty() => {
                    let message = format!("{} is empty; put the secret in it", path.display());
                    self.error(ErrorKind::Refused, &via, message, &given.source);
                }
                Ok(text) => settled.push((
                    key,
                    Given {
                        raw: Raw::text(text),
                        source,
                    },
                )),
                Err(error) => {
                    let message = format!("cannot read {}: {error}", path.display());
                    self.error(ErrorKind::Refused, &via, message, &given.source);
                }
            }
        }
        settled
    }
}

/// What was found under keys, and under the names that say which file holds a secret.
pub(super) struct Found {
    leaves: BTreeMap<&'static str, Given>,
    files: BTreeMap<&'static str, Given>,
}

fn is_nothing(raw: &Raw) -> bool {
    match raw {
        Raw::Null => true,
        Raw::Scalar { text, .. } => text.trim().is_empty(),
        Raw::List(_) | Raw::Map(_) => false,
    }
}

fn secret_key(name: &str) -> Option<&'static Key> {
    keys::find(name).filter(|key| key.kind.is_secret())
}
