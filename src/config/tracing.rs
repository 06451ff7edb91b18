//! `tracing.*` and `server.security-log`: where traces and security events go.

use super::checks::Checker;
use super::model::Config;
use crate::domain::Secret;
use std::path::PathBuf;

/// `tracing.*`
#[derive(Debug, Clone)]
pub struct Tracing {
    /// `tracing.enabled`
    pub enabled: bool,
    /// `tracing.sample-rate`: the share of requests that are traced, from 0 to 1.
    pub sample_rate: f64,
    /// `tracing.service-name`
    pub service_name: String,
    /// `tracing.endpoint` (ours): the collector's OTLP address for HTTP, without `/v1/traces`.
    pub endpoint: String,
    /// `tracing.headers` (ours): headers for the collector, `name=value` separated by commas.
    pub headers: Secret,
    /// `tracing.ca` (ours): PEM file of the authority that signed the collector's certificate.
    pub ca: Option<PathBuf>,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enabled: false,
            sample_rate: 1.0,
            service_name: "livepatch-server".to_owned(),
            endpoint: "http://127.0.0.1:4318".to_owned(),
            headers: Secret::default(),
            ca: None,
        }
    }
}

impl Tracing {
    /// The collector's headers, by name; `None` where a part is not `name=value`.
    pub fn header_pairs(&self) -> Option<Vec<(&str, &str)>> {
        let parts = self.headers.expose().split(',').map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (name, value) = part.split_once('=')?;
                let (name, value) = (name.trim(), value.trim());
                let is_good = http::HeaderName::try_from(name).is_ok()
                    && http::HeaderValue::try_from(value).is_ok();
                is_good.then_some((name, value))
            })
            .collect()
    }
}

/// Where security events are written, whatever the log level.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SecurityLog {
    /// On standard error, among the logs.
    #[default]
    Stderr,
    /// Nowhere.
    Off,
    /// At the end of this file.
    File(PathBuf),
}

impl SecurityLog {
    /// By the word of the configuration.
    pub(super) fn choose(word: &str) -> Self {
        match word {
            "" | "stderr" => Self::Stderr,
            "off" => Self::Off,
            path => Self::File(path.into()),
        }
    }
}

/// Adds what cannot be together.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    if let SecurityLog::File(path) = &config.server.security_log
        && !path.is_absolute()
    {
        checker.wrong(
            "server.security-log",
            "must be stderr, off, or a path that begins with /",
        );
    }
    let tracing = &config.tracing;
    if !(0.0..=1.0).contains(&tracing.sample_rate) {
        checker.wrong("tracing.sample-rate", "must be between 0 and 1");
    }
    if tracing.header_pairs().is_none() {
        checker.wrong(
            "tracing.headers",
            "must be NAME=VALUE pairs separated by commas, e.g. authorization=Bearer abc",
        );
    }
}
