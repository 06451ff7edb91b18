//! The livepatch-admin command line without a server: help, completions, arguments, and the pages made from it.

use clap::{CommandFactory, Parser};
use livepatch_onprem::cli::{Cli, Exit, docs};
use std::fmt::Write;
use std::path::Path;

fn long_help(path: &[&str]) -> String {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut at = &mut command;
    for name in path {
        at = at.find_subcommand_mut(name).unwrap();
    }
    at.render_long_help().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_teaches() {
    insta::assert_snapshot!("help", long_help(&[]));
    insta::assert_snapshot!("help-patch-promote", long_help(&["patch", "promote"]));
    insta::assert_snapshot!("help-auth-token", long_help(&["auth-token"]));
    insta::assert_snapshot!("help-login", long_help(&["login"]));
}

/// The script is long and mostly the library's; what is ours in it is that every command is offered.
#[test]
fn completions_know_every_command() {
    for shell in [
        clap_complete::Shell::Bash,
        clap_complete::Shell::Zsh,
        clap_complete::Shell::Fish,
    ] {
        let script = docs::completion(&mut Cli::command(), shell);
        for word in [
            "promote-all",
            "auth-token",
            "quarantine",
            "patch-health",
            "--session-file",
        ] {
            let word = if shell == clap_complete::Shell::Fish {
                word.trim_start_matches("--")
            } else {
                word
            };
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

/// Writes generated pages with `UPDATE_DOCS=1`, else compares.
fn check_page(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs/reference")
        .join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/{name} is stale: run the tests once with UPDATE_DOCS=1"
    );
}

#[test]
fn the_reference_of_commands_is_current() {
    let intro = "Generated from the command line itself. `livepatch-admin COMMAND --help` shows the same.\n\n\
                 Results go to standard output, remarks and progress to standard error. Tables are for people and may \
                 change; `--output json` and `--output yaml` print the types of the admin API exactly. \
                 What the exit codes mean stands in [exit-codes.md](exit-codes.md).";
    check_page("commands-admin.md", &docs::markdown(Cli::command(), intro));
}

#[test]
fn the_reference_of_exit_codes_is_current() {
    let mut page = String::from(
        "# Exit codes of livepatch-admin\n\nThey do not change between versions.\n\n| code | name | meaning |\n|---|---|---|\n",
    );
    for (exit, name, meaning) in Exit::ALL {
        let _ = writeln!(page, "| {} | {name} | {meaning} |", exit as u8);
    }
    check_page("exit-codes.md", &page);
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_sent() {
    for (line, says) in [
        ("tier create Stable", "tier name"),
        ("tier create a --before b --after c", "cannot be used with"),
        ("tier move a", "--before"),
        ("patch promote 107 beta", "two numbers expected"),
        (
            "patch promote 107.1 beta --kernel 5.15.0-107-generic",
            "kernel version",
        ),
        ("patch promote 107.1 beta --arch sparc", "known are amd64"),
        ("patch upload", "required"),
        ("patch upload x --parallel 0", "0 is not in 1..=32"),
        ("auth-token only-a-name", "<TIER>"),
        ("auth-token a stable --label rack", "KEY=VALUE"),
        (
            "auth-token a stable --valid-until tomorrow",
            "a span such as 30d",
        ),
        ("machine show 1234", "32 hexadecimal digits"),
        ("machine list --limit 5000", "1 to 1000"),
        ("machine list -l rack=r1,rack=r2", "cannot both be met"),
        ("machine list -l rack=r1,", "comma"),
        ("machine move beta", "<ID"),
        (
            "machine move 0f1e2d3c4b5a69788796a5b4c3d2e1f0 beta -l a=b",
            "cannot be used with",
        ),
        ("machine label", "required"),
        (
            "report patch-health stable 107.1 -l arch=vax",
            "architecture",
        ),
        ("auth-token a stable --label kernel=x", "meaning of its own"),
        ("machine list --all --limit 5", "cannot be used with"),
        ("machine list --state broken", "apply-failed"),
        ("report machines stable 107.1 broken", "apply-failed"),
        ("capture start --for 1h", "--machine"),
        ("session end 7", "<ID>"),
        ("--url ftp://h tier list", "http://HOST"),
        ("--url http://u:p@h tier list", "credentials"),
        ("admin add x --role root", "viewer, operator, admin"),
        ("webhook add ops", "<URL>"),
        ("webhook add ops https://h/ --event patch", "patch.promoted"),
        (
            "webhook deliveries --state broken",
            "pending, delivered or dead",
        ),
        ("nonsense", "unrecognized subcommand"),
    ] {
        let words = std::iter::once("livepatch-admin").chain(line.split(' '));
        let error = Cli::try_parse_from(words).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(says), "{line}: {error}");
    }
    for line in [
        "auth-token my-token stable",
        "auth-token list",
        "auth-token revoke my-token",
        "auth-token create list stable",
        "webhook add ops https://h/ --event patch.* --event sync.failed",
        "webhook retry ops 1 2",
        "tier list -o json",
        "-y tier delete lab --move-to stable",
        "capture start --address ::1 --machine 0f1e2d3c4b5a69788796a5b4c3d2e1f0",
    ] {
        let words = std::iter::once("livepatch-admin").chain(line.split(' '));
        assert!(Cli::try_parse_from(words).is_ok(), "{line}");
    }
}
