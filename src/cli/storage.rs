//! `storage`: patches, refresh, verify, prune, quarantine.

use super::args::ScopeArgs;
use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, bytes, properties, some, text, word};
use super::{CliError, Exit, job, prompt};
use crate::domain::PatchVersion;
use crate::wire::admin::{
    IngestOutcome, IngestResult, Job, PageQuery, PayloadEntry, PayloadQuery, PruneRequest,
    QuarantineEntry, RefreshRequest,
};
use clap::{Args, Subcommand};
use reqwest::Method;

/// Commands on the storage.
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// List the payloads in the storage
    Patches(PatchesArgs),
    /// Take in tarballs that were put into the storage by hand
    Refresh {
        /// Remove a found file once its content is stored or quarantined
        #[arg(long)]
        remove_originals: bool,
        /// Only say what would be taken in
        #[arg(long)]
        dry_run: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Read every object in the storage and compare it with its hash
    Verify {
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Remove payloads that no filter of sync admits and no machine's kernel could need
    Prune {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Whether to wait.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Files that failed the checks
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
}

/// Arguments of `storage patches`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: livepatch-admin storage patches --patch 107.1 --flavour aws --all"
)]
pub struct PatchesArgs {
    /// Only of this patch, e.g. 107.1
    #[arg(long, value_name = "VERSION")]
    pub patch: Option<PatchVersion>,
    /// For which kernels.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Whether to wait for a job.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Only start the job and print its id; `job show ID --wait` follows it
    #[arg(long)]
    pub no_wait: bool,
}

/// Commands on quarantine.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List what is in quarantine, newest first
    List(PageArgs),
    /// Show one file and why it is there
    Show {
        /// Its id
        id: i64,
    },
    /// Put a file through all checks again, e.g. after a certificate was added
    Release {
        /// Its id
        id: i64,
    },
    /// Delete a file from quarantine
    Drop {
        /// Its id
        id: i64,
    },
}

impl Row for PayloadEntry {
    const HEADER: &'static [&'static str] = &[
        "patch",
        "kernel",
        "arch",
        "reach",
        "size",
        "signature",
        "signer",
        "sha256",
        "source",
        "added",
        "damaged",
    ];
    const NONE: &'static str = "There are no such payloads in the storage.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.version.to_string(),
            self.kernel.to_string(),
            self.architecture.to_string(),
            some(self.tier.as_ref()),
            bytes(self.size),
            word(&self.signature),
            some(self.signer.as_ref()),
            // Enough to recognise it by; --output json has all of it.
            self.sha256.to_string().chars().take(12).collect(),
            text(&self.source),
            view.time(self.added_at),
            some(self.damaged.as_ref()),
        ]
    }
}

impl Row for QuarantineEntry {
    const HEADER: &'static [&'static str] = &[
        "id", "file", "size", "code", "reason", "source", "by", "since",
    ];
    const NONE: &'static str = "Nothing is in quarantine.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.filename.clone(),
            bytes(self.size),
            self.code.clone(),
            self.reason.clone(),
            self.source.clone(),
            self.actor.clone(),
            view.time(self.at),
        ]
    }
}

impl Show for QuarantineEntry {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Id", self.id.to_string()),
                ("File", self.filename.clone()),
                ("SHA-256", self.sha256.to_string()),
                ("Size", bytes(self.size)),
                ("Code", self.code.clone()),
                ("Reason", self.reason.clone()),
                ("Source", self.source.clone()),
                ("By", self.actor.clone()),
                ("Since", view.time(self.at)),
            ],
            view,
        )
    }
}

impl Show for IngestOutcome {
    fn show(&self, _: &View) -> String {
        let remark = match (&self.reason, &self.warning) {
            (Some(remark), _) | (None, Some(remark)) => format!(": {remark}"),
            (None, None) => String::new(),
        };
        format!("{}: {}{remark}", self.filename, word(&self.result))
    }
}

/// Runs a command on the storage.
pub async fn run(context: &Context, command: StorageCommand) -> Result<Exit, CliError> {
    match command {
        StorageCommand::Patches(args) => {
            let scope = args.scope.scope()?;
            let page = list::<PayloadEntry, _>(
                &context.client()?,
                &["payloads"],
                args.page,
                |cursor, limit| PayloadQuery {
                    version: args.patch,
                    kernel: scope.kernel.clone(),
                    architecture: scope.architecture,
                    flavour: scope.flavour.clone(),
                    cursor,
                    limit: Some(limit),
                },
            )
            .await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(Exit::Ok)
        }
        StorageCommand::Refresh {
            remove_originals,
            dry_run,
            wait,
        } => {
            let client = context.client()?;
            let body = RefreshRequest {
                remove_originals,
                dry_run,
            };
            let job: Job = client
                .send(Method::POST, &["storage", "refresh"], &body)
                .await?;
            started(context, &client, job, wait).await
        }
        StorageCommand::Verify { wait } => {
            let client = context.client()?;
            let job: Job = client.call(Method::POST, &["storage", "verify"]).await?;
            started(context, &client, job, wait).await
        }
        StorageCommand::Prune { dry_run, wait } => {
            if !dry_run {
                let act = "Remove the payloads that no filter admits (see --dry-run)";
                prompt::confirm(act, context.global.yes)?;
            }
            let client = context.client()?;
            let body = PruneRequest { dry_run };
            let job: Job = client
                .send(Method::POST, &["storage", "prune"], &body)
                .await?;
            started(context, &client, job, wait).await
        }
        StorageCommand::Quarantine(command) => quarantine(context, command).await,
    }
}

async fn started(
    context: &Context,
    client: &super::client::Client,
    job: Job,
    wait: WaitArgs,
) -> Result<Exit, CliError> {
    if !wait.no_wait {
        return job::follow(context, client, job).await;
    }
    let sentence = format!(
        "Job {} is started; follow it: livepatch-admin job show {} --wait",
        job.id, job.id
    );
    context.done(&job, &sentence)?;
    Ok(Exit::Ok)
}

async fn quarantine(context: &Context, command: QuarantineCommand) -> Result<Exit, CliError> {
    let client = context.client()?;
    match command {
        QuarantineCommand::List(page) => {
            let page =
                list::<QuarantineEntry, _>(&client, &["quarantine"], page, PageQuery::new).await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
        }
        QuarantineCommand::Show { id } => {
            let id = id.to_string();
            let entry: QuarantineEntry = client
                .get(&["quarantine", &id], &PageQuery::default())
                .await?;
            context.show(&entry)?;
        }
        QuarantineCommand::Release { id } => {
            let id = id.to_string();
            let outcome: IngestOutcome = client
                .call(Method::POST, &["quarantine", &id, "release"])
                .await?;
            context.show(&outcome)?;
            if outcome.result == IngestResult::Quarantined {
                return Ok(Exit::Unsound);
            }
        }
        QuarantineCommand::Drop { id } => {
            prompt::confirm(
                &format!("Delete file {id} from quarantine"),
                context.global.yes,
            )?;
            client
                .tell(Method::DELETE, &["quarantine", &id.to_string()])
                .await?;
            context.say(&format!("File {id} is deleted from quarantine."))?;
        }
    }
    Ok(Exit::Ok)
}
