//! From the arguments to the exit code.

use super::args::{Cli, Command};
use super::context::Context;
use super::{CliError, Exit};
use super::{
    admin, audit, capture, coverage, job, kernels, login, machine, patch, policy, report, rollout,
    session, storage, sync, sync_tokens, tier, token, webhook,
};
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::process::ExitCode;

/// Runs livepatch-admin with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::new(cli.global);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io {
            doing: "start",
            source,
        });
    match runtime.and_then(|runtime| runtime.block_on(run(&context, cli.command))) {
        Ok(exit) => exit.into(),
        Err(error) => {
            // Standard error may be closed; the exit code still tells.
            let _ = writeln!(std::io::stderr().lock(), "{}", error.render());
            error.exit().into()
        }
    }
}

async fn run(context: &Context, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Login(args) => login::login(context, args).await?,
        Command::Logout => login::logout(context).await?,
        Command::Tier(command) => tier::run(context, command).await?,
        Command::Patch(command) => return patch::run(context, command).await,
        Command::Policy(command) => policy::run(context, command).await?,
        Command::Plan(args) => policy::plan(context, args).await?,
        Command::Apply(args) => policy::apply(context, args).await?,
        Command::Drift(args) => return policy::drift(context, args).await,
        Command::Rollout(command) => rollout::run(context, command).await?,
        Command::Preview(command) => rollout::preview(context, command).await?,
        Command::AuthToken(args) => token::run(context, args).await?,
        Command::SyncTokens(command) => sync_tokens::run(context, command).await?,
        Command::Storage(command) => return storage::run(context, command).await,
        Command::Sync(command) => return sync::run(context, command).await,
        Command::Machine(command) => machine::run(context, command).await?,
        Command::Report(command) => report::run(context, command).await?,
        Command::Coverage(args) => coverage::run(context, args).await?,
        Command::Kernels(command) => kernels::run(context, command).await?,
        Command::Explain(args) => machine::explain(context, args).await?,
        Command::Admin(command) => admin::run(context, command).await?,
        Command::Session(command) => session::run(context, command).await?,
        Command::Audit(command) => return audit::run(context, command).await,
        Command::Webhook(command) => webhook::run(context, command).await?,
        Command::Capture(command) => capture::run(context, command).await?,
        Command::Job(command) => return job::run(context, command).await,
        Command::Completion { shell } => {
            context.print(super::docs::completion(&mut Cli::command(), shell).trim_end())?;
        }
        Command::Version => {
            context.print(&format!("livepatch-admin {}", env!("CARGO_PKG_VERSION")))?;
        }
    }
    Ok(Exit::Ok)
}
