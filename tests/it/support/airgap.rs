//! Sites for the tests of archives: a server each, and the commands that work beside it.

use super::server::TestServer;
use livepatch_onprem::config::Config;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A server with a configuration file for commands.
pub struct Site {
    pub server: TestServer,
    config: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub status: std::process::ExitStatus,
    /// Both outputs.
    pub text: String,
}

impl Said {
    /// Fails unless the command went well and said this.
    #[track_caller]
    pub fn well(self, part: &str) -> Self {
        assert!(self.status.success(), "{}: {}", self.status, self.text);
        assert!(self.text.contains(part), "{part:?} expected: {}", self.text);
        self
    }

    /// Fails unless the command failed and said this.
    #[track_caller]
    pub fn refused(self, part: &str) -> Self {
        assert_eq!(self.status.code(), Some(1), "{}", self.text);
        assert!(self.text.contains(part), "{part:?} expected: {}", self.text);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self {
            status: output.status,
            text: String::from_utf8(text).unwrap(),
        }
    }
}

impl Site {
    /// An empty one.
    pub async fn empty() -> Self {
        Self::with(|_| {}).await
    }

    /// With a changed configuration of the server; commands do not see the change.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::of(TestServer::with(change).await)
    }

    /// With two patches, of which 106.1 has reached stable.
    pub async fn staging() -> Self {
        let site = Self::of(TestServer::with_two_patches().await);
        site.promote("106.1", "stable").await;
        site
    }

    fn of(server: TestServer) -> Self {
        let config = server.folder.path().join("livepatch.yaml");
        let site = Self { server, config };
        site.configure("");
        site
    }

    /// Writes the configuration of commands anew, with these further lines.
    pub fn configure(&self, more: &str) {
        let core = self.server.core();
        let certificate = &core.config.patch_trust.certificates[0];
        let text = format!(
            "database.connection-string: \"{}\"\npatch-storage.filesystem-path: {}\npatch-trust.certificates: [{}]\n{more}",
            self.server.db.url(),
            core.config.patch_storage.filesystem_path.display(),
            certificate.display(),
        );
        std::fs::write(&self.config, text).unwrap();
    }

    /// Lets a patch reach a tier.
    pub async fn promote(&self, version: &str, tier: &str) {
        let path = format!("patches/{version}/promote");
        let body = serde_json::json!({ "tier": tier });
        self.server.admin("POST", &path, body).await;
    }

    /// A command of livepatch-server on this site's database and storage.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-server"));
        command.args(args).arg("--config").arg(&self.config);
        command.stdin(std::process::Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Said {
        ended(self.command(args)).await
    }

    /// Writes an archive into a folder that is made for it, and returns the folder.
    pub async fn export(&self, args: &[&str]) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = self.server.folder.path().join(format!("archive-{n}"));
        std::fs::create_dir(&folder).unwrap();
        let mut all = vec!["export", "-o", folder.to_str().unwrap()];
        all.extend(args);
        self.run(&all).await.well("Version ");
        folder
    }

    /// Trusts another site's key.
    pub async fn trust(&self, other: &Self) {
        let shown = other.run(&["keys", "show"]).await.well("ed25519:").text;
        self.run(&["keys", "trust", shown.trim(), "--name", "other"])
            .await
            .well("is trusted");
    }

    /// Takes in an archive.
    pub async fn import(&self, folder: &Path, args: &[&str]) -> Said {
        let mut all = vec!["import", folder.to_str().unwrap(), "--yes"];
        all.extend(args);
        self.run(&all).await
    }

    /// A number that a query gives.
    pub async fn number(&self, sql: &str) -> i64 {
        let client = self.server.db.raw().await;
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Payloads that people see.
    pub async fn visible(&self) -> i64 {
        self.number("select count(*) from payloads where staged is null")
            .await
    }
}

/// Runs a command to its end.
pub async fn ended(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    output.await.unwrap().into()
}

/// The only file of a folder.
pub fn only(folder: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}
