//! What commands share that work on a server's database and storage, beside running replicas or without any.

use super::serve::load;
use crate::app;
use crate::db::audit::Actor;
use crate::service::Core;
use crate::telemetry::logs::{self, LogFormat};
use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::sync::Arc;

/// Who is named in the audit log. A command is run by whoever may read the configuration's secrets; which person that is, it cannot know.
pub(super) fn actor(command: &str) -> Actor {
    Actor {
        name: "system".to_owned(),
        source: format!("livepatch-server {command}"),
    }
}

/// The parts of a server, without listening.
pub(super) async fn core(config: Option<&Path>) -> anyhow::Result<Arc<Core>> {
    let loaded = load(config)?;
    logs::init("warn", LogFormat::Text).context("setting up the log")?;
    let (core, _) = app::open(loaded.config, false).await?;
    Ok(core)
}

/// A bar on the terminal, or nothing where there is none.
pub(super) fn bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.with_message(what)
}

/// Reads a number of bytes such as `4GiB`, for clap.
pub(super) fn size(text: &str) -> Result<u64, String> {
    crate::config::parse_bytes(text)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| "a number of bytes such as 4GiB or 700MB is expected".to_owned())
}

/// A duration in words, for clap.
pub(super) fn lifetime(text: &str) -> Result<jiff::SignedDuration, String> {
    let duration = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    let duration = jiff::SignedDuration::try_from(duration).map_err(|e| e.to_string())?;
    let year = jiff::SignedDuration::from_hours(366 * 24);
    if duration.is_zero() || duration > year {
        return Err("more than nothing and at most a year is expected, such as 90days".to_owned());
    }
    Ok(duration)
}

/// Turns an error of a service into one for people.
pub(super) fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}
