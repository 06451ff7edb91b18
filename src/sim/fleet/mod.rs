//! A simulated fleet: many machines against one server, for load and for trying a rollout at size.
//!
//! The machines are the same in every run with the same seed. They speak through [`ServerApi`], as the reference client
//! does, and say that they applied whatever they were offered, but for those that a fault strikes. Nothing is inserted anywhere.

mod kernels;
mod kinds;
mod latency;
pub mod ledger;
mod load;
mod machines;
mod register;
mod summary;

pub use kernels::{Kernel, Spread};
pub use latency::Latency;
pub use machines::{Machine, Runs, id, machine};
pub use summary::{Downloads, Percentiles, Summary};

use super::error::Error;
use super::tls::Tls;
use super::{ConnectOptions, ServerApi};
use crate::domain::fault::Fault;
use crate::domain::policy::Share;
use jiff::Timestamp;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a machine checks in where no rate is given: once an hour, as real clients do.
const INTERVAL: Duration = Duration::from_hours(1);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the server.
    pub server: String,
    /// Whom to believe, and what to show.
    pub tls: Tls,
    /// Auth token that the machines register with.
    pub token: String,
    /// How many machines.
    pub machines: u32,
    /// Which fleet: another seed makes other machines.
    pub seed: u64,
    /// Check-ins per second in all; `None`: each machine once an hour.
    pub rate: Option<f64>,
    /// How long check-ins fall due.
    pub duration: Duration,
    /// Kernels of the machines.
    pub spread: Spread,
    /// The most connections at once.
    pub connections: u32,
    /// Download what is offered.
    pub downloads: bool,
    /// File that keeps the machines' tokens from run to run.
    pub tokens: Option<PathBuf>,
    /// File to write what was acknowledged to, see [`ledger`].
    pub ledger: Option<PathBuf>,
    /// What goes wrong with patches.
    pub faults: Vec<Fault>,
    /// Share of the requests that the network loses, repeats or delays.
    pub unstable: Share,
}

/// Registers what is not registered, then lets check-ins fall due at the rate asked for. `stop` ends it early with
/// what came of it so far; progress goes to `say`.
pub async fn run(
    options: &Options,
    stop: &CancellationToken,
    say: impl Fn(String),
) -> Result<Summary, Error> {
    let rate = options
        .rate
        .unwrap_or(f64::from(options.machines) / INTERVAL.as_secs_f64());
    if options.machines == 0 || options.connections == 0 || !rate.is_finite() || rate <= 0.0 {
        return Err(Error::Usage(
            "--machines, --connections and --rate must be more than zero".to_owned(),
        ));
    }
    let api = ServerApi::new(&ConnectOptions {
        server: options.server.clone(),
        tls: options.tls.clone(),
        tls_patch_download: false,
    })?;
    let begun = Timestamp::now();
    let enabled = register::enable(options, &api, begun, stop, &say).await?;
    if enabled.members.is_empty() && !stop.is_cancelled() {
        return Err(Error::Local(format!(
            "no machine could be registered with {}: {:?}; is this a livepatch server, and is it up?",
            options.server, enabled.errors
        )));
    }
    say(format!(
        "{} machines enabled, {} of them now; {rate:.1} check-ins per second for {}",
        enabled.members.len(),
        enabled.registered,
        humantime::format_duration(options.duration)
    ));
    let load = load::Load::new(options, &api, &enabled.members, begun, rate, stop);
    let outcome = load.run(&say).await;
    let tally = outcome.tally;
    if let Some(path) = &options.ledger {
        ledger::write(path, options.seed, &enabled.members, &outcome.ledger)?;
    }
    Ok(Summary {
        machines: options.machines,
        enabled: enabled.members.len() as u32,
        registered: enabled.registered,
        registration_errors: enabled.errors,
        seed: options.seed,
        connections: options.connections,
        rate,
        seconds: outcome.took.as_secs_f64(),
        interrupted: outcome.interrupted,
        due: outcome.due,
        sent: tally.sent,
        ok: tally.ok,
        ok_per_second: tally.ok as f64 / outcome.took.as_secs_f64().max(1e-9),
        latency_ms: (&tally.all).into(),
        latency_ok_ms: (&tally.good).into(),
        errors: tally.errors,
        offers: tally.offers,
        failures: tally.failures,
        crashed: tally.crashed,
        lost: tally.lost,
        downloads: Downloads {
            ok: tally.downloads,
            bytes: tally.bytes,
            errors: tally.download_errors,
            latency_ms: (&tally.download_time).into(),
        },
    })
}
