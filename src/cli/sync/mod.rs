//! `sync`: trigger, status, reports, confirm, reset, filters.

mod show;

use super::client::Client;
use super::context::{Context, PageArgs, list};
use super::output::{Show, bytes, word};
use super::upload::style;
use super::{CliError, Exit, prompt};
use crate::domain::TierName;
use crate::wire::admin::{
    PageQuery, SyncConfirm, SyncFilters, SyncFiltersQuery, SyncReport, SyncRun, SyncState,
    SyncStatus,
};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget};
use reqwest::Method;
use std::time::Duration;

/// How often a run is looked at.
const INTERVAL: Duration = Duration::from_millis(300);

/// Commands on sync.
#[derive(Debug, Subcommand)]
pub enum SyncCommand {
    /// Fetch what is new upstream now
    Trigger {
        /// Wait for its end, with a progress bar; the exit code tells how it ended
        #[arg(long)]
        wait: bool,
    },
    /// Show how sync stands: where from, when last, what waits
    Status,
    /// List the runs, newest first
    Reports(PageArgs),
    /// Show what came of a run
    Report {
        /// Its id
        id: i64,
    },
    /// Show what waits to be confirmed
    Preview,
    /// Confirm what waits, and fetch
    Confirm(ConfirmArgs),
    /// Forget what is known of the upstream: its deployment, keys and version
    Reset,
    /// List the servers that pull from this one
    Peers(PageArgs),
    /// Show what other filters would add and drop
    Filters(FilterArgs),
}

/// Arguments of `sync confirm`.
#[derive(Debug, Args)]
#[command(after_help = "Example: livepatch-admin sync confirm --move beta=candidate")]
pub struct ConfirmArgs {
    /// Where machines and tokens of a tier that goes are moved; may be given several times
    #[arg(long = "move", value_name = "OLD=NEW", value_parser = parse_move)]
    pub moves: Vec<(TierName, TierName)>,
}

fn parse_move(text: &str) -> Result<(TierName, TierName), String> {
    let (old, new) = text
        .split_once('=')
        .ok_or("OLD=NEW expected, e.g. beta=candidate")?;
    let tier = |name: &str| name.parse::<TierName>().map_err(|e| e.to_string());
    Ok((tier(old)?, tier(new)?))
}

/// Arguments of `sync filters`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is not given stays as configured; `all` takes a filter away.\n\
    Example: livepatch-admin sync filters --flavors generic,aws --minimum-kernel-version 5.15"
)]
pub struct FilterArgs {
    /// Architectures, separated by commas
    #[arg(long, value_name = "LIST")]
    pub architectures: Option<String>,
    /// Flavours, separated by commas
    #[arg(long, value_name = "LIST", alias = "flavours")]
    pub flavors: Option<String>,
    /// The oldest kernel
    #[arg(long, value_name = "VERSION")]
    pub minimum_kernel_version: Option<String>,
    /// Beginnings of kernel versions, separated by commas
    #[arg(long, value_name = "LIST")]
    pub kernel_prefixes: Option<String>,
    /// Only kernels that machines run
    #[arg(long, value_name = "true|false")]
    pub only_our_kernels: Option<bool>,
}

/// How a run's end is told in the exit code.
fn verdict(run: &SyncRun) -> Result<Exit, CliError> {
    match run.state {
        SyncState::Failed | SyncState::Waiting => Err(CliError::Sync {
            id: run.id,
            waits: run.state == SyncState::Waiting,
            why: run
                .error
                .clone()
                .unwrap_or_else(|| "the server gives no reason".to_owned()),
        }),
        _ if run.quarantined > 0 => Ok(Exit::Unsound),
        _ => Ok(Exit::Ok),
    }
}

/// Follows a run to its end with a progress bar, and shows what came of it.
async fn follow(context: &Context, client: &Client, id: i64) -> Result<Exit, CliError> {
    let target = if context.progress() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style("{msg} [{wide_bar}] {pos}/{len} {eta}"));
    let id = id.to_string();
    let report = loop {
        let report: SyncReport = client
            .get(&["sync", "reports", &id], &PageQuery::default())
            .await?;
        let progress = &report.run.progress;
        bar.set_message(format!(
            "{} {}",
            word(&progress.phase),
            bytes(progress.bytes)
        ));
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.done);
        if !matches!(report.run.state, SyncState::Queued | SyncState::Running) {
            break report;
        }
        tokio::time::sleep(INTERVAL).await;
    };
    bar.finish_and_clear();
    context.show(&report)?;
    verdict(&report.run)
}

/// Runs a command on sync.
pub async fn run(context: &Context, command: SyncCommand) -> Result<Exit, CliError> {
    let client = context.client()?;
    match command {
        SyncCommand::Trigger { wait } => {
            let run: SyncRun = client.call(Method::POST, &["sync", "trigger"]).await?;
            if wait {
                return follow(context, &client, run.id).await;
            }
            let sentence = format!(
                "Run {} is {}; see what comes of it: livepatch-admin sync report {}",
                run.id,
                word(&run.state),
                run.id
            );
            context.done(&run, &sentence)?;
        }
        SyncCommand::Status => context.show(&status(&client).await?)?,
        SyncCommand::Preview => {
            let pending = status(&client).await?.pending.unwrap_or_default();
            context.show(&pending)?;
        }
        SyncCommand::Reports(page) => {
            let page =
                list::<SyncRun, _>(&client, &["sync", "reports"], page, PageQuery::new).await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
        }
        SyncCommand::Report { id } => {
            let id = id.to_string();
            let report: SyncReport = client
                .get(&["sync", "reports", &id], &PageQuery::default())
                .await?;
            context.show(&report)?;
        }
        SyncCommand::Confirm(args) => confirm(context, &client, args).await?,
        SyncCommand::Peers(page) => super::sync_tokens::peers(context, page).await?,
        SyncCommand::Reset => {
            let act = "Forget the deployment, keys and version of the upstream";
            prompt::confirm(act, context.global.yes)?;
            let status: SyncStatus = client.call(Method::POST, &["sync", "reset"]).await?;
            let sentence = "It is forgotten; the next run is a first contact.";
            context.done(&status, sentence)?;
        }
        SyncCommand::Filters(args) => {
            let query = SyncFiltersQuery {
                architectures: args.architectures,
                flavors: args.flavors,
                minimum_kernel_version: args.minimum_kernel_version,
                kernel_prefixes: args.kernel_prefixes,
                only_our_kernels: args.only_our_kernels,
            };
            let filters: SyncFilters = client.get(&["sync", "filters"], &query).await?;
            context.show(&filters)?;
        }
    }
    Ok(Exit::Ok)
}

async fn status(client: &Client) -> Result<SyncStatus, CliError> {
    client.get(&["sync", "status"], &PageQuery::default()).await
}

async fn confirm(context: &Context, client: &Client, args: ConfirmArgs) -> Result<(), CliError> {
    let pending = status(client).await?.pending.unwrap_or_default();
    let Some(digest) = pending.digest else {
        return Err(CliError::Usage("nothing waits to be confirmed".to_owned()));
    };
    context.note(&pending.show(context.view()));
    prompt::confirm("Let it go on", context.global.yes)?;
    let body = SyncConfirm {
        digest,
        r#move: args.moves.into_iter().collect(),
    };
    let status: SyncStatus = client
        .send(Method::POST, &["sync", "confirm"], &body)
        .await?;
    context.done(
        &status,
        "It is confirmed, and a run is asked for: livepatch-admin sync trigger --wait follows it",
    )
}
