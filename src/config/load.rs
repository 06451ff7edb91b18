//! Reads the file and the environment, and collects every error before giving up.
//!
//! Order of precedence: an environment variable, then the file, then the default. A variable or key that is set to
//! nothing counts as not given. Reading files is a parameter, so that tests need none.

use super::assemble::assemble;
use super::checks;
use super::collect::Collector;
use super::error::{ConfigError, ErrorKind, Notice, NoticeLevel, Source};
use super::keys::{self, Key, Status};
use super::model::Config;
use super::value::{Value, default_of, parse};
use super::yaml::{self, Raw};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The file that is read when none is named; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/livepatch.yaml";
/// The environment variable that names the configuration file.
pub const LOCATION_VARIABLE: &str = "LIVEPATCH_CONFIG_LOCATION";
/// Where payloads are kept.
const STORAGE_TYPE: &str = "patch-storage.type";
/// What the names of all variables that stand for keys begin with.
pub(super) const PREFIX: &str = "LP_";

/// A configuration that may be used.
#[derive(Debug)]
pub struct Loaded {
    /// The typed configuration.
    pub config: Config,
    /// What should be said at start, one line each.
    pub notices: Vec<Notice>,
    /// Every key with its value and where that came from.
    pub sources: Values,
    /// The configuration file, if one was read.
    pub file: Option<PathBuf>,
}

/// A key's value and where it came from.
#[derive(Debug, Clone)]
pub struct Effective {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
}

/// Every key's effective value.
#[derive(Debug, Clone)]
pub struct Values(BTreeMap<&'static str, Effective>);

/// What a key that is not in the table stands at; only a misspelling in this program could ask for one.
static NOTHING: Effective = Effective {
    value: Value::Unset,
    source: Source::Default,
};

impl Values {
    /// Every key at its default.
    pub fn defaults() -> Self {
        let default = |key: &'static Key| Effective {
            value: default_of(key),
            source: Source::Default,
        };
        Self(
            keys::all()
                .iter()
                .map(|key| (key.name, default(key)))
                .collect(),
        )
    }

    /// The value of a key and where it came from.
    pub fn get(&self, name: &str) -> &Effective {
        debug_assert!(self.0.contains_key(name), "no key {name}");
        self.0.get(name).unwrap_or(&NOTHING)
    }

    /// Whether the key was given anywhere.
    pub fn given(&self, name: &str) -> bool {
        self.get(name).source != Source::Default
    }

    /// Every key, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Effective)> {
        self.0
            .iter()
            .filter_map(|(name, effective)| Some((keys::find(name)?, effective)))
    }
}

impl Config {
    /// Loads the configuration from `path` (or the file that `LIVEPATCH_CONFIG_LOCATION` names, or
    /// `/etc/livepatch.yaml` if it exists) and the given environment.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, Vec<ConfigError>> {
        load_with(path, env, &read_file)
    }
}

/// The variables of this process that concern the configuration. Bytes that are no UTF-8 are replaced, not fatal.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with(PREFIX) || name == LOCATION_VARIABLE)
}

fn read_file(path: &Path) -> io::Result<String> {
    // One byte more than any limit, so that a file that is too large is seen to be.
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(yaml::MAX_BYTES + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// As [`Config::load`], with the reading of files as a parameter.
///
/// # Errors
/// Everything that is wrong, not only the first.
pub fn load_with(
    path: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, Vec<ConfigError>> {
    let env: BTreeMap<String, String> = env.filter(|(_, value)| !value.trim().is_empty()).collect();
    let mut given = Collector {
        read,
        errors: Vec::new(),
    };

    let named = path
        .map(Path::to_owned)
        .or_else(|| env.get(LOCATION_VARIABLE).map(PathBuf::from));
    let (file, from_file) = given.file(named);
    let from_environment = given.environment(&env);
    let file_is_usable = !given
        .errors
        .iter()
        .any(|error| matches!(error.kind, ErrorKind::File | ErrorKind::Syntax));

    let mut values = Values::defaults();
    for (key, given_at) in from_file.into_iter().chain(from_environment) {
        match parse(key, &given_at.raw) {
            Ok(value) => {
                values.0.insert(
                    key.name,
                    Effective {
                        value,
                        source: given_at.source,
                    },
                );
            }
            Err(message) => {
                let error = swift_type(key, &given_at.raw)
                    .unwrap_or_else(|| ConfigError::new(ErrorKind::WrongType, key.name, message));
                given.errors.push(error.at(&given_at.source));
            }
        }
    }

    let mut notices = Vec::new();
    answers(&values, &mut given.errors, &mut notices);
    let config = assemble(&values, &mut given.errors);
    if file_is_usable {
        // A value that could not be read would only be complained about a second time.
        let known: Vec<String> = given
            .errors
            .iter()
            .map(|error| error.path.clone())
            .collect();
        let mut found = Vec::new();
        checks::check(&config, &values, &mut found, &mut notices);
        given.errors.extend(
            found
                .into_iter()
                .filter(|error| !known.contains(&error.path)),
        );
    }
    if given.errors.is_empty() {
        Ok(Loaded {
            config,
            notices,
            sources: values,
            file,
        })
    } else {
        Err(given.errors)
    }
}

/// The answer to `patch-storage.type: swift`, which Canonical's server takes.
fn swift_type(key: &Key, raw: &Raw) -> Option<ConfigError> {
    let Raw::Scalar { text, .. } = raw else {
        return None;
    };
    if key.name != STORAGE_TYPE || !text.trim().eq_ignore_ascii_case("swift") {
        return None;
    }
    let Status::Refused(answer) = keys::find("patch-storage.swift-container")?.status else {
        return None;
    };
    Some(ConfigError::new(
        ErrorKind::Refused,
        STORAGE_TYPE,
        answer.text,
    ))
}

/// Answers the keys that are given and not obeyed: one line for each group.
fn answers(values: &Values, errors: &mut Vec<ConfigError>, notices: &mut Vec<Notice>) {
    for (key, effective) in values.iter().filter(|(key, _)| values.given(key.name)) {
        match key.status {
            Status::Used => {}
            Status::Refused(answer) => {
                // One line for the whole group, and for a storage type of the same meaning.
                if !errors.iter().any(|error| error.message == answer.text) {
                    let error = ConfigError::new(ErrorKind::Refused, answer.group, answer.text);
                    errors.push(error.at(&effective.source));
                }
            }
            Status::Replaced(answer) => {
                let level = if effective.value == default_of(key) {
                    NoticeLevel::Note
                } else {
                    NoticeLevel::Warning
                };
                let text = format!("accepted and not used: {}", answer.text);
                match notices.iter_mut().find(|notice| notice.text == text) {
                    Some(notice) => {
                        notice.keys.push(key.name);
                        notice.level = notice.level.max(level);
                    }
                    None => notices.push(Notice {
                        level,
                        keys: vec![key.name],
                        text,
                    }),
                }
            }
            Status::NotYet(feature) => {
                if key.name == feature.switch && effective.value == Value::Bool(true) {
                    notices.push(Notice {
                        level: NoticeLevel::Warning,
                        keys: vec![key.name],
                        text: format!("not in this version: {}", feature.text),
                    });
                }
            }
        }
    }
}
