//! `import`: takes in what was carried here: an archive, or with `--status` how another site's fleet fares.

use super::beside::{actor, bar, core, plain};
use super::serve::{runtime, told_to_stop};
use crate::cli::output::{bytes, count};
use crate::domain::PublicKey;
use crate::service::Core;
use crate::service::airgap::{self, Changes, ImportError, ImportOptions, Opened, TakeOptions};
use crate::service::sync::Ended;
use crate::wire::admin::SyncState;
use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Lines of each kind that are shown.
const SHOWN: usize = 20;
/// Exit code when a person has to agree first.
const WAITING: u8 = 3;

const EXAMPLES: &str = "\
Signature, completeness and every hash are verified before anything is changed. Then payloads are taken in as from
anywhere else: each is examined and its module's signature checked. All of it becomes visible at once; running servers
notice by themselves. If the import breaks off, run it again: what was taken in already is not taken in again.

It asks before it changes anything, unless --yes is given or there is no terminal; without a terminal it ends with
exit code 3 if more is gone than patch-sync.max-shrink allows. Of several archives the older comes first, and those
that were taken in before are passed over.

An archive that is older than the last one, or has expired, is refused. Blocks and holds come along; what the archive
does not have any more is held here, never deleted. Tiers and promotions come along only with --tiers: without it new
patches enter the first tier.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a person has to agree first (--yes).

Examples:
  Once: trust the key that `livepatch-server keys show` prints on the exporting server.
    livepatch-server keys trust ed25519:0f1e... --name staging

  Look first, then import all volumes in a folder:
    livepatch-server import --dry-run /media/stick/
    livepatch-server import /media/stick/

  On the connected site: how the fleet of an isolated site fares, shown by `livepatch-admin sync peers`:
    livepatch-server import --status status.json";

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ImportArgs {
    /// The volumes of one archive or several, or folders that hold them (*.tar)
    #[arg(required_unless_present = "status", value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Verify everything and say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// Take over tiers and promotions as well; here they are then those of the archive
    #[arg(long)]
    tiers: bool,
    /// Believe this key this time, besides those that are trusted
    #[arg(long, value_name = "KEY")]
    key: Vec<PublicKey>,
    /// Take an archive that has expired or is older than the last one, for this reason
    #[arg(long, value_name = "REASON")]
    accept_old: Option<String>,
    /// Take in a fleet's status instead, as `export --status` writes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "dry_run", "tiers", "accept_old"])]
    status: Option<PathBuf>,
    /// Configuration file; without it LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async move {
        let core = core(args.config.as_deref()).await?;
        if let Some(path) = &args.status {
            return status(&core, path, &args.key).await;
        }
        let stopping = core.stopping.clone();
        tokio::spawn(async move {
            // Without signals there is nothing to wait for.
            if let Ok(stop) = told_to_stop() {
                stop.await;
                stopping.cancel();
            }
        });
        all(&core, args).await
    })
}

async fn status(core: &Core, path: &Path, keys: &[PublicKey]) -> anyhow::Result<ExitCode> {
    let (actor, now) = (actor("import"), Timestamp::now());
    let told = airgap::import_status(core, &actor, path, keys, now).await;
    let told = told.map_err(plain)?;
    println!(
        "{}: {} machines on {}; `livepatch-admin sync peers` lists it",
        told.deployment, told.machines, told.issued_at
    );
    for group in &told.groups {
        println!(
            "  {:>11}  {}  {}  {}  {}",
            group.machines,
            group.tier,
            group.kernel.as_deref().unwrap_or("unknown kernel"),
            group.state,
            group
                .patch
                .map_or_else(|| "no patch".to_owned(), |p| p.to_string())
        );
    }
    for block in &told.blocks {
        println!("  {} is stopped there: {}", block.version, block.reason);
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes in all that was given, the older archive first.
async fn all(core: &Arc<Core>, args: ImportArgs) -> anyhow::Result<ExitCode> {
    let options = ImportOptions {
        paths: args.paths.clone(),
        keys: args.key.clone(),
        accept_old: args.accept_old.clone(),
    };
    let archives = airgap::archives(core, &options, Timestamp::now()).await;
    let archives = archives.map_err(plain)?;
    let several = archives.len() > 1;
    for (at, options) in archives.iter().enumerate() {
        let last = at + 1 == archives.len();
        let opened = match verified(core, options).await? {
            Ok(opened) => opened,
            // Of several, those that were taken in before are simply behind.
            Err(error @ ImportError::Older(_)) if !last => {
                println!("{}: passed over: {error}\n", options.paths[0].display());
                continue;
            }
            Err(error @ ImportError::Incomplete { .. }) if args.dry_run && at > 0 => {
                println!("{}: {error}", options.paths[0].display());
                break;
            }
            Err(error) => return Err(plain(error)),
        };
        if several {
            println!("{}:", options.paths[0].display());
        }
        let ended = archive(core, &args, &opened).await?;
        if ended != ExitCode::SUCCESS {
            return Ok(ended);
        }
        if !last {
            println!();
        }
    }
    if args.dry_run {
        println!("Nothing was changed (--dry-run).");
    }
    Ok(ExitCode::SUCCESS)
}

async fn verified(
    core: &Arc<Core>,
    options: &ImportOptions,
) -> anyhow::Result<Result<Opened, ImportError>> {
    let verifying = bar("verifying");
    let moving = verifying.clone();
    let read = move |piece, total| {
        moving.set_length(total);
        moving.inc(piece);
    };
    let opened = tokio::select! {
        opened = airgap::open(core, options, Timestamp::now(), read) => opened,
        () = core.stopping.cancelled() => bail!("stopped; nothing was changed"),
    };
    verifying.finish_and_clear();
    Ok(opened)
}

async fn archive(core: &Arc<Core>, args: &ImportArgs, opened: &Opened) -> anyhow::Result<ExitCode> {
    println!("{}", described(opened));
    println!("{}", told(&opened.changes));
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let asked = !args.yes && stdin().is_terminal();
    if asked && !agreed()? {
        println!("Nothing was changed.");
        return Ok(ExitCode::from(WAITING));
    }
    let taking = TakeOptions {
        tiers: args.tiers,
        confirmed: args.yes || asked,
        accept_old: args.accept_old.clone(),
    };
    let ended = taken(core, opened, &taking).await?;
    Ok(outcome(&ended))
}

/// Takes it in, with a bar that follows the bytes that are read.
async fn taken(core: &Arc<Core>, opened: &Opened, options: &TakeOptions) -> anyhow::Result<Ended> {
    let bar = bar("taking in");
    bar.set_length(opened.changes.bytes_new);
    let given = opened.archive.given();
    let actor = actor("import");
    let taking = airgap::take(core, &actor, opened, options);
    tokio::pin!(taking);
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    let ended = loop {
        tokio::select! {
            ended = &mut taking => break ended,
            _ = ticks.tick() => bar.set_position(given.load(Ordering::Relaxed)),
        }
    };
    bar.finish_and_clear();
    ended.map_err(plain)
}

fn agreed() -> anyhow::Result<bool> {
    eprint!("Take it in? [y/N] ");
    stderr().flush()?;
    let mut line = String::new();
    stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn described(opened: &Opened) -> String {
    let manifest = opened.archive.manifest();
    let index = &manifest.index;
    let part = match &manifest.since {
        Some(since) => format!(
            ", of which it carries {} that came after version {}",
            opened.archive.carried(),
            since.version
        ),
        None => String::new(),
    };
    format!(
        "Version {} of tier {} of deployment {}, signed {}, to be imported until {}.\nIt is whole and signed with a trusted key. It stands for {}{part}.",
        index.version,
        index.tier,
        index.deployment,
        index.issued_at,
        index.expires_at,
        count(index.payloads, "payload", "payloads"),
    )
}

fn told(changes: &Changes) -> String {
    if changes.is_none() {
        return "Everything in it is here already.".to_owned();
    }
    let mut lines = vec![format!(
        "{} new ({}), {} here already.",
        count(changes.payloads_new, "payload is", "payloads are"),
        bytes(changes.bytes_new),
        changes.payloads_there
    )];
    let patches: Vec<String> = changes
        .patches_new
        .iter()
        .map(ToString::to_string)
        .collect();
    let names = |tiers: &[crate::domain::TierName]| -> Vec<String> {
        tiers.iter().map(ToString::to_string).collect()
    };
    for (what, items) in [
        ("new patches", &patches),
        (
            "not in it any more, to be held here",
            &changes.payloads_gone,
        ),
        ("promoted", &changes.promotions_new),
        ("promoted no more", &changes.promotions_gone),
        ("new blocks and holds", &changes.blocks_new),
        ("lifted blocks and holds", &changes.blocks_gone),
        ("new tiers", &names(&changes.tiers_new)),
        ("tiers that are gone", &names(&changes.tiers_gone)),
    ] {
        if items.is_empty() {
            continue;
        }
        let mut shown: Vec<String> = items.iter().take(SHOWN).cloned().collect();
        if items.len() > SHOWN {
            shown.push(format!("and {} more", items.len() - SHOWN));
        }
        lines.push(format!("  {what}: {}", shown.join("; ")));
    }
    if changes.kernels_new + changes.kernels_gone > 0 {
        lines.push(format!(
            "  supported kernels: {} lines new, {} gone",
            changes.kernels_new, changes.kernels_gone
        ));
    }
    lines.join("\n")
}

fn outcome(ended: &Ended) -> ExitCode {
    let outcome = &ended.outcome;
    let why = ended.error.as_deref().unwrap_or("no reason was given");
    match ended.state {
        SyncState::Done => {
            println!(
                "Done: {} added, {} withdrawn, {} in quarantine.",
                outcome.added, outcome.withdrawn, outcome.quarantined
            );
            if outcome.quarantined > 0 {
                println!(
                    "`livepatch-admin storage quarantine list` says why; everything else is visible."
                );
            }
            ExitCode::SUCCESS
        }
        SyncState::Waiting => {
            eprintln!("Nothing is visible yet: {why}\nTo agree, run it again with --yes.");
            ExitCode::from(WAITING)
        }
        _ => {
            eprintln!(
                "error: {why}\nNothing of it is visible. Run it again: what was taken in already is not taken in again."
            );
            ExitCode::FAILURE
        }
    }
}
