//! `serve` and `migrate`: the server against given services.

use crate::app;
use crate::app::notify::{self, Notifier};
use crate::config::{Config, Loaded, NoticeLevel, process_environment};
use crate::db::{connect::Settings, migrate as schema};
use anyhow::{Context, anyhow};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  livepatch-server serve --config /etc/livepatch.yaml\n  \
    LP_DATABASE_CONNECTION_STRING_FILE=/run/secrets/db livepatch-server serve"
)]
pub(super) struct ServeArgs {
    /// Configuration file; without it LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not bring the schema up to date; refuse to start if it is too old
    #[arg(long)]
    no_migrate: bool,
}

/// Arguments of `migrate`.
#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    /// Configuration file; without it LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say whether there is something to do
    #[arg(long)]
    check: bool,
}

/// Loads the configuration; prints everything that is wrong with it before giving up.
pub(super) fn load(path: Option<&Path>) -> anyhow::Result<Loaded> {
    Config::load(path, process_environment()).map_err(|errors| {
        for error in &errors {
            eprintln!("error: {error}");
        }
        anyhow!(
            "the configuration has {} error(s); `livepatch-server config check` shows them too",
            errors.len()
        )
    })
}

/// A runtime for a server: as many workers as there are processors.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// Ends when the process is told to stop, from this call on, awaited or not.
pub(super) fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

pub(super) fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(args.config.as_deref())?;
    let runtime = runtime()?;
    let telling = {
        let _within = runtime.enter();
        app::tell(&loaded.config)?
    };
    for notice in &loaded.notices {
        match notice.level {
            NoticeLevel::Warning => tracing::warn!("{notice}"),
            NoticeLevel::Note => tracing::info!("{notice}"),
        }
    }
    runtime.block_on(async move {
        let running = app::start(loaded.config, !args.no_migrate).await?;
        // Before it says that it is ready: who heard that may stop it in the next moment.
        let stop = told_to_stop()?;
        // It listens and has its snapshot: units that wait for this one may start.
        let manager = Notifier::from_environment();
        manager.ready(&format!("serving machines at {}", running.address));
        tokio::select! {
            () = stop => {}
            never = notify::keep_alive(&manager) => match never {},
        }
        manager.stopping();
        let drained = tokio::select! {
            drained = running.stop() => drained,
            never = notify::keep_alive(&manager) => match never {},
        };
        telling.end().await;
        Ok(if drained {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

pub(super) fn migrate(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(args.config.as_deref())?;
    let settings = Settings::new(&loaded.config.database).map_err(|why| anyhow!(why))?;
    runtime()?.block_on(async move {
        let have = schema::current_version(&settings)
            .await
            .context("database.connection-string")?;
        let want = schema::wanted_version();
        if args.check {
            println!("schema version {have}, this program needs {want}");
            return Ok(if have < want {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            });
        }
        let migrated = schema::migrate(&settings).await?;
        if migrated.applied.is_empty() {
            println!("nothing to do: the schema has version {}", migrated.version);
        }
        for name in &migrated.applied {
            println!("applied {name}");
        }
        Ok(ExitCode::SUCCESS)
    })
}
