//! The session file: one session per server, readable only by its owner.

use super::CliError;
use crate::domain::{Role, Secret};
use crate::wire::admin::LoginAnswer;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A session as kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kept {
    /// Its token.
    #[serde(serialize_with = "expose")]
    pub token: Secret,
    /// Whose it is.
    pub user: String,
    /// What it may do.
    pub role: Role,
    /// It ends then at the latest.
    pub expires_at: Timestamp,
}

fn expose<S: serde::Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

impl From<LoginAnswer> for Kept {
    fn from(answer: LoginAnswer) -> Self {
        Self {
            token: answer.token,
            user: answer.user,
            role: answer.role,
            expires_at: answer.expires_at,
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Content {
    sessions: BTreeMap<String, Kept>,
}

/// The session file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// The file at this path; it need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the file lies if nothing else is said: `$XDG_STATE_HOME`, else `~/.local/state`.
    /// `None` if neither is known.
    pub fn default_path(
        state_home: Option<&std::ffi::OsStr>,
        home: Option<&std::ffi::OsStr>,
    ) -> Option<PathBuf> {
        let absolute =
            |p: Option<&std::ffi::OsStr>| p.map(PathBuf::from).filter(|p| p.is_absolute());
        absolute(state_home)
            .or_else(|| absolute(home).map(|home| home.join(".local/state")))
            .map(|dir| dir.join("livepatch-admin/session.json"))
    }

    /// The session for this server.
    pub fn get(&self, url: &str) -> Result<Option<Kept>, CliError> {
        Ok(self.read()?.sessions.remove(url))
    }

    /// Keeps a session for this server in place of the one before.
    pub fn put(&self, url: &str, kept: Kept) -> Result<(), CliError> {
        let mut content = self.read()?;
        content.sessions.insert(url.to_owned(), kept);
        self.write(&content)
    }

    /// Forgets the session for this server.
    pub fn remove(&self, url: &str) -> Result<(), CliError> {
        let mut content = self.read()?;
        match content.sessions.remove(url) {
            Some(_) => self.write(&content),
            None => Ok(()),
        }
    }

    fn read(&self) -> Result<Content, CliError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Content::default()),
            Err(e) => return Err(CliError::file("read the session file", &self.path, e)),
        };
        let mode = std::fs::metadata(&self.path)
            .map_err(|e| CliError::file("read the session file", &self.path, e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(CliError::file(
                "use the session file",
                &self.path,
                "others can read it; remove it and log in again",
            ));
        }
        serde_json::from_slice(&text).map_err(|e| {
            CliError::file(
                "read the session file",
                &self.path,
                format!("{e}; remove it and log in again"),
            )
        })
    }

    /// Writes a new file and moves it into place: a reader sees the old or the new one, and it is never open to others.
    fn write(&self, content: &Content) -> Result<(), CliError> {
        let failed = |why: String| CliError::file("write the session file", &self.path, why);
        let dir = match self.path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| failed(e.to_string()))?;
        let text = serde_json::to_vec_pretty(content).map_err(|e| failed(e.to_string()))?;
        // Mode 0600 is what the crate gives a temporary file.
        let mut file = tempfile::NamedTempFile::new_in(dir).map_err(|e| failed(e.to_string()))?;
        file.write_all(&text).map_err(|e| failed(e.to_string()))?;
        file.persist(&self.path)
            .map_err(|e| failed(e.to_string()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(token: &str) -> Kept {
        Kept {
            token: Secret::new(token),
            user: "admin".into(),
            role: Role::Admin,
            expires_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn sessions_are_kept_by_server_and_only_for_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/session.json");
        let store = Store::at(&path);
        assert!(store.get("http://one").unwrap().is_none());
        store.put("http://one", kept("lps_1")).unwrap();
        store.put("http://two", kept("lps_2")).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            store.get("http://two").unwrap().unwrap().token.expose(),
            "lps_2"
        );
        store.remove("http://one").unwrap();
        assert!(store.get("http://one").unwrap().is_none());
        assert!(store.get("http://two").unwrap().is_some());
        assert!(!format!("{:?}", store.get("http://two").unwrap()).contains("lps_2"));

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = store.get("http://two").unwrap_err().to_string();
        assert!(error.contains("others can read it"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "{").unwrap();
        let error = store.get("http://two").unwrap_err().to_string();
        assert!(error.contains("log in again"), "{error}");
    }

    #[test]
    fn the_file_lies_where_state_belongs() {
        let path = |a: Option<&str>, b: Option<&str>| {
            Store::default_path(a.map(AsRef::as_ref), b.map(AsRef::as_ref))
        };
        assert_eq!(
            path(Some("/s"), Some("/h")),
            Some("/s/livepatch-admin/session.json".into())
        );
        assert_eq!(
            path(Some(""), Some("/h")),
            Some("/h/.local/state/livepatch-admin/session.json".into())
        );
        assert_eq!(path(None, None), None);
    }
}
