//! `livepatch-client` without a server: arguments, status documents, damaged state, nobody who answers.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const KERNEL: &str = "5.15.0-107.117-generic";

fn client(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-client"));
    command
        .env_remove("LIVEPATCH_CLIENT_STATE_DIR")
        .env("NO_PROXY", "127.0.0.1")
        .args(["--state-dir", state.to_str().unwrap()])
        .stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn run(state: &Path, args: &[&str]) -> (i32, String, String) {
    ended(&client(state).args(args).output().unwrap())
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The state of an enabled machine with one patch, as the client writes it.
fn state_file() -> Value {
    json!({
        "format": 1,
        "server": "https://livepatch.example.com",
        "machine-id": MACHINE,
        "machine-token": "lpm_canary",
        "tier": "beta",
        "check-interval": 60,
        "enabled-at": "2025-06-01T00:00:00Z",
        "settings": {"kernel": KERNEL, "architecture": "amd64"},
        "last-check": "2025-06-03T08:15:42Z",
        "supported": "supported",
        "upgrade-required-date": "2026-06-01",
        "reasons": [{"code": "newest", "text": "patch 112.1 is the newest in tier beta", "version": "112.1"}],
        "patch": {
            "version": "112.1",
            "kernel": KERNEL,
            "filename": "livepatch-5.15.0-107.117-generic-112.1-amd64.tar.bz2",
            "sha256": "ab".repeat(32),
            "module-name": "lkp_Ubuntu_5_15_0_107_117_generic_112",
            "module-file": "livepatch-5.15.0-107.117-generic-112.1-amd64.ko",
            "module-sha256": "cd".repeat(32),
            "signer": "CN=Test Signing",
            "state": "applied",
            "assumed": true,
            "fixes": [{"name": "CVE-2025-21756", "description": "vsock"}]
        }
    })
}

fn enabled(state: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), state.to_string()).unwrap();
    dir
}

/// Replaces what differs between machines and moments.
fn steady(text: &str) -> String {
    let steady = |line: &str| {
        let key = line
            .trim_start()
            .trim_start_matches('"')
            .split(['"', ':'])
            .next()
            .unwrap_or_default();
        let machine = ["boot-time", "cpu-model", "uptime"]
            .iter()
            .any(|k| k.eq_ignore_ascii_case(key));
        let at = line
            .find(':')
            .filter(|_| machine)
            .map_or(line.len(), |at| at + 1);
        format!(
            "{}{}\n",
            &line[..at],
            if machine { " [machine]" } else { "" }
        )
    };
    text.lines().map(steady).collect()
}

#[test]
fn status_is_printed_in_the_public_shapes() {
    let dir = enabled(&state_file());
    for (format, name) in [
        ("json", "status-printed.json"),
        ("yaml", "status-printed.yaml"),
        ("human", "status-printed.txt"),
    ] {
        let (code, out, err) = run(dir.path(), &["status", "--format", format]);
        assert_eq!((code, err.as_str()), (0, ""), "{format}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/client")
            .join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, steady(&out)).unwrap();
        }
        assert_eq!(
            steady(&out),
            fs::read_to_string(&path).unwrap(),
            "{} differs",
            path.display()
        );
    }
}

#[test]
fn a_status_never_shows_the_token() {
    let dir = enabled(&state_file());
    for format in ["human", "json", "yaml"] {
        let (_, out, err) = run(dir.path(), &["status", "--format", format]);
        assert!(
            out.contains("112.1") && !out.contains("canary") && !err.contains("canary"),
            "{out}{err}"
        );
    }
}

#[test]
fn a_patch_for_another_kernel_or_machine_is_not_mixed_up() {
    let dir = enabled(&state_file());
    let (code, _, err) = run(dir.path(), &["--machine-id", &"1".repeat(32), "status"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("belongs to machine 0f1e") && err.contains("--state-dir"),
        "{err}"
    );
}

#[test]
fn a_machine_that_is_not_enabled_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["check", "status", "disable", "daemon"] {
        let (code, out, err) = run(dir.path(), &[command]);
        assert_eq!((code, out.as_str()), (1, ""), "{command}");
        assert!(
            err.contains("not enabled") && err.contains("livepatch-client enable"),
            "{command}: {err}"
        );
    }
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let enable =
        |more: &[&'static str]| [&["enable", "--server", "http://127.0.0.1:1"][..], more].concat();
    let cases = [
        (vec![], "Usage:"),
        (vec!["enable", "token"], "--server"),
        (
            vec!["status", "--format", "xml"],
            "[possible values: human, json, yaml]",
        ),
        (
            vec!["--kernel", "5.15", "status"],
            "BASE-ABI.UPLOAD-FLAVOUR",
        ),
        (vec!["--arch", "z80", "status"], "amd64"),
        (
            vec!["--machine-id", "xyz", "status"],
            "32 hexadecimal digits",
        ),
        (vec!["--build-date", "May", "status"], "--build-date"),
        (
            vec!["enable", "--server", "livepatch.example.com", "t"],
            "not a server address",
        ),
        (vec!["enable", "--server", "ftp://h/", "t"], "http://"),
        (
            vec!["enable", "--server", "https://u:canary@h/", "t"],
            "user name or password",
        ),
        (
            vec!["enable", "--server", "https://h/?a=b", "t"],
            "neither ? nor #",
        ),
        (enable(&["a b"]), "characters that no token has"),
        (enable(&["-"]), "token is empty"),
        (
            enable(&["t", "--apply", "--assume-applied"]),
            "cannot be used with",
        ),
        (
            enable(&["t", "--cert", "x", "--insecure-skip-signature"]),
            "cannot be used with",
        ),
    ];
    for (args, expected) in cases {
        let (code, out, err) = run(dir.path(), &args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(
            err.contains(expected) && !err.contains("canary"),
            "{args:?}: {err}"
        );
    }
    assert!(!dir.path().join("state.json").exists());
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk.pem");
    fs::write(&junk, "canary").unwrap();
    let junk = junk.to_str().unwrap();
    let enable = [
        "enable",
        "--server",
        "https://127.0.0.1:1",
        "--machine-id",
        MACHINE,
        "t",
    ];
    for (more, expected) in [
        (["--cert", "/nowhere/c.pem"], "/nowhere/c.pem"),
        (["--cert", junk], "junk.pem"),
        (["--ca", "/nowhere/ca.pem"], "/nowhere/ca.pem"),
        (["--ca", junk], "--ca"),
    ] {
        let (code, _, err) = run(&dir.path().join("state"), &[&enable[..], &more].concat());
        assert!(code == 1 || code == 2, "{more:?}: {code}");
        assert!(
            err.contains(expected) && err.contains(more[0]) && !err.contains("canary"),
            "{more:?}: {err}"
        );
    }
}

#[test]
fn a_damaged_state_file_is_named_with_a_way_out() {
    for damage in ["{\"machine-token\": \"canary", "[]", "", "{\"format\": 1}"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), damage).unwrap();
        for command in ["status", "check", "disable"] {
            let (code, out, err) = run(dir.path(), &[command]);
            assert_eq!((code, out.as_str()), (1, ""), "{damage}: {command}");
            assert!(
                err.contains("state.json")
                    && err.contains("enable again")
                    && !err.contains("canary"),
                "{err}"
            );
        }
        let left = fs::read_to_string(dir.path().join("state.json")).unwrap();
        assert_eq!(left, damage, "the file was changed");
    }
}

/// A port on which nobody listens.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[test]
fn nobody_who_answers_is_a_clear_failure_and_changes_nothing() {
    let server = format!("http://127.0.0.1:{}", dead_port());
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = run(
        dir.path(),
        &[
            "enable",
            "--server",
            &server,
            "--machine-id",
            MACHINE,
            "--kernel",
            KERNEL,
            "canary",
        ],
    );
    assert_eq!(code, 1);
    assert!(
        err.contains(&server) && err.contains("could not be reached") && !err.contains("canary"),
        "{err}"
    );
    assert!(!dir.path().join("state.json").exists());

    let mut state = state_file();
    state["server"] = json!(server);
    let dir = enabled(&state);
    let (code, _, err) = run(dir.path(), &["check"]);
    assert_eq!(code, 1);
    assert!(err.contains("checking for patches failed"), "{err}");
    // The failure is remembered and shown, the patch is still there.
    let (_, out, _) = run(dir.path(), &["status", "--format", "json"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        document["Status"][0]["Livepatch"]["CheckState"],
        "check-failed"
    );
    assert_eq!(document["Status"][0]["Livepatch"]["State"], "applied");

    let (code, _, err) = run(dir.path(), &["disable"]);
    assert_eq!(code, 1);
    assert!(
        err.contains("--force") && dir.path().join("state.json").exists(),
        "{err}"
    );
    let (code, out, _) = run(dir.path(), &["disable", "--force"]);
    assert_eq!(code, 0, "{out}");
    assert!(!dir.path().join("state.json").exists());
}

#[test]
fn the_daemon_survives_failures_and_ends_on_sigterm() {
    let mut state = state_file();
    state["server"] = json!(format!("http://127.0.0.1:{}", dead_port()));
    let dir = enabled(&state);
    let mut child = client(dir.path())
        .arg("daemon")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(
        first.contains("could not be reached") && first.contains("next try in "),
        "{first}"
    );
    let seconds: u64 = first
        .rsplit_once("next try in ")
        .unwrap()
        .1
        .trim_end_matches(" s")
        .parse()
        .unwrap();
    assert!((27..=33).contains(&seconds), "{first}");
    let id = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn two_clients_do_not_work_in_one_directory() {
    let dir = enabled(&state_file());
    let lock = fs::File::create(dir.path().join("lock")).unwrap();
    lock.lock().unwrap();
    let (code, _, err) = run(dir.path(), &["check"]);
    assert_eq!(code, 1);
    assert!(err.contains("another livepatch-client is working"), "{err}");
    // Looking is always possible.
    assert_eq!(run(dir.path(), &["status"]).0, 0);
}

#[test]
fn completions_and_help_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(dir.path(), &["completion", shell]);
        assert!(
            code == 0 && out.contains("livepatch-client") && out.contains("assume-applied"),
            "{shell}"
        );
    }
    let (code, out, _) = run(dir.path(), &["--help"]);
    assert_eq!(code, 0);
    for line in [
        "0  done",
        "3  the server does not accept the token",
        "4  a patch was refused",
    ] {
        assert!(out.contains(line), "{out}");
    }
}
