//! Makes a configuration of ours from one of Canonical's server: that of its snap, of its charms, or of its old reactive charm.
//!
//! Which old name became which key is public: it stands in Canonical's guide "Migrating from the old livepatch charm". Only what
//! somebody set is taken over; what was at its default stays at ours.

use super::keys::{self, Status};
use super::yaml::{Node, Raw, parse};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The result of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// What kind of configuration it was.
    pub from: From,
    /// The new file.
    pub text: String,
    /// How many values were taken over.
    pub taken: usize,
    /// What was not, or what else is to be done, a line each.
    pub remarks: Vec<String>,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// `snap get -d canonical-livepatch-server lp`
    Snap,
    /// `juju config APPLICATION`, of either charm.
    Charm,
    /// A plain file of keys.
    File,
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Snap => "the snap's configuration",
            Self::Charm => "a charm's configuration",
            Self::File => "a file of keys",
        })
    }
}

/// What became of an option of the reactive charm.
enum Now {
    /// This key.
    Key(&'static str),
    /// This key, and another that switches it on.
    With(&'static str, &'static str),
    /// Nothing, for this reason.
    Gone(&'static str),
}

use Now::{Gone, Key, With};

const EVENT_BUS: &str = "reports are not sent to an event bus; events go out as webhooks (`livepatch-admin webhook add`)";
const DATABASE: &str = "the charm got its database by a relation; give database.connection-string";
/// The server makes its tables in whatever database it is given.
const OWN_DATABASE: &str =
    "this server needs a database of its own; give it an empty one, not that of Canonical's server";
const UPSTREAM_TIER: &str = "with Canonical as upstream the tier belongs to the downloader: see patch-sync.downloader-tier; with a server of this kind, to the sync token";

/// Options of the reactive charm, by name.
const REACTIVE: &[(&str, Now)] = &[
    (
        "auth_basic_users",
        With("auth.basic.users", "auth.basic.enabled"),
    ),
    ("auth_lp_teams", With("auth.sso.teams", "auth.sso.enabled")),
    ("auth_sso_location", Key("auth.sso.url")),
    ("auth_sso_public_key", Key("auth.sso.public-key")),
    (
        "blocklist_cache_refresh",
        With(
            "patch-blocklist.refresh-interval",
            "patch-blocklist.enabled",
        ),
    ),
    ("burst_limit", Key("server.burst-limit")),
    (
        "cloud_delay_default_delay_hours",
        Key("cloud_delay.default_delay_hours"),
    ),
    ("concurrency_limit", Key("server.concurrency-limit")),
    ("contract_server_password", Key("contracts.password")),
    ("contract_server_url", Key("contracts.url")),
    ("contract_server_user", Key("contracts.user")),
    ("dbconn_max", Key("database.connection-pool-max")),
    (
        "dbconn_max_lifetime",
        Key("database.connection-lifetime-max"),
    ),
    ("event_bus_brokers", Gone(EVENT_BUS)),
    ("event_bus_ca_cert", Gone(EVENT_BUS)),
    ("event_bus_client_cert", Gone(EVENT_BUS)),
    ("event_bus_client_key", Gone(EVENT_BUS)),
    (
        "http_proxy",
        With("patch-sync.proxy.http", "patch-sync.proxy.enabled"),
    ),
    (
        "https_proxy",
        With("patch-sync.proxy.https", "patch-sync.proxy.enabled"),
    ),
    ("influxdb_bucket", Key("influx.bucket")),
    ("influxdb_organization", Key("influx.organization")),
    ("influxdb_token", Key("influx.token")),
    ("influxdb_url", Key("influx.url")),
    ("is_cloud_delay_enabled", Key("cloud_delay.enabled")),
    ("log_level", Key("server.log-level")),
    ("no_proxy", Key("patch-sync.proxy.no-proxy")),
    ("patch_cache_on", Key("patch-cache.enabled")),
    ("patch_cache_size", Key("patch-cache.cache-size")),
    ("patch_cache_ttl", Key("patch-cache.cache-ttl")),
    ("patch_sync_enabled", Key("patch-sync.enabled")),
    ("patchstore", Key("patch-storage.type")),
    (
        "profiler_block_profile_rate",
        Key("profiler.block_profile_rate"),
    ),
    ("profiler_enabled", Key("profiler.enabled")),
    ("profiler_hostname", Key("profiler.hostname")),
    (
        "profiler_mutex_profile_fraction",
        Key("profiler.mutex_profile_fraction"),
    ),
    (
        "profiler_profile_allocations",
        Key("profiler.profile_allocations"),
    ),
    ("profiler_profile_blocks", Key("profiler.profile_blocks")),
    (
        "profiler_profile_goroutines",
        Key("profiler.profile_goroutines"),
    ),
    ("profiler_profile_inuse", Key("profiler.profile_inuse")),
    ("profiler_profile_mutexes", Key("profiler.profile_mutexes")),
    ("profiler_sample_rate", Key("profiler.sample_rate")),
    ("profiler_server_address", Key("profiler.server_address")),
    ("profiler_upload_rate", Key("profiler.upload_rate")),
    ("psql_dbname", Gone(DATABASE)),
    ("psql_roles", Gone(DATABASE)),
    (
        "report_cleanup_interval",
        Key("machine-reports.database.cleanup-interval"),
    ),
    (
        "report_cleanup_row_limit",
        Key("machine-reports.database.cleanup-row-limit"),
    ),
    (
        "report_retention",
        With(
            "machine-reports.database.retention-days",
            "machine-reports.database.enabled",
        ),
    ),
    ("s3_access_key_id", Key("patch-storage.s3-access-key")),
    ("s3_bucket", Key("patch-storage.s3-bucket")),
    ("s3_endpoint", Key("patch-storage.s3-endpoint")),
    ("s3_region", Key("patch-storage.s3-region")),
    ("s3_secret_key", Key("patch-storage.s3-secret-key")),
    ("s3_secure", Key("patch-storage.s3-secure")),
    ("storage_path", Key("patch-storage.filesystem-path")),
    ("swift_apikey", Key("patch-storage.swift-api-key")),
    ("swift_auth_url", Key("patch-storage.swift-auth-url")),
    ("swift_container_name", Key("patch-storage.swift-container")),
    ("swift_domain_name", Key("patch-storage.swift-domain")),
    ("swift_region_name", Key("patch-storage.swift-region")),
    ("swift_tenant_name", Key("patch-storage.swift-tenant")),
    ("swift_username", Key("patch-storage.swift-username")),
    ("sync_architectures", Key("patch-sync.architectures")),
    ("sync_flavors", Key("patch-sync.flavors")),
    (
        "sync_identity",
        Gone("a deployment names itself; patch-sync.id overrides that"),
    ),
    ("sync_interval", Key("patch-sync.interval")),
    (
        "sync_minimum_kernel_version",
        Key("patch-sync.minimum-kernel-version"),
    ),
    (
        "sync_tier",
        Gone("new patches enter the first tier (`livepatch-admin tier list`)"),
    ),
    ("sync_token", Key("patch-sync.token")),
    ("sync_upstream", Key("patch-sync.upstream-url")),
    ("sync_upstream_tier", Gone(UPSTREAM_TIER)),
    ("url_template", Key("server.url-template")),
];

/// Keys that Canonical's guide spells otherwise than its server reads them.
const SPELLED: &[(&str, &str)] = &[
    ("cloud-delay.enabled", "cloud_delay.enabled"),
    (
        "cloud-delay.default-delay-hours",
        "cloud_delay.default_delay_hours",
    ),
    ("database.work-mem", "database.work_mem"),
    ("profiler.profile_goroutine", "profiler.profile_goroutines"),
];

/// Reads a configuration of Canonical's server.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn convert(text: &str) -> Result<Converted, String> {
    let root = parse(text).map_err(|error| match error.line {
        0 => error.message,
        line => format!("line {line}: {}", error.message),
    })?;
    let (from, given) = given(root)?;
    let mut kept: BTreeMap<&'static str, (String, String)> = BTreeMap::new();
    let mut remarks = Vec::new();
    for (name, value) in given {
        let spelled = SPELLED.iter().find(|(other, _)| *other == name);
        let known = keys::find(spelled.map_or(name.as_str(), |(_, key)| key));
        let (key, switch) = match known {
            Some(key) => (key, None),
            None => match REACTIVE.iter().find(|(old, _)| *old == name) {
                Some((_, Key(key))) => (must(key)?, None),
                Some((_, With(key, switch))) => (must(key)?, Some(must(switch)?)),
                Some((_, Gone(why))) => {
                    remarks.push(format!("{name}: not taken over: {why}"));
                    continue;
                }
                None => {
                    remarks.push(format!("{name}: not taken over: no server knows this key"));
                    continue;
                }
            },
        };
        if key.name == "database.connection-string" {
            remarks.push(format!("{name}: not taken over: {OWN_DATABASE}"));
            continue;
        }
        match key.status {
            Status::Used => {}
            Status::Replaced(answer) | Status::Refused(answer) => {
                remarks.push(format!("{name}: not taken over: {}", answer.text));
                continue;
            }
            Status::NotYet(feature) => {
                remarks.push(format!("{name}: not taken over: {}", feature.text));
                continue;
            }
        }
        let origin = if name == key.name {
            String::new()
        } else {
            name
        };
        if let Some(switch) = switch {
            kept.entry(switch.name)
                .or_insert(("true".to_owned(), format!("because of {origin}")));
        }
        kept.insert(key.name, (value, origin));
    }
    let mut text = format!(
        "# Made by `livepatch-server config convert` from {from}. It may hold secrets: each can be given as a file instead.\n"
    );
    for (name, (value, origin)) in &kept {
        let value = serde_json::Value::from(value.as_str());
        let _ = match origin.as_str() {
            "" => writeln!(text, "{name}: {value}"),
            origin => writeln!(text, "{name}: {value}  # {origin}"),
        };
    }
    Ok(Converted {
        from,
        text,
        taken: kept.len(),
        remarks,
    })
}

/// A key of the table; it names only keys that there are, which a test checks.
fn must(name: &str) -> Result<&'static keys::Key, String> {
    keys::find(name).ok_or_else(|| format!("there is no key {name}"))
}

/// What somebody set, by name, with dots between the parts.
fn given(root: Node) -> Result<(From, Vec<(String, String)>), String> {
    let Raw::Map(mut entries) = root.raw else {
        return Err("it holds no keys; expected what `juju config APPLICATION` or `snap get -d canonical-livepatch-server lp` prints, or a file of keys".to_owned());
    };
    let place = |name: &str, entries: &[(String, Node)]| {
        entries
            .iter()
            .position(|(key, node)| key == name && matches!(node.raw, Raw::Map(_)))
    };
    let mut found = Vec::new();
    if let Some(at) = place("settings", &entries) {
        let (_, settings) = entries.swap_remove(at);
        for (name, node) in pairs(settings) {
            let mut value = None;
            let mut source = String::new();
            for (part, node) in pairs(node) {
                match part.as_str() {
                    "value" => value = text(&node.raw),
                    "source" => source = text(&node.raw).unwrap_or_default(),
                    _ => {}
                }
            }
            // What Juju calls `default` or `unset` nobody set.
            if let ("user", Some(value)) = (source.as_str(), value) {
                found.push((name, value));
            }
        }
        found.retain(|(_, value)| !value.is_empty());
        return Ok((From::Charm, found));
    }
    if let Some(at) = place("lp", &entries) {
        let (_, inner) = entries.swap_remove(at);
        flatten("", inner, &mut found);
        found.retain(|(_, value)| !value.is_empty());
        return Ok((From::Snap, found));
    }
    for (name, node) in entries {
        flatten(name.strip_prefix("lp.").unwrap_or(&name), node, &mut found);
    }
    found.retain(|(_, value)| !value.is_empty());
    Ok((From::File, found))
}

fn pairs(node: Node) -> Vec<(String, Node)> {
    match node.raw {
        Raw::Map(entries) => entries,
        _ => Vec::new(),
    }
}

fn flatten(name: &str, node: Node, found: &mut Vec<(String, String)>) {
    let Raw::Map(entries) = node.raw else {
        found.extend(text(&node.raw).map(|value| (name.to_owned(), value)));
        return;
    };
    for (part, node) in entries {
        let name = match name {
            "" => part,
            name => format!("{name}.{part}"),
        };
        flatten(&name, node, found);
    }
}

/// A single value, or several separated by commas.
fn text(raw: &Raw) -> Option<String> {
    match raw {
        Raw::Null | Raw::Map(_) => None,
        Raw::Scalar { text, .. } => Some(text.clone()),
        Raw::List(nodes) => {
            let parts: Vec<String> = nodes.iter().filter_map(|node| text(&node.raw)).collect();
            Some(parts.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_old_name_leads_to_a_key_that_there_is() {
        for (name, now) in REACTIVE {
            if let Key(key) | With(key, _) = now {
                assert!(keys::find(key).is_some(), "{name}: {key}");
            }
            if let With(_, switch) = now {
                assert!(keys::find(switch).is_some(), "{name}: {switch}");
            }
            assert!(keys::find(name).is_none(), "{name}");
        }
        for (other, key) in SPELLED {
            assert!(
                keys::find(other).is_none() && keys::find(key).is_some(),
                "{other}"
            );
        }
    }

    #[test]
    fn what_the_snap_prints() {
        let json = r#"{"lp": {"auth": {"basic": {"enabled": true, "users": "admin:$2y$"}},
            "server": {"burst-limit": 700, "log-level": "warn", "url-template": ""},
            "influx": {"enabled": true}, "database": {"connection-string": "host=theirs"}, "patch-storage": {"type": "s3", "s3-bucket": "patches"}}}"#;
        let converted = convert(json).unwrap();
        assert_eq!((converted.from, converted.taken), (From::Snap, 6));
        for line in [
            "auth.basic.enabled: \"true\"\n",
            "server.burst-limit: \"700\"\n",
            "patch-storage.s3-bucket: \"patches\"\n",
        ] {
            assert!(converted.text.contains(line), "{}", converted.text);
        }
        assert!(!converted.text.contains("url-template"));
        assert_eq!(converted.remarks.len(), 2, "{:?}", converted.remarks);
        assert!(!converted.text.contains("theirs"));
        assert!(converted.remarks[0].starts_with("influx.enabled: not taken over: "));
    }

    #[test]
    fn what_juju_prints_of_the_old_charm() {
        let yaml = "application: livepatch\ncharm: canonical-livepatch-server\nsettings:\n  \
            log_level:\n    default: info\n    source: user\n    type: string\n    value: debug\n  \
            burst_limit:\n    default: 500\n    source: default\n    type: int\n    value: 500\n  \
            http_proxy:\n    source: user\n    value: http://proxy:3128\n  \
            psql_dbname:\n    source: user\n    value: livepatch\n  \
            sync_token:\n    source: unset\n    type: string\n  \
            nonsense:\n    source: user\n    value: x\n";
        let converted = convert(yaml).unwrap();
        assert_eq!((converted.from, converted.taken), (From::Charm, 3));
        let expected = "patch-sync.proxy.enabled: \"true\"  # because of http_proxy\n\
            patch-sync.proxy.http: \"http://proxy:3128\"  # http_proxy\nserver.log-level: \"debug\"  # log_level\n";
        assert!(converted.text.ends_with(expected), "{}", converted.text);
        assert_eq!(
            converted.remarks,
            [
                format!("psql_dbname: not taken over: {DATABASE}"),
                "nonsense: not taken over: no server knows this key".to_owned()
            ]
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "just text", "- a\n- b\n", "a: [1", "a: b: c"] {
            assert!(convert(bad).is_err(), "{bad}");
        }
    }
}
