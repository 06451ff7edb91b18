//! Inserting a patch, against a kernel made of a directory and two scripts: which pings go out, what is reported, what a
//! reboot changes. A real kernel takes part in the walk through a virtual machine, not here.

use crate::support::kmod;
use crate::support::scripted::{MACHINE, Machine, Server, TEXT, words};
use livepatch_onprem::bundle::TrustStore;
use livepatch_onprem::domain::MachineState;
use livepatch_onprem::sim::check::{How, Mode, Outcome, Session};
use livepatch_onprem::sim::error::Error;
use livepatch_onprem::sim::facts::Given;
use livepatch_onprem::sim::insert::Kernel;
use livepatch_onprem::sim::state::StateDir;
use livepatch_onprem::sim::verify::Trust;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Takes a module: `$1` is its file, `$S` the place where live patches are shown.
const TAKES: &str =
    r"N=$(cat $S/../name); mkdir $S/$N && echo 1 > $S/$N/enabled && echo 0 > $S/$N/transition";

fn tool(dir: &Path, name: &str, script: &str) -> PathBuf {
    let path = dir.join(name);
    let sysfs = dir.join("livepatch");
    fs::write(
        &path,
        format!("#!/bin/sh\nS={}\n{script}\n", sysfs.display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn kernel(dir: &Path, insmod: &str) -> Kernel {
    fs::create_dir_all(dir.join("livepatch")).unwrap();
    fs::write(dir.join("name"), kmod::kernel().module_name(107)).unwrap();
    Kernel {
        sysfs: dir.join("livepatch"),
        modules: dir.join("module"),
        insmod: tool(dir, "insmod", insmod),
        rmmod: tool(dir, "rmmod", "rm -r $S/$1"),
        transition: Duration::from_millis(300),
        release: kmod::kernel().release(),
    }
}

fn how() -> How {
    let mut trust = TrustStore::new();
    trust.add(&kmod::keys().cert_pem()).unwrap();
    How {
        mode: Mode::Apply,
        trust: Trust::Certificates(trust),
    }
}

fn session(machine: &Machine, kernel: Kernel, boot: &str) -> Session {
    let mut session = Session::open(StateDir::new(machine.dir.path()), &Given::default()).unwrap();
    session.kernel = kernel;
    boot.clone_into(&mut session.facts.boot_id);
    session
}

/// The pings among what was heard: type, state, message.
fn pings(server: &Server) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let seen = server.heard();
    let pings = seen.iter().filter(|s| s.what == "POST pings");
    pings
        .map(|s| {
            (
                text(&s.body["ping-type"]),
                text(&s.body["patch-state"]),
                text(&s.body["message"]),
            )
        })
        .collect()
}

fn types(pings: &[(String, String, String)]) -> String {
    let types: Vec<_> = pings.iter().map(|(kind, ..)| kind.as_str()).collect();
    types.join(" ")
}

#[tokio::test]
async fn a_patch_is_applied_reported_and_applied_again_after_a_reboot() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::ready(&server).await;
    let root = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let version = "107.1".parse().unwrap();

    let mut first = session(&machine, kernel(root.path(), TAKES), "boot 1");
    assert_eq!(
        first.check(&how(), &stop).await.unwrap(),
        Outcome::Applied(version)
    );
    assert_eq!(
        first
            .warnings
            .iter()
            .filter(|w| !w.contains("--kernel"))
            .count(),
        0,
        "{:?}",
        first.warnings
    );
    let seen = server.heard();
    let asked = [
        "POST updates",
        "GET file",
        "POST pings",
        "POST pings",
        "POST pings",
        "POST pings",
        "POST updates",
    ];
    assert_eq!(words(&seen), asked);
    let kinds: Vec<_> = seen[2..6]
        .iter()
        .map(|s| s.body["ping-type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["ping_before", "ping_after", "ping_transition", "ping_0"]
    );
    assert_eq!(seen[5].body["patch-state"], "applied");
    assert_eq!(seen[5].body["kernel"], kmod::kernel().to_string());
    assert_eq!(seen[6].body["Status"][0]["Livepatch"]["State"], "applied");
    assert_eq!(seen[6].body["Machine-Id"], MACHINE);

    // In the same boot nothing is inserted twice.
    let mut again = session(&machine, kernel(root.path(), "exit 1"), "boot 1");
    assert_eq!(
        again.check(&how(), &stop).await.unwrap(),
        Outcome::Unchanged(version, MachineState::Applied)
    );
    assert_eq!(pings(&server), []);

    // A reboot takes the patch out: it is said so, and put in again.
    fs::remove_dir_all(root.path().join("livepatch")).unwrap();
    let mut rebooted = session(&machine, kernel(root.path(), TAKES), "boot 2");
    assert_eq!(
        rebooted.check(&how(), &stop).await.unwrap(),
        Outcome::Applied(version)
    );
    let seen = server.heard();
    assert_eq!(seen[0].body["Status"][0]["Livepatch"]["State"], "unapplied");
    assert_eq!(seen[1].body["ping-type"], "ping_before_rebooted");
    assert!(
        seen.iter().all(|s| s.what != "GET file"),
        "the kept module suffices"
    );
}

#[tokio::test]
async fn another_revision_under_the_same_name_replaces_the_first() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::ready(&server).await;
    let root = tempfile::tempdir().unwrap();
    let mut kernel = kernel(root.path(), TAKES);
    kernel.rmmod = tool(root.path(), "rmmod", "echo $1 > $S/../removed");
    kernel.transition = Duration::from_secs(10);
    // One is there already, enabled. As a real kernel does, this one takes it away once it is disabled.
    let name = kmod::kernel().module_name(107);
    let shown = kernel.sysfs.join(&name);
    fs::create_dir_all(&shown).unwrap();
    fs::write(shown.join("enabled"), "1").unwrap();
    fs::create_dir_all(kernel.modules.join(&name)).unwrap();
    let watcher = std::thread::spawn(move || {
        while fs::read_to_string(shown.join("enabled")).unwrap() != "0" {
            std::thread::yield_now();
        }
        fs::remove_dir_all(shown).unwrap();
    });
    let outcome = session(&machine, kernel, "b")
        .check(&how(), &CancellationToken::new())
        .await;
    assert!(matches!(outcome, Ok(Outcome::Applied(_))), "{outcome:?}");
    watcher.join().unwrap();
    assert_eq!(
        fs::read_to_string(root.path().join("removed"))
            .unwrap()
            .trim(),
        name
    );
}

#[tokio::test]
async fn a_kernel_that_refuses_is_reported_with_its_words() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::ready(&server).await;
    let root = tempfile::tempdir().unwrap();
    let stop = CancellationToken::new();
    let refuses = "echo 'insmod: Invalid module format' >&2; exit 1";
    let error = session(&machine, kernel(root.path(), refuses), "b")
        .check(&how(), &stop)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Insert(_)) && error.exit_code() == 1,
        "{error}"
    );
    assert!(
        error.to_string().contains("Invalid module format"),
        "{error}"
    );
    let seen = server.heard();
    let last = &seen.last().unwrap().body["Status"][0]["Livepatch"];
    // The check itself did not fail.
    assert_eq!(
        (&last["State"], &last["CheckState"]),
        (&Value::from("apply-failed"), &Value::from("checked"))
    );
    let ping = &seen[seen.len() - 2].body;
    assert_eq!(
        (&ping["ping-type"], &ping["patch-state"]),
        (&Value::from("ping_err"), &Value::from("apply-failed"))
    );
    assert!(
        ping["message"]
            .as_str()
            .unwrap()
            .contains("Invalid module format")
    );

    // The next check tries again, with what is kept.
    let mut second = session(&machine, kernel(root.path(), TAKES), "b");
    assert!(matches!(
        second.check(&how(), &stop).await,
        Ok(Outcome::Applied(_))
    ));
    assert_eq!(
        types(&pings(&server)),
        "ping_before ping_after ping_transition ping_0"
    );
}

#[tokio::test]
async fn a_module_for_another_kernel_is_never_inserted() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::ready(&server).await;
    let root = tempfile::tempdir().unwrap();
    let mut other = kernel(root.path(), TAKES);
    other.release = "9.9.9-1-generic".to_owned();
    let error = session(&machine, other, "b")
        .check(&how(), &CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("9.9.9-1-generic runs here") && error.exit_code() == 4,
        "{error}"
    );
    assert_eq!(
        fs::read_dir(root.path().join("livepatch")).unwrap().count(),
        0
    );
    assert_eq!(pings(&server), []);
}

#[tokio::test]
async fn a_signal_ends_a_download_and_leaves_nothing_behind() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::ready(&server).await;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    // The signal comes while the file is on its way, which never ends.
    server.instead("GET file", move || {
        cancel.cancel();
        let nothing = futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
        axum::response::IntoResponse::into_response(axum::body::Body::from_stream(nothing))
    });
    let root = tempfile::tempdir().unwrap();
    let error = session(&machine, kernel(root.path(), TAKES), "b")
        .check(&how(), &stop)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(machine.files(), Vec::<String>::new());
    assert_eq!(machine.livepatch().await["CheckState"], "checked");
}
