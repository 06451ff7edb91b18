//! The commands of livepatch-server, one file each.

mod beside;
pub mod bundle;
pub mod config;
mod export;
mod healthcheck;
mod import;
mod keys;
mod manual;
mod quickstart;
mod resource_token;
mod serve;
mod simulate;

use crate::cli::docs;
use clap::{CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "livepatch-server",
    version,
    about = "An open, on-premises distribution server for Ubuntu kernel live patches",
    long_about = "An open, on-premises distribution server for Ubuntu kernel live patches.\n\n\
        Start with `livepatch-server quickstart`: it needs nothing but PostgreSQL's programs on this machine.\n\
        For a real installation, write /etc/livepatch.yaml (`livepatch-server config show --defaults` prints one with \
        every key explained), check it with `livepatch-server config check`, and run `livepatch-server serve`.",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server against the services that the configuration names
    Serve(serve::ServeArgs),
    /// Run everything in one directory: a private PostgreSQL, a folder as storage, an administrator
    Quickstart(quickstart::QuickstartArgs),
    /// Bring the database's schema up to date and end
    Migrate(serve::MigrateArgs),
    /// Check, show and explain the configuration
    Config(config::ConfigArgs),
    /// Write an archive for a site without network
    Export(export::ExportArgs),
    /// Take in an archive that was carried here
    Import(import::ImportArgs),
    /// The keys that this deployment signs with, and those of others that it believes
    Keys(keys::KeysArgs),
    /// Make and inspect patch bundles
    Bundle(bundle::BundleArgs),
    /// Get this server's resource token from the contracts service of Ubuntu Pro, and store it
    GetResourceToken(resource_token::ResourceTokenArgs),
    /// Try a rollout policy on a simulated fleet
    Simulate(simulate::SimulateArgs),
    /// Ask a running server whether it is well; for container and service managers
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages and completion scripts of all three programs, for packages
    #[command(hide = true)]
    Manual {
        /// The folder that gets them: man1/, bash/, zsh/, fish/
        dir: PathBuf,
    },
}

/// Runs a command.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::serve(args),
        Command::Quickstart(args) => quickstart::run(args),
        Command::Migrate(args) => serve::migrate(args),
        Command::Config(args) => config::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Keys(args) => keys::run(args),
        Command::Bundle(args) => bundle::run(args),
        Command::GetResourceToken(args) => resource_token::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Healthcheck(args) => healthcheck::run(args),
        Command::Completion { shell } => {
            print!("{}", docs::completion(&mut Cli::command(), shell));
            Ok(ExitCode::SUCCESS)
        }
        Command::Manual { dir } => {
            manual::write(&dir)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
