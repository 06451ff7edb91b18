//! `patch`: list, show, upload, promote, promote-all, block, unblock, hold, resume.

use super::args::ScopeArgs;
use super::context::Context;
use super::output::{
    Row, Show, View, blocks, bytes, count, properties, rows, some, table, text, titled, word,
};
use super::upload::{self, UploadArgs};
use super::{CliError, Exit};
use crate::domain::{PatchVersion, TierName};
use crate::wire::admin::{
    Block, BlockOutcome, BlockRequest, KernelGap, PageQuery, Patch, PatchDetail, PayloadEntry,
    PromoteAllRequest, PromoteOutcome, PromoteRequest, PromotedPatch, Promotion, WireScope,
};
use clap::{Args, Subcommand};
use reqwest::Method;

const PROMOTE: &str = "\
A patch that has reached a tier is available in that tier and in all before it.

Examples:
  livepatch-admin patch promote 107.1 beta --dry-run
  livepatch-admin patch promote 107.1 beta --reason 'CVE-2026-1234, lab is fine'
  livepatch-admin patch promote 107.1 stable --flavour aws --arch arm64";

/// Commands on patches.
#[derive(Debug, Subcommand)]
pub enum PatchCommand {
    /// List the patches, highest version first
    List,
    /// Show one patch: payloads, promotions, blocks
    Show {
        /// Its version, e.g. 107.1
        version: PatchVersion,
    },
    /// Let a patch reach a tier
    #[command(after_help = PROMOTE)]
    Promote {
        /// Its version, e.g. 107.1
        version: PatchVersion,
        /// The tier it shall reach
        tier: TierName,
        /// For which kernels.
        #[command(flatten)]
        scope: ScopeArgs,
        /// Why, and whether to try only.
        #[command(flatten)]
        how: How,
    },
    /// Let everything that has reached one tier reach another
    #[command(after_help = "Example: livepatch-admin patch promote-all edge stable --dry-run")]
    PromoteAll {
        /// What has reached this tier...
        from: TierName,
        /// ...shall reach this one
        to: TierName,
        /// Why, and whether to try only.
        #[command(flatten)]
        how: How,
    },
    /// Withdraw a patch: it is not offered, and machines that run it may go back to a lower version
    Block(StopArgs),
    /// Lift a block
    Unblock(StopArgs),
    /// Stop new offers of a patch; machines that run it keep it
    Hold(StopArgs),
    /// Lift a hold
    Resume(StopArgs),
    /// Bring bundles to the server
    Upload(UploadArgs),
}

/// Why, and whether to try only.
#[derive(Debug, Args)]
pub struct How {
    /// Why; stands in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only say what would change
    #[arg(long)]
    pub dry_run: bool,
}

/// Arguments of block, unblock, hold and resume.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Version of the patch, e.g. 107.1
    pub version: PatchVersion,
    /// For which kernels; to lift, the same as it was set for.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// Why; stands in the audit log
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// A scope for people.
pub(super) fn scope_text(scope: &WireScope) -> String {
    let mut parts = Vec::new();
    if let Some(kernel) = &scope.kernel {
        parts.push(format!("kernel {kernel}"));
    }
    if let Some(flavour) = &scope.flavour {
        parts.push(format!("flavour {flavour}"));
    }
    if let Some(architecture) = scope.architecture {
        parts.push(format!("architecture {architecture}"));
    }
    if parts.is_empty() {
        "all kernels".to_owned()
    } else {
        parts.join(", ")
    }
}

/// `blocked`, `held (flavour aws)`, or nothing.
fn stops(blocks: &[Block]) -> String {
    let stops: Vec<String> = blocks
        .iter()
        .map(|block| {
            let word = match block.kind {
                crate::wire::admin::BlockKind::Block => "blocked",
                crate::wire::admin::BlockKind::Hold => "held",
            };
            if block.scope.is_all() {
                word.to_owned()
            } else {
                format!("{word} ({})", scope_text(&block.scope))
            }
        })
        .collect();
    text(&stops.join("; "))
}

impl Row for Patch {
    const HEADER: &'static [&'static str] = &[
        "version",
        "notice",
        "reach",
        "stopped",
        "payloads",
        "kernels",
        "damaged",
        "first seen",
    ];
    const NONE: &'static str =
        "There are no patches yet; bring some with `livepatch-admin patch upload FILE...`.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.version.to_string(),
            self.notice.clone(),
            some(self.reach.as_ref()),
            stops(&self.blocks),
            self.payloads.to_string(),
            self.kernels.to_string(),
            self.damaged.to_string(),
            view.time(self.first_seen),
        ]
    }
}

impl Row for Promotion {
    const HEADER: &'static [&'static str] = &["tier", "for", "when", "who", "why"];
    const NONE: &'static str = "none";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.tier.to_string(),
            scope_text(&self.scope),
            view.time(self.at),
            self.actor.clone(),
            text(&self.reason),
        ]
    }
}

impl Row for Block {
    const HEADER: &'static [&'static str] = &["kind", "for", "since", "who", "why"];
    const NONE: &'static str = "none";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            word(&self.kind),
            scope_text(&self.scope),
            view.time(self.at),
            self.actor.clone(),
            text(&self.reason),
        ]
    }
}

impl Show for PatchDetail {
    fn show(&self, view: &View) -> String {
        let patch = &self.patch;
        let payload_row = |p: &PayloadEntry| {
            vec![
                p.kernel.to_string(),
                p.architecture.to_string(),
                some(p.tier.as_ref()),
                bytes(p.size),
                word(&p.signature),
                some(p.damaged.as_ref()),
            ]
        };
        blocks([
            properties(
                [
                    ("Patch", patch.version.to_string()),
                    ("Notice", patch.notice.clone()),
                    ("Reach", some(patch.reach.as_ref())),
                    ("Stopped", stops(&patch.blocks)),
                    ("First seen", view.time(patch.first_seen)),
                ],
                view,
            ),
            titled("Promotions", &rows(&patch.promotions, view)),
            titled("Blocks and holds", &rows(&patch.blocks, view)),
            titled(
                "Payloads",
                &table(
                    &["kernel", "arch", "reach", "size", "signature", "damaged"],
                    self.payloads.iter().map(payload_row),
                    view,
                ),
            ),
        ])
    }
}

impl Row for PromotedPatch {
    const HEADER: &'static [&'static str] = &["patch", "from", "to", "for"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.version.to_string(),
            some(self.from.as_ref()),
            self.to.to_string(),
            scope_text(&self.scope),
        ]
    }
}

impl Row for KernelGap {
    const HEADER: &'static [&'static str] = &["kernel", "arch", "machines"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.kernel.clone(),
            some(self.architecture),
            self.machines.to_string(),
        ]
    }
}

impl Show for PromoteOutcome {
    fn show(&self, view: &View) -> String {
        let gaps = if self.kernels_without_payload.is_empty() {
            String::new()
        } else {
            titled(
                "Kernels of machines there for which there is no payload",
                &rows(&self.kernels_without_payload, view),
            )
        };
        if self.patches.is_empty() {
            return blocks(["Nothing to promote: all is there already.".to_owned(), gaps]);
        }
        let payloads = count(self.payloads, "payload", "payloads");
        let machines = count(self.machines, "machine", "machines");
        let download = bytes(self.bytes);
        let sentence = if self.dry_run {
            format!(
                "Nothing was changed. It would make {payloads} available; {machines} would be offered another patch, {download} to download in all."
            )
        } else {
            format!(
                "{payloads} became available; {machines} will be offered another patch at the next check, {download} to download in all."
            )
        };
        blocks([rows(&self.patches, view), sentence, gaps])
    }
}

impl Show for BlockOutcome {
    fn show(&self, view: &View) -> String {
        let stands = if self.blocks.is_empty() {
            "is free: nothing stops it".to_owned()
        } else {
            format!("is {}", stops(&self.blocks))
        };
        let before = if self.changed {
            ""
        } else {
            " It stood so already; nothing was changed."
        };
        let running = if self.machines_running == 1 {
            "1 machine says it runs this version.".to_owned()
        } else {
            format!(
                "{} machines say they run this version.",
                self.machines_running
            )
        };
        let list = if self.blocks.is_empty() {
            String::new()
        } else {
            rows(&self.blocks, view)
        };
        blocks([
            format!("Patch {} {stands}.{before} {running}", self.version),
            list,
        ])
    }
}

/// Runs a command on patches.
pub async fn run(context: &Context, command: PatchCommand) -> Result<Exit, CliError> {
    match command {
        PatchCommand::List => {
            let page = context
                .client()?
                .all::<Patch, _>(&["patches"], PageQuery::new)
                .await?;
            context.show(&page)?;
        }
        PatchCommand::Show { version } => {
            let version = version.to_string();
            let patch: PatchDetail = context
                .client()?
                .get(&["patches", &version], &PageQuery::default())
                .await?;
            context.show(&patch)?;
        }
        PatchCommand::Promote {
            version,
            tier,
            scope,
            how,
        } => {
            let body = PromoteRequest {
                tier,
                scope: scope.scope()?,
                reason: how.reason,
                dry_run: how.dry_run,
                selector: None,
            };
            let version = version.to_string();
            let outcome: PromoteOutcome = context
                .client()?
                .send(Method::POST, &["patches", &version, "promote"], &body)
                .await?;
            context.show(&outcome)?;
        }
        PatchCommand::PromoteAll { from, to, how } => {
            let body = PromoteAllRequest {
                from,
                to,
                reason: how.reason,
                dry_run: how.dry_run,
            };
            let outcome: PromoteOutcome = context
                .client()?
                .send(Method::POST, &["promote-all"], &body)
                .await?;
            context.show(&outcome)?;
        }
        PatchCommand::Block(args) => stop(context, "block", args).await?,
        PatchCommand::Unblock(args) => stop(context, "unblock", args).await?,
        PatchCommand::Hold(args) => stop(context, "hold", args).await?,
        PatchCommand::Resume(args) => stop(context, "resume", args).await?,
        PatchCommand::Upload(args) => return upload::run(context, args).await,
    }
    Ok(Exit::Ok)
}

async fn stop(context: &Context, verb: &str, args: StopArgs) -> Result<(), CliError> {
    let body = BlockRequest {
        scope: args.scope.scope()?,
        reason: args.reason,
    };
    let version = args.version.to_string();
    let outcome: BlockOutcome = context
        .client()?
        .send(Method::POST, &["patches", &version, verb], &body)
        .await?;
    context.show(&outcome)
}
