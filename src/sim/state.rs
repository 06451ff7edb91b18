//! The state directory: one JSON file, a lock and the verified modules.
//!
//! Invariants: directory 0700 and files 0600, since the machine token stands there; the state file is replaced whole
//! (written beside, synced, renamed), so that a crash leaves the old or the new one.

use super::error::{Error, file};
use super::tls::TlsFiles;
use crate::domain::Fix;
use crate::domain::{
    Architecture, KernelSupport, KernelVersion, MachineId, MachineState, PatchVersion, Sha256,
    TierName,
};
use crate::wire::{Reason, Token};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file's format; a later one is refused.
const FORMAT: u32 = 1;
const STATE_FILE: &str = "state.json";
const LOCK_FILE: &str = "lock";
const TEMPORARY: &str = ".new-";

/// What an enabled client remembers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ClientState {
    format: u32,
    /// The server's address.
    pub server: String,
    /// The machine registered there.
    pub machine_id: MachineId,
    /// What the machine shows.
    pub machine_token: Token<'static>,
    /// The tier, as the server last said.
    pub tier: TierName,
    /// Minutes between checks, as the server last said.
    pub check_interval: u32,
    /// When the machine registered.
    pub enabled_at: Timestamp,
    /// Options given when enabling.
    pub settings: Settings,
    /// When a server last answered a check.
    #[serde(default)]
    pub last_check: Option<Timestamp>,
    /// Why the last check failed; nothing if it did not.
    #[serde(default)]
    pub check_error: Option<String>,
    /// Whether the kernel is supported, as the server last said.
    #[serde(default)]
    pub supported: Option<KernelSupport>,
    /// From when on it is not, as the server last said.
    #[serde(default)]
    pub upgrade_required_date: Option<Date>,
    /// Why the server answered as it did.
    #[serde(default)]
    pub reasons: Vec<Reason>,
    /// The patch that is here.
    #[serde(default)]
    pub patch: Option<HeldPatch>,
}

/// Options given when enabling, which later commands take over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// Kernel to speak for instead of the running one.
    #[serde(default)]
    pub kernel: Option<KernelVersion>,
    /// Architecture to speak for.
    #[serde(default)]
    pub architecture: Option<Architecture>,
    /// Build date of that kernel.
    #[serde(default)]
    pub build_date: Option<Date>,
    /// PEM file with the certificates for TLS.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// PEM file with the certificate to show.
    #[serde(default)]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(default)]
    pub tls_key: Option<PathBuf>,
    /// Certificates that patches must be signed with.
    #[serde(default)]
    pub certs: Vec<PathBuf>,
    /// Refuse patch downloads without TLS.
    #[serde(default)]
    pub tls_patch_download: bool,
}

impl Settings {
    /// The files for TLS.
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            ca: self.ca.clone(),
            tls_cert: self.tls_cert.clone(),
            tls_key: self.tls_key.clone(),
        }
    }
}

/// A verified patch that is kept, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldPatch {
    /// The patch.
    pub version: PatchVersion,
    /// The kernel it is for.
    pub kernel: KernelVersion,
    /// Name of the payload it came in.
    pub filename: String,
    /// Digest of that payload.
    pub sha256: Sha256,
    /// The module's name in the kernel.
    pub module_name: String,
    /// The kept file's name inside the state directory.
    pub module_file: String,
    /// Its digest.
    pub module_sha256: Sha256,
    /// Who signed it; nothing if that was not checked.
    #[serde(default)]
    pub signer: Option<String>,
    /// What became of it.
    pub state: MachineState,
    /// Whether `applied` was only assumed, for a simulated machine.
    #[serde(default)]
    pub assumed: bool,
    /// The boot in which the state was reached.
    #[serde(default)]
    pub boot_id: String,
    /// What it fixes, as the server said.
    #[serde(default)]
    pub fixes: Vec<Fix>,
}

impl ClientState {
    /// The state of a machine that has just registered.
    pub fn new(
        server: String,
        machine_id: MachineId,
        machine_token: Token<'static>,
        tier: TierName,
        check_interval: u32,
        enabled_at: Timestamp,
        settings: Settings,
    ) -> Self {
        Self {
            format: FORMAT,
            server,
            machine_id,
            machine_token,
            tier,
            check_interval,
            enabled_at,
            settings,
            last_check: None,
            check_error: None,
            supported: None,
            upgrade_required_date: None,
            reasons: Vec::new(),
            patch: None,
        }
    }

    /// The state to report for the patch.
    pub fn patch_state(&self) -> MachineState {
        match (&self.patch, self.supported) {
            (Some(patch), _) => patch.state,
            (None, Some(KernelSupport::KernelUpgradeRequired)) => {
                MachineState::KernelUpgradeRequired
            }
            (None, Some(_)) => MachineState::NothingToApply,
            (None, None) => MachineState::NeedsCheck,
        }
    }

    /// The word for the last check.
    pub fn check_state(&self) -> &'static str {
        match (&self.check_error, self.last_check) {
            (Some(_), _) => "check-failed",
            (None, Some(_)) => "checked",
            (None, None) => "needs-check",
        }
    }
}

/// The directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Held while the state may change; two clients on one directory would undo each other's work.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl StateDir {
    /// Names a directory; nothing is touched yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where state is kept unless told otherwise: the system's place for root, the user's own for others.
    pub fn default_path(root: bool) -> PathBuf {
        if root {
            return PathBuf::from("/var/lib/livepatch-client");
        }
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
        let base = std::env::var_os("XDG_STATE_HOME")
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
            .or_else(home);
        base.unwrap_or_else(std::env::temp_dir)
            .join("livepatch-client")
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a kept file.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates the directory if need be and takes the lock; fails at once if another client holds it.
    pub fn lock(&self) -> Result<Lock, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|e| {
                file(
                    "create the state directory",
                    &self.path,
                    format!("{e}; give another with --state-dir"),
                )
            })?;
        let path = self.file(LOCK_FILE);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| {
                file(
                    "open",
                    &path,
                    format!("{e}; give another directory with --state-dir"),
                )
            })?;
        match lock.try_lock() {
            Ok(()) => Ok(Lock { _file: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Local(format!(
                "another livepatch-client is working in {}; wait for it to end",
                self.path.display()
            ))),
            Err(TryLockError::Error(e)) => Err(file("lock", &path, e)),
        }
    }

    /// Reads the state; nothing if the machine is not enabled.
    pub fn load(&self) -> Result<Option<ClientState>, Error> {
        let path = self.file(STATE_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(file("read", &path, e)),
        };
        let next = "restore the file, or remove it and enable again";
        // The reason is given by place only: serde_json quotes what it read, and the token stands there.
        let state: ClientState = serde_json::from_slice(&bytes).map_err(|e| {
            let place = format!("line {}, column {}", e.line(), e.column());
            file("use", &path, format!("it is damaged ({place}); {next}"))
        })?;
        if state.format != FORMAT {
            return Err(file(
                "use",
                &path,
                format!(
                    "it has format {}, this client reads {FORMAT}; {next}",
                    state.format
                ),
            ));
        }
        Ok(Some(state))
    }

    /// Reads the state of an enabled machine.
    pub fn load_enabled(&self) -> Result<ClientState, Error> {
        self.load()?.ok_or_else(|| {
            Error::Local(format!(
                "this machine is not enabled (nothing in {}); run `livepatch-client enable --server URL TOKEN`",
                self.path.display()
            ))
        })
    }

    /// Replaces the state.
    pub fn save(&self, state: &ClientState) -> Result<(), Error> {
        let mut json = serde_json::to_vec_pretty(state)
            .map_err(|e| file("write", &self.file(STATE_FILE), e))?;
        json.push(b'\n');
        self.write(STATE_FILE, &json)
    }

    /// Replaces a file, whole.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.file(name);
        let failed = |e: std::io::Error| file("write", &path, e);
        let mut new = self.temporary()?;
        new.write_all(bytes).map_err(failed)?;
        new.as_file().sync_all().map_err(failed)?;
        new.persist(&path).map_err(|e| failed(e.error))?;
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(failed)
    }

    /// A new file in the directory that vanishes unless it is kept.
    pub fn temporary(&self) -> Result<tempfile::NamedTempFile, Error> {
        tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.path)
            .map_err(|e| file("create a file in", &self.path, e))
    }

    /// Removes a kept file; it is no error if it is gone.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.file(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Removes modules and half-written files that a killed client left behind, all but `keep`. Needs the lock.
    pub fn prune(&self, keep: Option<&str>) -> Result<(), Error> {
        let failed = |e: std::io::Error| file("tidy up", &self.path, e);
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let module = name.starts_with("livepatch-")
                && Path::new(name).extension().is_some_and(|e| e == "ko");
            if name.starts_with(TEMPORARY) || (module && Some(name) != keep) {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// Forgets the state and the kept module.
    pub fn clear(&self, state: &ClientState) -> Result<(), Error> {
        if let Some(patch) = &state.patch {
            self.remove(&patch.module_file)?;
        }
        self.remove(STATE_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> ClientState {
        ClientState::new(
            "https://h/".to_owned(),
            MachineId([3; 16]),
            Token::new("lpm_x"),
            "stable".parse().unwrap(),
            60,
            Timestamp::UNIX_EPOCH,
            Settings::default(),
        )
    }

    #[test]
    fn state_is_kept_private_and_read_back() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path().join("a/b"));
        assert!(dir.load().unwrap().is_none());
        let lock = dir.lock().unwrap();
        assert!(
            dir.lock()
                .unwrap_err()
                .to_string()
                .contains("another livepatch-client")
        );
        dir.save(&state()).unwrap();
        let read = dir.load_enabled().unwrap();
        assert_eq!(
            (read.machine_token.expose(), read.patch_state()),
            ("lpm_x", MachineState::NeedsCheck)
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(dir.path()), mode(&dir.file(STATE_FILE))),
            (0o700, 0o600)
        );
        dir.clear(&read).unwrap();
        assert!(dir.load().unwrap().is_none());
        drop(lock);
        dir.lock().unwrap();
    }

    #[test]
    fn a_damaged_state_file_is_refused_without_showing_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        for (text, expected) in [
            ("{\"machine-token\": \"canary", "damaged (line 1"),
            ("{\"format\": \"canary\"}", "damaged (line 1"),
            ("", "damaged"),
        ] {
            std::fs::write(dir.file(STATE_FILE), text).unwrap();
            let error = dir.load().unwrap_err().to_string();
            assert!(
                error.contains(expected)
                    && error.contains("enable again")
                    && !error.contains("canary"),
                "{error}"
            );
        }
        let mut later = state();
        later.format = 2;
        dir.save(&later).unwrap();
        assert!(dir.load().unwrap_err().to_string().contains("format 2"));
    }
}
