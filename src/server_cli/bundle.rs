//! `livepatch-server bundle pack|inspect`: makes bundles, and says what is in them. Needs no server and no
//! configuration.

use crate::bundle::{
    BundleName, Examined, Limits, PackInput, Policy, SignatureError, Signing, TrustStore, Verdict,
    examine, pack,
};
use crate::domain::{Architecture, Fix, KernelVersion, PatchVersion, Sha256};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit code when a bundle was refused or could not be read.
const SOME_REFUSED: u8 = 1;
/// Exit code for arguments that contradict each other.
const USAGE: u8 = 2;
/// Keys and certificates are a few kilobytes.
const MAX_PEM: u64 = 1 << 20;

/// Make patch bundles, and look into them.
#[derive(Debug, Args)]
pub struct BundleArgs {
    #[command(subcommand)]
    command: BundleCommand,
}

#[derive(Debug, Subcommand)]
enum BundleCommand {
    /// Sign a kernel module and pack it under its proper file name
    Pack(PackArgs),
    /// Say what bundles hold and whether they would be accepted
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The module must be built for that kernel: its vermagic begins with the kernel's release (5.15.0-107-generic).
The path of the bundle is printed. The same input gives the same bytes.

Examples:
  Make a key, then a bundle for one kernel:
    openssl req -x509 -newkey rsa:4096 -nodes -days 3650 -subj '/CN=Our Live Patches' \\
        -keyout key.pem -out cert.pem
    livepatch-server bundle pack --ko fix.ko --key key.pem --cert cert.pem \\
        --kernel 5.15.0-107.117-generic --version 107.1 --arch amd64 \\
        --fix 'CVE-2024-1086=use after free in netfilter' -o out/

  Pack a module that was signed elsewhere, e.g. with a key in hardware:
    livepatch-server bundle pack --ko signed.ko --keep-signature \\
        --kernel 5.15.0-107.117-generic --version 107.1 --arch amd64")]
struct PackArgs {
    /// The kernel module
    #[arg(long, value_name = "FILE")]
    ko: PathBuf,
    /// The exact kernel it is for, e.g. 5.15.0-107.117-generic
    #[arg(long, value_name = "KERNEL")]
    kernel: KernelVersion,
    /// The patch version, e.g. 107.1
    #[arg(long, value_name = "VERSION")]
    version: PatchVersion,
    /// The architecture, e.g. amd64
    #[arg(long, value_name = "ARCH")]
    arch: Architecture,
    /// Private key to sign with: PEM, unencrypted
    #[arg(
        long,
        value_name = "FILE",
        requires = "cert",
        required_unless_present = "keep_signature"
    )]
    key: Option<PathBuf>,
    /// Certificate of that key: PEM or DER
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The module is signed already: keep its signature
    #[arg(long, conflicts_with_all = ["key", "cert"])]
    keep_signature: bool,
    /// Something the patch mends, with a description if you like; may be given several times
    #[arg(long = "fix", value_name = "NAME[=DESCRIPTION]", value_parser = parse_fix)]
    fixes: Vec<Fix>,
    /// This is the kernel's last patch: clients should ask for a kernel upgrade
    #[arg(long)]
    obsolete: bool,
    /// Directory to write to; made if missing
    #[arg(short = 'o', long, value_name = "DIR", default_value = ".")]
    output_dir: PathBuf,
    /// Replace a different bundle of the same name
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file names must be the bundles' own, since the content is held against them. Nothing is unpacked to disk.

Exit codes: 0 all would be accepted, 1 some would be refused or could not be read, 2 wrong arguments.

Examples:
  What is in it, and who says to have signed it:
    livepatch-server bundle inspect livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2

  Would a server that trusts this certificate take all of these:
    livepatch-server bundle inspect --cert cert.pem out/*.tar.bz2

  For programs:
    livepatch-server bundle inspect --cert cert.pem --output json out/*.tar.bz2 |
        jq -r '.[] | select(.verdict == \"refused\") | .file'")]
struct InspectArgs {
    /// The bundles
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Certificates that are trusted: PEM or DER; may be given several times
    #[arg(long = "cert", value_name = "FILE")]
    certs: Vec<PathBuf>,
    /// What a signature that does not verify means: `require` if certificates are given, else `warn`
    #[arg(long, value_name = "POLICY")]
    policy: Option<PolicyArg>,
    /// How to print
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyArg {
    /// It is refused
    Require,
    /// It is accepted with a warning
    Warn,
    /// Signatures do not matter
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// One JSON array
    Json,
    /// The same as YAML
    Yaml,
}

fn parse_fix(text: &str) -> Result<Fix, String> {
    let (name, description) = text.split_once('=').unwrap_or((text, ""));
    let (name, description) = (name.trim(), description.trim());
    if name.is_empty()
        || name.len() > 100
        || description.len() > 2000
        || text.chars().any(char::is_control)
    {
        return Err(
            "expected a name such as CVE-2024-1086, or NAME=DESCRIPTION, in one line".to_owned(),
        );
    }
    Ok(Fix {
        name: name.to_owned(),
        description: description.to_owned(),
        bug: String::new(),
    })
}

/// Runs the command and prints to standard output.
///
/// # Errors
/// What prevents the command as a whole, e.g. a key that cannot be read.
pub fn run(args: BundleArgs) -> anyhow::Result<ExitCode> {
    run_to(args, &mut io::stdout().lock())
}

/// As [`run`], printing to `out`.
pub fn run_to(args: BundleArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match args.command {
        BundleCommand::Pack(args) => run_pack(args, out),
        BundleCommand::Inspect(args) => run_inspect(&args, out),
    }
}

/// Reads a file of at most `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
    let mut content = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut content);
    read.with_context(|| format!("cannot read {shown}"))?;
    if content.len() as u64 > limit {
        bail!("{shown} is larger than {limit} bytes, the limit for such a file");
    }
    Ok(content)
}

fn run_pack(args: PackArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let ko = read_bounded(&args.ko, Limits::default().max_module_bytes)?;
    let pem = |path: Option<&PathBuf>| path.map(|p| read_bounded(p, MAX_PEM)).transpose();
    let (key, cert) = (pem(args.key.as_ref())?, pem(args.cert.as_ref())?);
    let name = BundleName {
        kernel: args.kernel,
        version: args.version,
        architecture: args.arch,
    };
    let signing = match (&key, &cert) {
        (Some(key_pem), Some(cert_pem)) => Signing::With { key_pem, cert_pem },
        _ => Signing::Keep,
    };
    let bytes = pack(&PackInput {
        ko: &ko,
        name: &name,
        fixes: args.fixes,
        signing,
        obsolete: args.obsolete,
        built_at: None,
    })
    .with_context(|| format!("cannot pack {} as {name}", args.ko.display()))?;
    let path = args.output_dir.join(name.to_string());
    write_whole(&path, &bytes, args.force)
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(out, "{}", path.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file so that it is there whole or not at all; a different one is replaced only by `force`.
fn write_whole(path: &Path, bytes: &[u8], force: bool) -> anyhow::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut temporary = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    if force {
        temporary.persist(path)?;
        return Ok(());
    }
    match temporary.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
            if read_bounded(path, bytes.len() as u64).is_ok_and(|there| there == bytes) {
                return Ok(());
            }
            bail!(
                "a different file is there already; use --force to replace it, or a new patch version"
            )
        }
        Err(e) => Err(e.error.into()),
    }
}

/// What is printed of one bundle. What could not be found out is left empty.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    file: String,
    verdict: &'static str,
    reason: Option<String>,
    kernel: Option<KernelVersion>,
    version: Option<PatchVersion>,
    architecture: Option<Architecture>,
    module: Option<String>,
    vermagic: Option<String>,
    livepatch: Option<bool>,
    signature: Option<&'static str>,
    signer: Option<String>,
    key_id: Option<String>,
    digest: Option<&'static str>,
    sha256: Option<Sha256>,
    size: Option<u64>,
    module_sha256: Option<Sha256>,
    module_size: Option<u64>,
    obsolete: Option<bool>,
    fixes: Vec<Fix>,
    other_files: Vec<String>,
}

const ACCEPTED: &str = "accepted";

fn run_inspect(args: &InspectArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let asked = args.policy.unwrap_or(if args.certs.is_empty() {
        PolicyArg::Warn
    } else {
        PolicyArg::Require
    });
    if asked == PolicyArg::Require && args.certs.is_empty() {
        writeln!(
            io::stderr(),
            "error: --policy require needs certificates to check against: add --cert FILE"
        )?;
        return Ok(ExitCode::from(USAGE));
    }
    let policy = match asked {
        PolicyArg::Require => Policy::Require,
        PolicyArg::Warn => Policy::Warn,
        PolicyArg::Off => Policy::Off,
    };
    let mut trust = TrustStore::new();
    for path in &args.certs {
        let content = read_bounded(path, MAX_PEM)?;
        trust
            .add(&content)
            .with_context(|| format!("cannot use {}", path.display()))?;
    }
    let mut all_accepted = true;
    let mut reports = Vec::new();
    for path in &args.files {
        let (report, accepted) = inspect(path, &trust, policy);
        all_accepted &= accepted;
        reports.push(report);
    }
    match args.output {
        Output::Table => print_table(&reports, out)?,
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&reports)?)?,
        Output::Yaml => write!(out, "{}", serde_saphyr::to_string(&reports)?)?,
    }
    Ok(if all_accepted {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(SOME_REFUSED)
    })
}

fn inspect(path: &Path, trust: &TrustStore, policy: Policy) -> (Report, bool) {
    let mut report = Report {
        file: path.display().to_string(),
        ..Report::default()
    };
    let limits = Limits::default();
    let bytes = match read_bounded(path, limits.max_packed_bytes) {
        Ok(bytes) => bytes,
        Err(e) => {
            report.verdict = "unreadable";
            report.reason = Some(format!("{e:#}"));
            return (report, false);
        }
    };
    report.sha256 = Some(Sha256::of(&bytes));
    report.size = Some(bytes.len() as u64);
    let file_name = path.file_name().unwrap_or_default().to_string_lossy();
    let refused = |mut report: Report, why: String| {
        report.verdict = "refused";
        report.reason = Some(why);
        (report, false)
    };
    let name: BundleName = match file_name.parse() {
        Ok(name) => name,
        Err(e) => return refused(report, e.to_string()),
    };
    report.kernel = Some(name.kernel.clone());
    report.version = Some(name.version);
    report.architecture = Some(name.architecture);
    let examined = match examine(&name, bytes.as_slice(), &limits, Some(trust)) {
        Ok(examined) => examined,
        Err(e) => return refused(report, e.to_string()),
    };
    let verdict = examined.verdict(policy);
    fill(&mut report, examined);
    match verdict {
        Verdict::Accepted => report.verdict = ACCEPTED,
        Verdict::AcceptedWithWarning(why) => {
            report.verdict = "accepted-with-warning";
            report.reason = Some(why);
        }
        Verdict::Refused(why) => return refused(report, why),
    }
    (report, true)
}

fn fill(report: &mut Report, examined: Examined) {
    report.other_files = examined.other_files;
    report.module = Some(examined.module_name);
    report.vermagic = examined.vermagic.map(|v| v.trim_end().to_owned());
    report.livepatch = Some(examined.livepatch);
    report.module_sha256 = Some(examined.module_sha256);
    report.module_size = Some(examined.module_size);
    report.obsolete = Some(examined.obsolete);
    report.fixes = examined.fixes;
    match examined.signature {
        Ok(signature) => {
            report.signature = Some("verified");
            report.signer = Some(signature.signer);
            report.key_id = signature.key_id;
            report.digest = Some(signature.digest);
        }
        Err(SignatureError::UntrustedSigner { signer, digest, .. }) => {
            report.signature = Some("unknown signer");
            report.signer = Some(signer);
            report.digest = Some(digest);
        }
        Err(SignatureError::Missing) => report.signature = Some("none"),
        Err(_) => report.signature = Some("wrong"),
    }
}

fn print_table(reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
    for (at, report) in reports.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let mut row = |label: &str, value: Option<String>| {
            // A hostile bundle must not steer the terminal.
            let value = value.map(|v| v.replace(char::is_control, "\u{fffd}"));
            if let Some(value) = value {
                table.add_row([label, &value]);
            }
        };
        let text = |flag: Option<bool>| flag.map(|f| if f { "yes" } else { "no" }.to_owned());
        row("file", Some(report.file.clone()));
        row("verdict", Some(report.verdict.to_owned()));
        row("reason", report.reason.clone());
        row("kernel", report.kernel.as_ref().map(ToString::to_string));
        row("version", report.version.map(|v| v.to_string()));
        row("architecture", report.architecture.map(|a| a.to_string()));
        row("module", report.module.clone());
        row("vermagic", report.vermagic.clone());
        row("live patch", text(report.livepatch));
        row("signature", report.signature.map(str::to_owned));
        row("signer", report.signer.clone());
        row("key id", report.key_id.clone());
        row("digest", report.digest.map(str::to_owned));
        row("sha256", report.sha256.map(|d| d.to_string()));
        row("size", report.size.map(|s| format!("{s} bytes")));
        row("module sha256", report.module_sha256.map(|d| d.to_string()));
        row(
            "module size",
            report.module_size.map(|s| format!("{s} bytes")),
        );
        row("kernel obsolete", text(report.obsolete));
        for fix in &report.fixes {
            let text = format!("{}  {}", fix.name, fix.description);
            row("fix", Some(text.trim_end().to_owned()));
        }
        for name in &report.other_files {
            row("other file", Some(name.clone()));
        }
        writeln!(out, "{}", table.trim_fmt())?;
    }
    Ok(())
}
