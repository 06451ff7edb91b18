//! Imports point down: scans every `crate::` path and fails on one that points up or sideways.

use crate::support::sources::sources;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules, lowest first. A module may import from modules before it in the list, unless the pair is in `FORBIDDEN`.
const ORDER: &[&str] = &[
    "domain",
    "telemetry",
    "config",
    "wire",
    "bundle",
    "index",
    "rollout",
    "db",
    "blob",
    "upstream",
    "service",
    "tasks",
    "sim",
    "cli",
    "http",
    "app",
    "server_cli",
];

/// Pure modules and what they may import; nothing that does I/O or reads a clock may be named in them.
const PURE: &[&str] = &["domain", "rollout", "bundle", "index", "wire"];
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::process",
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "reqwest",
    "object_store",
    "rand_bytes",
    "std::env",
];

/// Same level, no business with each other.
const FORBIDDEN: &[(&str, &str)] = &[
    ("cli", "service"),
    ("cli", "db"),
    ("cli", "blob"),
    ("cli", "tasks"),
    ("cli", "sim"),
    ("sim", "service"),
    ("sim", "db"),
    ("sim", "blob"),
    ("sim", "tasks"),
    ("sim", "config"),
    ("sim", "rollout"),
    ("http", "cli"),
    ("http", "sim"),
    ("http", "tasks"),
    ("tasks", "http"),
    ("index", "config"),
    ("index", "telemetry"),
    ("rollout", "index"),
    ("rollout", "bundle"),
    ("rollout", "config"),
    ("rollout", "telemetry"),
    ("rollout", "wire"),
    ("wire", "config"),
    ("wire", "telemetry"),
    ("bundle", "config"),
    ("bundle", "telemetry"),
    ("bundle", "wire"),
];

/// Source text without comments, by module.
fn modules() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root);
    assert!(files.len() > 10, "only {} source files found", files.len());
    let mut modules: BTreeMap<String, Vec<(PathBuf, String)>> = BTreeMap::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let first = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let name = first.trim_end_matches(".rs").to_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        modules
            .entry(name)
            .or_default()
            .push((relative.to_owned(), code));
    }
    modules
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (module, files) in modules() {
        if module == "lib" || module == "bin" {
            continue;
        }
        let level = ORDER
            .iter()
            .position(|m| *m == module)
            .unwrap_or_else(|| panic!("module {module} has no layer"));
        for (file, code) in files {
            for (at, _) in code.match_indices("crate::") {
                let target: String = code[at + 7..]
                    .chars()
                    .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                    .collect();
                let Some(target_level) = ORDER.iter().position(|m| *m == target) else {
                    continue;
                };
                if target_level > level || FORBIDDEN.contains(&(module.as_str(), target.as_str())) {
                    wrong.push(format!("{}: {module} imports {target}", file.display()));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports that point up or sideways:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_core_is_pure() {
    let mut wrong = Vec::new();
    for (module, files) in modules() {
        if !PURE.contains(&module.as_str()) {
            continue;
        }
        for (file, code) in files {
            // Tests inside a file may do what they like; they stand at its end.
            let code = code.split("#[cfg(test)]").next().unwrap_or_default();
            wrong.extend(
                IMPURE
                    .iter()
                    .filter(|word| code.contains(*word))
                    .map(|word| format!("{}: {word}", file.display())),
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "I/O or a clock in the pure core:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut wrong = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests"].map(|folder| sources(&root.join(folder)));
    for file in folders.concat() {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root).unwrap().display().to_string();
        if !text.starts_with("//!") {
            wrong.push(format!("{name}: no //! at its head"));
        }
        if text.lines().count() > 600 {
            wrong.push(format!("{name}: {} lines", text.lines().count()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
