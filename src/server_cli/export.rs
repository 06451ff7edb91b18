//! `export`: what this server has, as an archive for a site without network; or with `--status`, how its fleet fares.

use super::beside::{actor, bar, core, lifetime, plain, size};
use super::serve::runtime;
use crate::cli::output::{bytes, count};
use crate::domain::{Architecture, MinimumKernel, TierName};
use crate::index::IntakeFilter;
use crate::service::Core;
use crate::service::airgap::{self, ExportOptions, ExportReport, SinceRef};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
An archive holds payloads, tiers, promotions, blocks and the table of supported kernels, signed with this server's
key. The isolated server takes it with `livepatch-server import`, once it trusts that key: read out what
`livepatch-server keys show` prints here, and give it there to `livepatch-server keys trust`.

The command works beside running servers. If it breaks off, run it again: finished volumes are kept. Asked for the
same again, it writes the same bytes, unless half of the archive's life is over: then it is signed anew.

Examples:
  Everything, in volumes that fit a stick formatted with FAT32:
    livepatch-server export -o /media/stick/ --volume-size 4000MiB

  The next time only what is new. The version is printed by the export before; an archive can be named as well:
    livepatch-server export -o /media/stick/ --since 4711
    livepatch-server export -o /media/stick/ --since /srv/archives/livepatch-edge-4711.001.tar

  Only what has reached tier stable, for two flavours on one architecture:
    livepatch-server export -o stable.tar --tier stable --flavour generic --flavour aws --architecture amd64

  How the fleet of an isolated site fares, to be carried back out:
    livepatch-server export --status -o status.json";

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExportArgs {
    /// The file to write, or a folder in which it is called livepatch-TIER-VERSION.tar
    #[arg(short = 'o', long, value_name = "FILE|DIR")]
    output: PathBuf,
    /// Write how the fleet fares instead, to be carried to where patches come from
    #[arg(long, conflicts_with_all = ["tier", "since", "volume_size", "architecture", "flavour", "minimum_kernel", "kernel_prefix"])]
    status: bool,
    /// Only payloads that have reached this tier, with the tiers after it; without it the first tier, which has all
    #[arg(long, value_name = "TIER")]
    tier: Option<TierName>,
    /// Leave out the payloads that an older archive carried: its first volume, or the version of its index
    #[arg(long, value_name = "ARCHIVE|VERSION")]
    since: Option<SinceRef>,
    /// The most bytes of a volume, such as 4000MiB or 4700MB; without it there is one file
    #[arg(long, value_name = "SIZE", value_parser = size)]
    volume_size: Option<u64>,
    /// How long it may be imported
    #[arg(long, value_name = "DURATION", value_parser = lifetime, default_value = "90days")]
    valid_for: SignedDuration,
    /// Only this architecture; may be given several times
    #[arg(long, value_name = "ARCH")]
    architecture: Vec<Architecture>,
    /// Only kernels of this flavour; may be given several times
    #[arg(long, value_name = "FLAVOUR")]
    flavour: Vec<String>,
    /// Only this kernel and newer ones, such as 5.15 or 5.15.0-107
    #[arg(long, value_name = "KERNEL")]
    minimum_kernel: Option<MinimumKernel>,
    /// Only kernels that begin so; may be given several times
    #[arg(long, value_name = "PREFIX")]
    kernel_prefix: Vec<String>,
    /// Configuration file; without it LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: ExportArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async move {
        let core = core(args.config.as_deref()).await?;
        if args.status {
            return status(&core, &args.output).await;
        }
        let options = ExportOptions {
            output: args.output,
            tier: args.tier,
            filter: IntakeFilter {
                architectures: args.architecture,
                flavours: args.flavour,
                minimum_kernel: args.minimum_kernel,
                kernel_prefixes: args.kernel_prefix,
                only: None,
            },
            since: args.since,
            volume_size: args.volume_size,
            valid_for: args.valid_for,
        };
        let bar = bar("writing");
        let moving = bar.clone();
        let wrote = move |piece, total| {
            moving.set_length(total);
            moving.inc(piece);
        };
        let (actor, now) = (actor("export"), Timestamp::now());
        let result = airgap::export(&core, &actor, &options, now, wrote).await;
        bar.finish_and_clear();
        println!("{}", told(&result.map_err(plain)?));
        Ok(ExitCode::SUCCESS)
    })
}

async fn status(core: &Core, path: &Path) -> anyhow::Result<ExitCode> {
    let (actor, now) = (actor("export"), Timestamp::now());
    let status = airgap::export_status(core, &actor, path, now).await;
    let status = status.map_err(plain)?;
    println!(
        "{}: {} machines of {}, in {} groups; to be taken in with `livepatch-server import --status`",
        path.display(),
        status.machines,
        status.deployment,
        status.groups.len()
    );
    if status.machine_reports.is_empty() {
        println!("Single machines are not in it (patch-sync.send-machine-reports is off).");
    }
    Ok(ExitCode::SUCCESS)
}

fn told(report: &ExportReport) -> String {
    let index = &report.manifest.index;
    let mut lines: Vec<String> = report
        .volumes
        .iter()
        .map(|volume| {
            let kept = if volume.kept {
                ", was there already"
            } else {
                ""
            };
            format!("{} ({}{kept})", volume.path.display(), bytes(volume.bytes))
        })
        .collect();
    let payloads = count(report.payloads, "payload", "payloads");
    let of = match &report.manifest.since {
        Some(since) => format!(" that came after version {}", since.version),
        None => String::new(),
    };
    lines.push(format!(
        "Version {} of tier {}: {payloads}{of}, of {} in all; to be imported until {}.",
        index.version, index.tier, index.payloads, index.expires_at
    ));
    if report.payloads == 0 && index.payloads > 0 {
        lines.push("No payload is new; tiers, promotions and blocks may be.".to_owned());
    }
    lines.push(format!(
        "Next time, only what is new: livepatch-server export -o ... --since {}",
        index.version
    ));
    lines.join("\n")
}
