//! A PostgreSQL of a test's own that is reached by TCP with TLS only.

use super::pki::Pair;
use livepatch_onprem::app::postgres::find_programs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// It, running; stopped on drop.
pub struct TlsPostgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    port: u16,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

impl TlsPostgres {
    /// Starts one that shows this certificate.
    pub fn start(pair: &Pair) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let postgres = Self {
            folder,
            bin: find_programs().unwrap(),
            port,
        };
        let data = postgres.data();
        std::fs::create_dir(&data).unwrap();
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&data, closed).unwrap();
        if let Some(account) = account() {
            run(Command::new("chown").arg(account).arg(&data));
        }
        let mut initdb = postgres.program("initdb");
        run(initdb.args(["-U", "livepatch", "-A", "trust", "--no-locale", "--no-sync"]));
        // By TCP with TLS or not at all, so that who gets in came by TLS.
        let hosts = "hostssl all all 127.0.0.1/32 trust\n";
        std::fs::write(data.join("pg_hba.conf"), hosts).unwrap();
        let config = format!(
            "ssl = on\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nfsync = off\n"
        );
        // What `initdb` found out of this machine stays.
        let place = data.join("postgresql.conf");
        let made = std::fs::read_to_string(&place).unwrap();
        std::fs::write(place, made + &config).unwrap();
        postgres.show(pair);
        let log = data.join("log");
        let mut start = postgres.program("pg_ctl");
        run(start.args(["-w", "-s", "-l"]).arg(log).arg("start"));
        postgres
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A program on its data, as the account that it has to run as.
    fn program(&self, name: &str) -> Command {
        let mut command = match account() {
            Some(account) => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", account, "--regid", account, "--clear-groups"])
                    .arg(self.bin.join(name));
                command
            }
            None => Command::new(self.bin.join(name)),
        };
        command.current_dir("/").arg("-D").arg(self.data());
        command
    }

    fn show(&self, pair: &Pair) {
        let owner = std::fs::metadata(self.data()).unwrap();
        for (name, content) in [("server.crt", pair.pem()), ("server.key", pair.key_pem())] {
            let path = self.data().join(name);
            std::fs::write(&path, content).unwrap();
            let closed = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, closed).unwrap();
            chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    }

    /// From now on, or soon, shows this certificate to who connects.
    pub fn renew(&self, pair: &Pair) {
        self.show(pair);
        run(self.program("pg_ctl").arg("reload"));
    }

    /// Connection string by this name, with these options.
    pub fn url(&self, options: &str) -> String {
        let port = self.port;
        format!("host=localhost port={port} user=livepatch dbname=postgres {options}")
    }
}

impl Drop for TlsPostgres {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        // The folder goes with it; a failure shows as a process that is left.
        let _ = stop.args(["-m", "immediate", "stop"]).output();
    }
}

/// PostgreSQL refuses to run as root: the account to borrow, when we are.
fn account() -> Option<&'static str> {
    let root = Path::new("/proc/self");
    (std::fs::metadata(root).unwrap().uid() == 0).then(|| {
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
        let known = accounts.lines().any(|line| line.starts_with("postgres:"));
        if known { "postgres" } else { "nobody" }
    })
}
