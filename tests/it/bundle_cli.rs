//! `livepatch-server bundle pack|inspect` as a person or a script uses it, on real modules.

use crate::support::kmod;
use clap::Parser;
use livepatch_onprem::server_cli::bundle::{BundleArgs, run_to};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TEXT: &str = "patched by 107.1";

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: BundleArgs,
}

/// Runs a command line; gives its output and exit code.
fn bundle(args: &[&str]) -> anyhow::Result<(String, ExitCode)> {
    let cli = Cli::try_parse_from(["bundle"].iter().chain(args))?;
    let mut out = Vec::new();
    let code = run_to(cli.args, &mut out)?;
    Ok((String::from_utf8(out).unwrap(), code))
}

fn fails(args: &[&str]) -> String {
    format!("{:#}", bundle(args).unwrap_err())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A command line that packs the module of patch 107.1 into `dir`.
struct Pack {
    ko: PathBuf,
    kernel: String,
    keys: kmod::Keys,
    dir: tempfile::TempDir,
}

impl Pack {
    fn new() -> Self {
        Self {
            ko: kmod::module("107.1", TEXT),
            kernel: kmod::kernel().to_string(),
            keys: kmod::keys(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["pack", "--ko", text(&self.ko), "--kernel", &self.kernel];
        args.extend([
            "--version",
            "107.1",
            "--arch",
            "amd64",
            "-o",
            text(self.dir.path()),
        ]);
        args.extend(more);
        args
    }

    fn signed<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = self.args(&[
            "--key",
            text(&self.keys.key),
            "--cert",
            text(&self.keys.cert),
        ]);
        args.extend(more);
        args
    }
}

#[test]
fn what_is_packed_is_inspected() {
    let pack = Pack::new();
    let fixes = [
        "--fix",
        "CVE-2024-1086=use after free",
        "--fix",
        "CVE-1",
        "--obsolete",
    ];
    let (printed, code) = bundle(&pack.signed(&fixes)).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    let path = Path::new(printed.trim_end());
    assert_eq!(
        path,
        pack.dir.path().join(kmod::bundle_name("107.1").to_string())
    );
    let bytes = fs::read(path).unwrap();

    let cert = text(&pack.keys.cert);
    let (json, code) =
        bundle(&["inspect", "--cert", cert, "--output", "json", text(path)]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
    let found: serde_json::Value = serde_json::from_str(&json).unwrap();
    let found = &found[0];
    assert_eq!(found["verdict"], "accepted");
    assert_eq!(found["kernel"], pack.kernel);
    assert_eq!(found["version"], "107.1");
    assert_eq!(found["architecture"], "amd64");
    assert_eq!(found["module"], kmod::kernel().module_name(107));
    assert_eq!(found["signer"], "CN=Live Patch Test Signing trusted");
    assert_eq!(found["digest"], "sha512");
    assert_eq!(found["signature"], "verified");
    assert_eq!(found["size"], bytes.len());
    assert_eq!(found["sha256"], sha256sum(path));
    assert_eq!(found["fixes"][0]["description"], "use after free");
    assert_eq!(found["fixes"][1]["name"], "CVE-1");
    assert_eq!(found["obsolete"], true);
    let vermagic = found["vermagic"].as_str().unwrap();
    assert!(
        vermagic.starts_with(&kmod::kernel().release()),
        "{vermagic}"
    );

    let (yaml, _) = bundle(&["inspect", "--cert", cert, "--output", "yaml", text(path)]).unwrap();
    let again: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(&again[0], found);

    let (table, _) = bundle(&["inspect", "--cert", cert, text(path)]).unwrap();
    for (label, value) in [
        ("verdict", "accepted"),
        ("kernel", &pack.kernel),
        ("digest", "sha512"),
        ("sha256", found["sha256"].as_str().unwrap()),
        ("fix", "CVE-2024-1086  use after free"),
        ("kernel obsolete", "yes"),
    ] {
        let row = table.lines().find(|l| l.trim_start().starts_with(label));
        assert!(
            row.is_some_and(|row| row.ends_with(value)),
            "{label}: {table}"
        );
    }
}

/// The digest as an independent program says it.
fn sha256sum(path: &Path) -> String {
    let said = kmod::run(Command::new("sha256sum").arg(path));
    said.split(' ').next().unwrap().to_owned()
}

#[test]
fn packing_is_reproducible_and_never_replaces_silently() {
    let pack = Pack::new();
    let (printed, _) = bundle(&pack.signed(&[])).unwrap();
    let path = Path::new(printed.trim_end());
    let first = fs::read(path).unwrap();
    let (again, _) = bundle(&pack.signed(&[])).unwrap();
    assert_eq!(again, printed);
    let refusal = fails(&pack.signed(&["--fix", "CVE-1"]));
    assert!(
        refusal.contains("a different file is there already; use --force"),
        "{refusal}"
    );
    assert!(fs::read(path).unwrap() == first);
    bundle(&pack.signed(&["--fix", "CVE-1", "--force"])).unwrap();
    assert!(fs::read(path).unwrap() != first);
    assert_eq!(
        fs::read_dir(pack.dir.path()).unwrap().count(),
        1,
        "leftovers"
    );

    // What `tar` itself makes of it.
    let list = kmod::run(Command::new("tar").args(["-tvjf", text(path)]));
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(lines[0].starts_with("-rw-r--r-- 0/0"), "{list}");
    assert!(
        lines[0].ends_with(" 1970-01-01 00:00 metadata.json"),
        "{list}"
    );
    assert!(
        lines[1].ends_with(&format!(" {}.ko", kmod::kernel().module_name(107))),
        "{list}"
    );
}

#[test]
fn a_module_signed_elsewhere_keeps_its_signature() {
    let mut pack = Pack::new();
    let none = fails(&pack.args(&["--keep-signature"]));
    assert!(none.contains("no signature that could be kept"), "{none}");
    let signed = pack.dir.path().join("signed.ko");
    kmod::run(
        Command::new(kmod::sign_file())
            .args(["sha512", text(&pack.keys.key), text(&pack.keys.cert)])
            .args([&pack.ko, &signed]),
    );
    pack.ko = signed;
    let twice = fails(&pack.signed(&[]));
    assert!(twice.contains("carries a signature already"), "{twice}");
    let (printed, _) = bundle(&pack.args(&["--keep-signature"])).unwrap();
    let cert = text(&pack.keys.cert);
    let (_, code) = bundle(&["inspect", "--cert", cert, printed.trim_end()]).unwrap();
    assert_eq!(code, ExitCode::SUCCESS);
}

#[test]
fn packing_says_what_is_wrong() {
    let pack = Pack::new();
    let missing = fails(&pack.args(&[]));
    assert!(missing.contains("--key <FILE>"), "{missing}");
    let half = fails(&pack.args(&["--key", text(&pack.keys.key)]));
    assert!(half.contains("--cert <FILE>"), "{half}");
    let other = kmod::other_keys();
    let mixed = fails(&pack.args(&["--key", text(&other.key), "--cert", text(&pack.keys.cert)]));
    assert!(
        mixed.contains("does not belong to the certificate"),
        "{mixed}"
    );
    let mut wrong = pack.signed(&[]);
    wrong[4] = "5.15.0-107.117-generic";
    let wrong = fails(&wrong);
    assert!(
        wrong.contains("vermagic") && wrong.contains("5.15.0-107-generic"),
        "{wrong}"
    );
    let mut gone = pack.signed(&[]);
    gone[2] = "/nonexistent.ko";
    assert!(fails(&gone).contains("cannot open /nonexistent.ko"));
    assert!(fails(&pack.signed(&["--fix", "=x"])).contains("expected a name"));
    assert_eq!(
        fs::read_dir(pack.dir.path()).unwrap().count(),
        0,
        "leftovers"
    );
}

#[test]
fn inspecting_tells_good_from_bad() {
    let cert = kmod::keys().cert;
    let good = kmod::real_bundle("107.1", TEXT);
    let foreign = kmod::foreign_bundle("107.1", TEXT);
    let unsigned = kmod::unsigned_bundle("107.1", TEXT);
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("patch.tar.bz2");
    fs::copy(&good, &odd).unwrap();
    let empty = dir.path().join(kmod::bundle_name("107.1").to_string());
    fs::write(&empty, "").unwrap();
    let absent = dir.path().join("absent");
    let files = [&good, &foreign, &unsigned, &odd, &empty, &absent];
    let verdicts = |options: &[&str], expected: u8| {
        let mut args = vec!["inspect", "--output", "json"];
        args.extend(options);
        args.extend(files.map(|f| text(f)));
        let (json, code) = bundle(&args).unwrap();
        assert_eq!(code, ExitCode::from(expected));
        let found: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found = found.as_array().unwrap().clone();
        let word = |v: &serde_json::Value| v["verdict"].as_str().unwrap().to_owned();
        (found.iter().map(word).collect::<Vec<_>>(), found)
    };
    let (words, found) = verdicts(&["--cert", text(&cert)], 1);
    let bad = ["refused", "refused", "unreadable"];
    assert_eq!(
        words,
        [&["accepted", "refused", "refused"][..], &bad].concat()
    );
    assert_eq!(found[1]["signature"], "unknown signer");
    assert_eq!(found[1]["digest"], "sha512");
    let signer = found[1]["signer"].as_str().unwrap();
    assert!(
        signer.contains("CN=Live Patch Test Signing other"),
        "{signer}"
    );
    assert_eq!(found[2]["signature"], "none");
    assert_eq!(found[2]["reason"], "the module carries no signature");
    let reason = |at: usize| found[at]["reason"].as_str().unwrap();
    assert!(
        reason(3).contains("not a valid bundle file name"),
        "{}",
        reason(3)
    );
    assert!(reason(4).contains("ends too early"), "{}", reason(4));
    assert!(reason(5).contains("cannot open"), "{}", reason(5));

    let warned = "accepted-with-warning";
    let (words, _) = verdicts(&["--cert", text(&cert), "--policy", "warn"], 1);
    assert_eq!(words, [&["accepted", warned, warned][..], &bad].concat());
    // Without certificates nothing can be required.
    let (words, _) = verdicts(&[], 1);
    assert_eq!(words, [&[warned; 3][..], &bad].concat());
    let (words, _) = verdicts(&["--policy", "off"], 1);
    assert_eq!(words, [&["accepted"; 3][..], &bad].concat());

    let usage = bundle(&["inspect", "--policy", "require", text(&good)]).unwrap();
    assert_eq!(usage, (String::new(), ExitCode::from(2)));
    let key = kmod::keys().key;
    let wrong = fails(&["inspect", "--cert", text(&key), text(&good)]);
    assert!(wrong.contains("no X.509 certificate"), "{wrong}");
}
