//! The typed configuration of what comes from elsewhere: `patch-sync.*` and `contracts.*`, and what cannot be in them.

use super::checks::Checker;
use super::model::Config;
use crate::domain::{Architecture, Secret};
use std::path::PathBuf;
use std::time::Duration;

/// The host whose patches come through Canonical's own downloader.
const CANONICAL_HOST: &str = "livepatch.canonical.com";

/// `patch-sync.*`
#[derive(Debug, Clone)]
pub struct PatchSync {
    /// `patch-sync.enabled`
    pub enabled: bool,
    /// `patch-sync.driver` (ours), `auto` decided.
    pub driver: SyncDriver,
    /// `patch-sync.upstream-url`, without a slash at the end.
    pub upstream_url: String,
    /// `patch-sync.token`: of the upstream server, or the resource token of the downloader.
    pub token: Secret,
    /// `patch-sync.upstream-ca` (ours)
    pub upstream_ca: Option<PathBuf>,
    /// `patch-sync.upstream-tls-certificate` (ours): shown to an upstream that asks for one.
    pub upstream_tls_certificate: Option<PathBuf>,
    /// `patch-sync.upstream-tls-key` (ours)
    pub upstream_tls_key: Option<PathBuf>,
    /// `patch-sync.upstream-key` (ours); empty: the key of the first contact.
    pub upstream_key: String,
    /// `patch-sync.directory` (ours)
    pub directory: Option<PathBuf>,
    /// `patch-sync.downloader-command` (ours)
    pub downloader_command: String,
    /// `patch-sync.downloader-tarballs` (ours)
    pub downloader_tarballs: Option<PathBuf>,
    /// `patch-sync.downloader-tier` (ours); empty: the command's own default.
    pub downloader_tier: String,
    /// `patch-sync.interval`
    pub interval: Duration,
    /// `patch-sync.architectures`; empty: all.
    pub architectures: Vec<Architecture>,
    /// `patch-sync.flavors`; empty: all.
    pub flavours: Vec<String>,
    /// `patch-sync.minimum-kernel-version`; empty: none.
    pub minimum_kernel_version: String,
    /// `patch-sync.kernel-prefixes` (ours); empty: all.
    pub kernel_prefixes: Vec<String>,
    /// `patch-sync.only-our-kernels` (ours)
    pub only_our_kernels: bool,
    /// `patch-sync.our-kernels-grace` (ours)
    pub our_kernels_grace: Duration,
    /// `patch-sync.max-shrink` (ours), percent.
    pub max_shrink: u32,
    /// `patch-sync.parallelism` (ours)
    pub parallelism: u32,
    /// `patch-sync.stall-timeout` (ours)
    pub stall_timeout: Duration,
    /// `patch-sync.index-lifetime` (ours): of the index that this server signs for others.
    pub index_lifetime: Duration,
    /// `patch-sync.sync-tiers`
    pub sync_tiers: bool,
    /// `patch-sync.id`: this deployment in its reports; empty: made once and kept in the database.
    pub id: String,
    /// `patch-sync.machine-count-strategy`
    pub machine_count: MachineCount,
    /// `patch-sync.send-machine-reports`
    pub send_machine_reports: bool,
    /// `patch-sync.proxy.*`
    pub proxy: Proxy,
}

impl Default for PatchSync {
    fn default() -> Self {
        Self {
            enabled: false,
            driver: SyncDriver::Downloader,
            upstream_url: format!("https://{CANONICAL_HOST}"),
            token: Secret::default(),
            upstream_ca: None,
            upstream_tls_certificate: None,
            upstream_tls_key: None,
            upstream_key: String::new(),
            directory: None,
            downloader_command: "canonical-livepatch-downloader".to_owned(),
            downloader_tarballs: None,
            downloader_tier: String::new(),
            interval: Duration::from_hours(1),
            architectures: Vec::new(),
            flavours: ["generic", "lowlatency", "aws"].map(str::to_owned).to_vec(),
            minimum_kernel_version: String::new(),
            kernel_prefixes: Vec::new(),
            only_our_kernels: false,
            our_kernels_grace: Duration::from_hours(30 * 24),
            max_shrink: 10,
            parallelism: 4,
            stall_timeout: Duration::from_secs(30),
            index_lifetime: Duration::from_hours(24),
            sync_tiers: false,
            id: String::new(),
            machine_count: MachineCount::Bucket,
            send_machine_reports: false,
            proxy: Proxy {
                keys: "patch-sync.proxy",
                ..Proxy::default()
            },
        }
    }
}

/// How patches are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncDriver {
    /// From another server of this kind.
    Peer,
    /// Through Canonical's downloader command.
    Downloader,
    /// From a folder of tarballs.
    Directory,
}

impl SyncDriver {
    /// The word of the key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Downloader => "downloader",
            Self::Directory => "directory",
        }
    }

    /// Reads the key; `auto` and anything else is decided by what else is given.
    pub(super) fn choose(word: &str, upstream_url: &str, directory: bool) -> Self {
        let host = upstream_url
            .split_once("://")
            .map_or(upstream_url, |(_, rest)| rest)
            .split(['/', ':'])
            .next();
        match word {
            "peer" => Self::Peer,
            "downloader" => Self::Downloader,
            "directory" => Self::Directory,
            _ if directory => Self::Directory,
            _ if host == Some(CANONICAL_HOST) => Self::Downloader,
            _ => Self::Peer,
        }
    }
}

/// How the number of machines is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MachineCount {
    /// Exactly.
    Unit,
    /// As one of a few ranges.
    Bucket,
}

/// `patch-sync.proxy.*` or `auth.oauth.proxy.*`
#[derive(Debug, Clone, Default)]
pub struct Proxy {
    /// What its keys begin with, for errors.
    pub keys: &'static str,
    /// `enabled`
    pub enabled: bool,
    /// `http`; may hold a password, so that it is a secret.
    pub http: Secret,
    /// `https`; may hold a password.
    pub https: Secret,
    /// `no-proxy`
    pub no_proxy: Vec<String>,
}

/// `contracts.*`
#[derive(Debug, Clone)]
pub struct Contracts {
    /// `contracts.enabled`
    pub enabled: bool,
    /// `contracts.url`, without a slash at the end.
    pub url: String,
    /// `contracts.ca`
    pub ca: Option<PathBuf>,
    /// `contracts.user`
    pub user: String,
    /// `contracts.password`
    pub password: Secret,
    /// `contracts.cache` (ours)
    pub cache: Duration,
}

impl Default for Contracts {
    fn default() -> Self {
        Self {
            enabled: false,
            url: "https://contracts.canonical.com".to_owned(),
            ca: None,
            user: String::new(),
            password: Secret::default(),
            cache: Duration::from_mins(5),
        }
    }
}

/// What cannot be in `patch-sync.*` and `contracts.*`.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let sync = &config.patch_sync;
    let forever = "an upstream that never ends would never be given up";
    checker.lasting("patch-sync.stall-timeout", sync.stall_timeout, forever);
    let stale = "an index would be out of date when it is made";
    checker.lasting("patch-sync.index-lifetime", sync.index_lifetime, stale);
    let often = "it would be fetched all the time";
    checker.lasting("patch-sync.interval", sync.interval, often);
    let none = "nothing would be fetched";
    checker.positive("patch-sync.parallelism", sync.parallelism.into(), none);
    if sync.max_shrink > 100 {
        checker.wrong("patch-sync.max-shrink", "is a percentage: at most 100");
    }
    if !sync.minimum_kernel_version.is_empty()
        && let Err(error) = sync
            .minimum_kernel_version
            .parse::<crate::domain::MinimumKernel>()
    {
        checker.wrong("patch-sync.minimum-kernel-version", error.to_string());
    }
    if !sync.upstream_key.is_empty()
        && let Err(error) = sync.upstream_key.parse::<crate::domain::PublicKey>()
    {
        checker.wrong("patch-sync.upstream-key", error.to_string());
    }
    let pair = "is missing: a certificate is shown with its key or not at all (patch-sync.upstream-tls-certificate, -key)";
    match (&sync.upstream_tls_certificate, &sync.upstream_tls_key) {
        (Some(_), None) => checker.wrong("patch-sync.upstream-tls-key", pair),
        (None, Some(_)) => checker.wrong("patch-sync.upstream-tls-certificate", pair),
        _ => {}
    }
    for (key, url) in [
        ("patch-sync.upstream-url", &sync.upstream_url),
        ("contracts.url", &config.contracts.url),
    ] {
        let host = url.split_once("://").map_or("", |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        if host.contains('@') {
            checker.wrong(key, "holds a user or password; URLs are shown and logged, give those in the keys made for them");
        }
    }
    if config.contracts.enabled && config.contracts.url.is_empty() {
        checker.wrong("contracts.url", "is required by contracts.enabled");
    }
    if sync.enabled {
        enabled(sync, checker);
    }
}

fn enabled(sync: &PatchSync, checker: &mut Checker<'_>) {
    match sync.driver {
        SyncDriver::Peer if sync.token.is_empty() => checker.wrong(
            "patch-sync.token",
            "is required to fetch from another server; its administrator makes one with `livepatch-admin sync-tokens add <tier> <name>`",
        ),
        SyncDriver::Directory if sync.directory.is_none() => checker.wrong(
            "patch-sync.directory",
            "is required by patch-sync.driver: directory; name the folder that holds the tarballs",
        ),
        _ => {}
    }
    if sync.sync_tiers && sync.driver != SyncDriver::Peer {
        checker.wrong(
            "patch-sync.sync-tiers",
            "only another server of this kind has tiers; leave it out, or use patch-sync.driver: peer",
        );
    }
}
