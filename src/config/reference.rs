//! Writes `docs/reference/configuration.md` from the table of keys.

use super::keys::{self, Key, Origin, Status};
use std::fmt::Write as _;

const HEAD: &str = "\
# Configuration

<!-- Made from the table of keys in src/config/keys. Do not edit; run `make docs`. -->

`livepatch-server` reads, in order of precedence:

1. environment variables, one for each key (`LP_...`);
2. one YAML file: the one given with `--config`, else the one named by `LIVEPATCH_CONFIG_LOCATION`, else
   `/etc/livepatch.yaml` if it exists;
3. the defaults below.

A variable or key that is set to nothing counts as not given. `livepatch-server config check` reads the configuration and says
everything that is wrong with it; `config show` prints what is in effect and where each value came from, with secrets masked;
`config show --defaults` prints a commented file to begin with; `config keys` prints the table below.

Keys can be nested, dotted or mixed:

```yaml
database:
  connection-string: postgresql://livepatch@db.example.com/livepatch?sslmode=verify-full
patch-storage.type: s3
patch-storage:
  s3-bucket: livepatch
```

Unknown keys, unknown `LP_` variables, values of the wrong type, keys given twice in one place and contradictions are all
refused, with their path, before the server listens.

| type | written as |
|---|---|
| boolean | `true`, `false`; also `yes`, `no`, `on`, `off`, `1`, `0`, in any case |
| integer | a whole number from 0 to 4294967295 |
| size | a number of bytes, or with a unit: `64MiB`, `1GiB`, `100MB` |
| duration | numbers with units: `30s`, `10m`, `1h30m`, `1h0m0s`, `7d`; at most ten years |
| list | a YAML list, or texts separated by commas |
| address:port | `127.0.0.1:8080`, `[::]:8080`, `localhost:8080`, or `:8080` for every address |
| secret | a text that is never shown |

Every secret can be given as a file instead, whose last line end is not part of it: `<key>-file` in the YAML file, or the
variable with `_FILE` at its end, e.g. `LP_DATABASE_CONNECTION_STRING_FILE=/run/secrets/database`. Giving both the value and
the file in the same place is refused.

`P` marks keys that are publicly known from Canonical's server and are taken as they stand there; `O` marks ours. Where our
default differs from Canonical's, Canonical's stands in brackets.
";

/// The whole page.
pub fn markdown() -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n## Keys that are used\n");
    let mut section = "";
    for key in keys::all().iter().filter(|key| key.is_used()) {
        if section != key.section() {
            section = key.section();
            let _ = write!(
                out,
                "\n### {section}\n\n| key | | type | default | environment variable | |\n|---|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | `{}` | {} |",
            key.name,
            origin(key),
            key.kind.label(),
            default(key),
            key.variable(),
            key.about
        );
    }
    group(
        &mut out,
        "Keys whose feature is not in this version",
        "Accepted and checked by type. Setting the switch to `true` gives one warning at start.",
        |key| match key.status {
            Status::NotYet(feature) => Some((feature.switch, feature.text)),
            _ => None,
        },
        "switch",
    );
    group(
        &mut out,
        "Keys that something else replaces",
        "Accepted and checked by type, so that an existing file can be kept; answered by one line at start.",
        |key| match key.status {
            Status::Replaced(answer) => Some((answer.group, answer.text)),
            _ => None,
        },
        "keys",
    );
    group(
        &mut out,
        "Keys that are refused",
        "The server does not start with these, because payloads would not be found where they are expected.",
        |key| match key.status {
            Status::Refused(answer) => Some((answer.group, answer.text)),
            _ => None,
        },
        "keys",
    );
    out
}

fn origin(key: &Key) -> &'static str {
    match key.origin {
        Origin::Canonical => "P",
        Origin::Ours => "O",
    }
}

fn default(key: &Key) -> String {
    let ours = if key.default.is_empty() {
        String::new()
    } else {
        format!("`{}`", key.default)
    };
    key.canonical_default
        .map_or(ours.clone(), |theirs| format!("{ours} (`{theirs}`)"))
}

/// Keys that are not obeyed: the lines that answer them, then the keys themselves.
fn group(
    out: &mut String,
    title: &str,
    about: &str,
    answer: impl Fn(&Key) -> Option<(&'static str, &'static str)>,
    first: &str,
) {
    let _ = write!(
        out,
        "\n## {title}\n\n{about}\n\n| {first} | what stands in its place |\n|---|---|\n"
    );
    let mut said = Vec::new();
    for (group, text) in keys::all().iter().filter_map(&answer) {
        if !said.contains(&group) {
            said.push(group);
            let _ = writeln!(out, "| `{group}` | {text} |");
        }
    }
    out.push_str("\n| key | type | default | environment variable |\n|---|---|---|---|\n");
    for key in keys::all().iter().filter(|key| answer(key).is_some()) {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | `{}` |",
            key.name,
            key.kind.label(),
            default(key),
            key.variable()
        );
    }
}
