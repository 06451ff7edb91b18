//! `quickstart` as a real process: the first start, a start after kill -9, another password, a clean stop.

use crate::support::process::send_signal;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running quickstart and what it said when it was ready.
struct Quickstart {
    child: Child,
    welcome: String,
}

impl Quickstart {
    fn start(data: &Path, password: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-server"));
        command
            .args(["quickstart", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .env_remove("LIVEPATCH_ADMIN_PASSWORD")
            .stdout(Stdio::piped());
        if let Some(password) = password {
            command.env("LIVEPATCH_ADMIN_PASSWORD", password);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut welcome = String::new();
        // The last line of the welcome names this command.
        while !welcome.contains("livepatch-admin machine list") {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("it ended: {welcome}"))
                .unwrap();
            welcome += &line;
            welcome.push('\n');
        }
        Self { child, welcome }
    }

    fn said(&self, what: &str) -> &str {
        let line = self
            .welcome
            .lines()
            .find_map(|line| line.trim().strip_prefix(what));
        line.unwrap_or_else(|| panic!("{what}: {}", self.welcome))
            .trim()
    }

    fn signal(&self, name: &str) {
        send_signal(name, self.child.id());
    }

    fn stop(mut self) -> ExitStatus {
        self.signal("INT");
        self.child.wait().unwrap()
    }

    /// The status of a login.
    async fn login(&self, password: &str) -> u16 {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = http
            .get(format!("{}/v1/admin/session", self.said("URL")))
            .basic_auth("admin", Some(password));
        request.send().await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn everything_in_one_directory() {
    let folder = tempfile::Builder::new()
        .prefix("livepatch-quickstart-")
        .tempdir()
        .unwrap();
    // PostgreSQL runs as another account when this runs as root, and must get there.
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let data = folder.path().join("data");

    let mut first = Quickstart::start(&data, None);
    let password = first.said("password").to_owned();
    assert_eq!(password.len(), 20, "{password}");
    assert_eq!(first.login(&password).await, 200);
    assert_eq!(first.login("something else").await, 401);
    // What other commands need to work beside it, for nobody else to read.
    let kept = std::fs::metadata(data.join("livepatch.yaml")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o077, 0);
    // A second server on the same data is refused.
    let second = Command::new(env!("CARGO_BIN_EXE_livepatch-server"))
        .args(["quickstart", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server runs on"));
    first.signal("KILL");
    first.child.wait().unwrap();

    // Its database was left running; the data is as it was.
    let after = Quickstart::start(&data, None);
    assert!(
        after
            .said("password")
            .starts_with("(printed at the first start")
    );
    assert_eq!(after.login(&password).await, 200);
    assert!(after.stop().success());

    // Whoever lost the password gives another one.
    let renewed = Quickstart::start(&data, Some("a longer new one"));
    assert_eq!(renewed.login("a longer new one").await, 200);
    assert_eq!(renewed.login(&password).await, 401);
    assert!(renewed.stop().success());
    let left = std::fs::read_to_string(data.join("postgres/cluster/postmaster.pid"));
    assert!(left.is_err(), "PostgreSQL still runs");
}
