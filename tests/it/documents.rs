//! The documents hold together: links lead somewhere, every page is in the index, `make` targets that pages name exist,
//! and the pages of commands are what the commands say (`make docs` writes them again).

use clap::{Command, CommandFactory};
use livepatch_onprem::cli::docs;
use livepatch_onprem::telemetry::security;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown page, relative to the root.
pub fn pages() -> Vec<PathBuf> {
    fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "md") {
                into.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    let mut pages = vec!["README.md".into(), "CHANGELOG.md".into()];
    walk(&root().join("docs"), &mut pages);
    pages.sort();
    pages
}

/// Targets of a page's links that point into the project, as paths from the root.
fn links(page: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let mut found = Vec::new();
    for (_, rest) in text
        .match_indices("](")
        .map(|(at, _)| text.split_at(at + 2))
    {
        let target = rest.split([')', '#']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") {
            continue;
        }
        let mut path = PathBuf::new();
        for part in page.parent().unwrap().join(target).components() {
            match part {
                Component::ParentDir => assert!(path.pop(), "{}: {target}", page.display()),
                part => path.push(part),
            }
        }
        found.push(path);
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for link in links(&page) {
            seen += 1;
            if !root().join(&link).exists() {
                broken.push(format!("{}: {}", page.display(), link.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} links found");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_index_names_every_page() {
    let listed: BTreeSet<PathBuf> = links(Path::new("docs/README.md")).into_iter().collect();
    let missing: Vec<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with("docs") && !page.ends_with("README.md"))
        .filter(|page| !listed.contains(page))
        .collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:?}");
}

#[test]
fn make_targets_that_pages_name_exist() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let mut named = BTreeSet::new();
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        for (at, _) in text.match_indices("make ") {
            let code = text[..at].ends_with('`') || text[..at].ends_with("$ ");
            let target: String = text[at + 5..]
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
            if code && !target.is_empty() {
                named.insert((target, page.clone()));
            }
        }
    }
    assert!(named.len() >= 3, "found only {named:?}");
    for (target, page) in named {
        assert!(
            makefile.contains(&format!("\n{target}: ")),
            "{} names `make {target}`, which the Makefile does not have",
            page.display()
        );
    }
}

/// Compares a generated page with the committed one, or writes it with `UPDATE_DOCS=1`.
fn check_page(name: &str, page: &str) {
    let path = root().join("docs/reference").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/reference/{name} is not what the code says; run `make docs` and commit it"
    );
}

fn check_generated(name: &str, command: Command, introduction: &str) {
    check_page(name, &docs::markdown(command, introduction));
}

#[test]
fn the_page_of_livepatch_server_is_current() {
    check_generated(
        "commands-server.md",
        livepatch_onprem::server_cli::Cli::command(),
        "Generated from the command line itself. `livepatch-server COMMAND --help` shows the same. The configuration that \
         `serve`, `migrate` and `config` read is described in [configuration.md](configuration.md).",
    );
}

#[test]
fn the_page_of_livepatch_client_is_current() {
    check_generated(
        "commands-client.md",
        livepatch_onprem::sim::cli::Cli::command(),
        "Generated from the command line itself. `livepatch-client COMMAND --help` shows the same. This is the reference \
         client of this project, for tests and for trying things out. It is not Canonical's client; what is known of \
         the protocol of that one stands in [compatibility.md](compatibility.md).",
    );
}

#[test]
fn the_page_of_security_events_is_current() {
    let mut page = String::from(
        "# Security events\n\n\
         Made from the code; the list is closed. Where they go and what a line holds stands in \
         [Logs, security events and traces](../how-to/logs-and-traces.md). `...` stands for what was done, as in the audit log.\n\n\
         | event | category | level | when |\n|---|---|---|---|\n",
    );
    for (event, category, level, about) in security::list() {
        writeln!(
            page,
            "| `{event}` | {} | {level} | {about} |",
            category.as_str()
        )
        .unwrap();
    }
    check_page("security-events.md", &page);
}

#[test]
fn the_page_of_the_api_is_current() {
    let document: Value =
        serde_json::from_str(&livepatch_onprem::http::admin::openapi().to_json().unwrap()).unwrap();
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(tag) = operation["tags"][0].as_str() else {
                continue;
            };
            let text = |name: &str| {
                let text = operation[name].as_str().unwrap_or_default();
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            };
            let (summary, more) = (text("summary"), text("description"));
            let line = format!(
                "| `{} {path}` | {summary}. {} |\n",
                method.to_uppercase(),
                more.replace('|', "\\|")
            );
            sections.entry(tag.to_owned()).or_default().push(line);
        }
    }
    let mut page = String::from(
        "# Admin API\n\n\
         Made from the OpenAPI document that a running server has at `/v1/openapi.json`, which also has every shape. Requests carry \
         `Authorization: Bearer` with a session, a service token or a token of the identity provider, or `Basic` ([who may](../how-to/identity.md)). \
         Lists come in pages: `limit` and `cursor`, and `next-cursor` in the answer. Errors are problem details (RFC 9457). What changes something takes a \
         `reason` for the audit log where that makes sense, and `dry-run` where a preview does. Roles are told where more than viewer is needed.\n",
    );
    for (tag, mut lines) in sections {
        lines.sort();
        write!(
            page,
            "\n## {tag}\n\n| operation | what it does |\n|---|---|\n"
        )
        .unwrap();
        page.extend(lines);
    }
    check_page("api.md", &page);
}

#[test]
fn the_page_of_metrics_is_current() {
    check_page("metrics.md", &livepatch_onprem::telemetry::markdown());
}
