//! The command line of `livepatch-client`: arguments, and one function for each command.

use super::api::ServerApi;
use super::check::{How, Mode, Session, connect, identify};
use super::daemon;
use super::error::{Error, file};
use super::facts::{Facts, Given};
use super::fleet;
use super::state::{ClientState, Settings, StateDir};
use super::status::{self, Format};
use super::tls::TlsFiles;
use super::verify::Trust;
use crate::domain::ParseError;
use crate::domain::fault::{Fault, Harm};
use crate::domain::policy::Share;
use crate::domain::{Architecture, KernelVersion, MachineId};
use crate::wire::Token;
use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::{Timestamp, civil::Date};
use std::io::{Read, Write};
use std::path::PathBuf;
use tokio_util::sync::CancellationToken;

const EXIT_CODES: &str = "Exit codes:\n  \
    0  done\n  \
    1  failed: network, files, insertion, or the machine is not enabled\n  \
    2  wrong arguments\n  \
    3  the server does not accept the token\n  \
    4  a patch was refused: wrong hash, signature, kernel or content";

/// Reference client: registers a machine with a livepatch server, checks for patches, verifies and keeps or applies them.
#[derive(Debug, Parser)]
#[command(name = "livepatch-client", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Where this client keeps its state [default: /var/lib/livepatch-client, or the user's state directory]
    #[arg(
        long,
        value_name = "DIR",
        global = true,
        env = "LIVEPATCH_CLIENT_STATE_DIR"
    )]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    identity: Identity,
    #[command(subcommand)]
    command: Command,
}

/// Whom to speak for. What is given to `enable` is remembered; later commands may override all but the machine.
#[derive(Debug, Args)]
struct Identity {
    /// Machine to speak for, 32 hexadecimal digits [default: /etc/machine-id]
    #[arg(long, value_name = "ID", global = true)]
    machine_id: Option<MachineId>,
    /// Kernel to speak for, e.g. 5.15.0-107.117-generic [default: the running one]
    #[arg(long, value_name = "KERNEL", global = true)]
    kernel: Option<KernelVersion>,
    /// Architecture to speak for, e.g. amd64 [default: this machine's]
    #[arg(long, value_name = "ARCH", global = true)]
    arch: Option<Architecture>,
    /// Day the kernel was built, e.g. 2024-02-07 [default: the running kernel's]
    #[arg(long, value_name = "DATE", global = true)]
    build_date: Option<Date>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register this machine, then check once
    Enable(Enable),
    /// Report, ask for patches, verify and keep or apply them
    Check(Checking),
    /// Show what is known; no server is asked
    Status {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Deregister this machine and forget its state; an applied patch stays until the next boot
    Disable {
        /// Forget the state even if the server cannot be told
        #[arg(long)]
        force: bool,
    },
    /// Check again and again at the server's interval, until SIGTERM or SIGINT
    Daemon(Checking),
    /// Simulate many machines: register them, check in at a steady rate, and say how the server did
    Fleet(Fleet),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Enable {
    /// Address of the server
    #[arg(long, value_name = "URL")]
    server: String,
    /// Token from the server's administrator; - reads it from standard input
    token: String,
    #[command(flatten)]
    tls: TlsFiles,
    /// Refuse to download patches without TLS
    #[arg(long)]
    tls_patch_download: bool,
    /// Do not check after registering
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    checking: Checking,
}

#[derive(Debug, Args)]
struct Checking {
    /// Certificate that patches must be signed with, PEM or DER; may be repeated. Remembered by enable
    #[arg(long = "cert", value_name = "FILE")]
    certs: Vec<PathBuf>,
    /// DANGEROUS: do not verify who signed a patch
    #[arg(long, conflicts_with = "certs")]
    insecure_skip_signature: bool,
    /// Insert verified patches into the running kernel (root only)
    #[arg(long, conflicts_with = "assume_applied")]
    apply: bool,
    /// Simulation: report verified patches as applied without inserting them
    #[arg(long)]
    assume_applied: bool,
}

/// How the summary of a fleet is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Output {
    /// Lines for people.
    #[default]
    Text,
    /// JSON for programs.
    Json,
}

#[derive(Debug, Args)]
struct Fleet {
    /// Address of the server
    #[arg(long, value_name = "URL")]
    server: String,
    /// How many machines; the same ones in every run with the same seed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    machines: u32,
    /// Token from the server's administrator; - reads it from standard input
    #[arg(long)]
    token: String,
    /// Check-ins per second in all [default: each machine once an hour]
    #[arg(long, value_name = "PER-SECOND")]
    rate: Option<f64>,
    /// How long check-ins fall due, e.g. 10m
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    duration: std::time::Duration,
    /// File with lines KERNEL ARCHITECTURE WEIGHT [default: a built-in mixture]
    #[arg(long, value_name = "FILE")]
    kernels: Option<PathBuf>,
    /// Download what is offered and check its digest
    #[arg(long)]
    downloads: bool,
    /// The most connections at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Which fleet: another number makes other machines
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Keep the machines' tokens in this file, so that the next run need not register them again
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// Write to this file how many check-ins of each machine were acknowledged and when the last of them was sent
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// A patch fails on a share of the machines, e.g. patch=107.1,rate=0.02,state=apply-failed; may be given several times
    #[arg(long, value_name = "SPEC")]
    fail: Vec<Fault>,
    /// A share of the machines that take a patch goes silent, e.g. patch=107.1,rate=0.01; may be given several times
    #[arg(long, value_name = "SPEC", value_parser = crash)]
    crash: Vec<Fault>,
    /// Lose, repeat or delay this share of the requests
    #[arg(long, value_name = "SHARE", num_args = 0..=1, default_missing_value = "5%")]
    unstable_network: Option<Share>,
    #[command(flatten)]
    tls: TlsFiles,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Reads a fault that silences machines.
fn crash(text: &str) -> Result<Fault, ParseError> {
    let fault: Fault = text.parse()?;
    Ok(Fault {
        harm: Harm::Crashes,
        ..fault
    })
}

impl Checking {
    /// How to check, with the remembered certificates where none are given.
    fn how(&self, remembered: &[PathBuf]) -> Result<How, Error> {
        let mode = match (self.apply, self.assume_applied) {
            (true, _) => Mode::Apply,
            (_, true) => Mode::AssumeApplied,
            _ => Mode::Keep,
        };
        if mode == Mode::Apply && !is_root() {
            return Err(Error::Usage(
                "--apply inserts kernel modules, which only root may do; run it with sudo"
                    .to_owned(),
            ));
        }
        let trust = if self.insecure_skip_signature {
            Trust::Skip
        } else {
            Trust::read(if self.certs.is_empty() {
                remembered
            } else {
                &self.certs
            })?
        };
        Ok(How { mode, trust })
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs a command; what it prints for programs goes to standard output, all else to standard error.
pub async fn run(cli: Cli) -> Result<(), Error> {
    let dir = StateDir::new(
        cli.state_dir
            .unwrap_or_else(|| StateDir::default_path(is_root())),
    );
    let given = Given {
        machine_id: cli.identity.machine_id,
        kernel: cli.identity.kernel,
        architecture: cli.identity.arch,
        build_date: cli.identity.build_date,
    };
    match cli.command {
        Command::Enable(args) => enable(dir, given, args).await,
        Command::Check(args) => {
            let how = args.how(&dir.load_enabled()?.settings.certs)?;
            warn_unsafe(&how);
            check(dir, &given, &how).await
        }
        Command::Status { format } => show_status(&dir, &given, format),
        Command::Disable { force } => disable(&dir, force).await,
        Command::Daemon(args) => {
            let how = args.how(&dir.load_enabled()?.settings.certs)?;
            warn_unsafe(&how);
            daemon::run(&dir, &given, &how, &on_signal()?, |line| say(&line)).await
        }
        Command::Fleet(args) => simulate(args).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "livepatch-client", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

async fn enable(dir: StateDir, given: Given, args: Enable) -> Result<(), Error> {
    let token = read_token(args.token)?;
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| file("find", path, e));
    let certs = args
        .checking
        .certs
        .iter()
        .map(absolute)
        .collect::<Result<Vec<_>, _>>()?;
    let how = args.checking.how(&certs)?;
    let files = args.tls.absolute()?;
    let settings = Settings {
        kernel: given.kernel.clone(),
        architecture: given.architecture,
        build_date: given.build_date,
        ca: files.ca.clone(),
        tls_cert: files.tls_cert.clone(),
        tls_key: files.tls_key.clone(),
        certs,
        tls_patch_download: args.tls_patch_download,
    };
    let lock = dir.lock()?;
    if let Some(state) = dir.load()? {
        return Err(Error::Usage(format!(
            "machine {} is already enabled with {}; run `livepatch-client disable` first",
            state.machine_id, state.server
        )));
    }
    let api = ServerApi::new(&super::ConnectOptions {
        server: args.server.clone(),
        tls: files.read()?,
        tls_patch_download: settings.tls_patch_download,
    })?;
    let facts = Facts::gather(&given)?;
    facts.kernel_note.iter().for_each(|note| say(note));
    api.info(facts.machine_id, &token).await?;
    let mut first = status::first_document(&facts);
    first.auth_token = Some(Token::new(token.clone()));
    let answer = api.register(facts.machine_id, &token, &first).await?;
    let state = ClientState::new(
        args.server,
        facts.machine_id,
        answer.machine_token,
        answer.tier,
        answer.check_interval,
        Timestamp::now(),
        settings,
    );
    dir.save(&state)?;
    print(&format!(
        "machine {} is enabled in tier {}\n",
        state.machine_id, state.tier
    ))?;
    drop(lock);
    if args.no_check {
        return Ok(());
    }
    warn_unsafe(&how);
    check(dir, &given, &how).await
}

/// The token as given, or the first line of standard input, so that it need not stand on a command line.
fn read_token(given: String) -> Result<String, Error> {
    let mut token = given;
    if token == "-" {
        token.clear();
        let mut limited = std::io::stdin().lock().take(16 << 10);
        limited
            .read_to_string(&mut token)
            .map_err(|e| Error::Usage(format!("cannot read the token from standard input: {e}")))?;
    }
    let token = token.trim().to_owned();
    if token.is_empty() || token.contains(|c: char| c.is_control() || c == ' ') || !token.is_ascii()
    {
        return Err(Error::Usage(
            "the token is empty or holds characters that no token has; copy it again".to_owned(),
        ));
    }
    Ok(token)
}

async fn check(dir: StateDir, given: &Given, how: &How) -> Result<(), Error> {
    let _lock = dir.lock()?;
    let mut session = Session::open(dir, given)?;
    let result = session.check(how, &on_signal()?).await;
    session.warnings.iter().for_each(|warning| say(warning));
    let outcome = result?;
    let mut text = format!("{}\n", daemon::describe(&outcome));
    for reason in &session.state.reasons {
        text.push_str("  ");
        text.push_str(&reason.text);
        text.push('\n');
    }
    print(&text)
}

async fn simulate(args: Fleet) -> Result<(), Error> {
    let spread = match &args.kernels {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| file("read", path, e))?;
            fleet::Spread::parse(&text).map_err(|e| file("use", path, e))?
        }
        None => fleet::Spread::built_in().map_err(Error::Local)?,
    };
    let options = fleet::Options {
        server: args.server,
        tls: args.tls.read()?,
        token: read_token(args.token)?,
        machines: args.machines,
        seed: args.seed,
        rate: args.rate,
        duration: args.duration,
        spread,
        connections: args.connections,
        downloads: args.downloads,
        tokens: args.tokens,
        ledger: args.ledger,
        faults: args.fail.into_iter().chain(args.crash).collect(),
        unstable: args.unstable_network.unwrap_or(Share::NONE),
    };
    let summary = fleet::run(&options, &on_signal()?, |line| say(&line)).await?;
    match args.output {
        Output::Text => print(&summary.text()),
        Output::Json => {
            let json = summary
                .json()
                .map_err(|e| Error::Local(format!("cannot print the summary: {e}")))?;
            print(&(json + "\n"))
        }
    }
}

fn show_status(dir: &StateDir, given: &Given, format: Format) -> Result<(), Error> {
    let (state, facts) = identify(dir, given)?;
    let document = status::document(&state, &facts);
    let printed = match format {
        Format::Human => Ok(status::human(&state, &document)),
        Format::Json => status::json(&document).map(|json| json + "\n"),
        Format::Yaml => status::yaml(&document),
    };
    print(&printed.map_err(|e| Error::Local(format!("cannot print the status: {e}")))?)
}

async fn disable(dir: &StateDir, force: bool) -> Result<(), Error> {
    let _lock = dir.lock()?;
    let state = dir.load_enabled()?;
    let told = match connect(&state) {
        Ok(api) => {
            api.deregister(state.machine_id, state.machine_token.expose())
                .await
        }
        Err(e) => Err(e),
    };
    match told {
        Ok(()) => {}
        // The server does not know the machine any more: that is what was wanted.
        Err(Error::Server {
            status: 404 | 410, ..
        }) => say("the server did not know this machine any more"),
        Err(e) if force => say(&format!("the server was not told: {e}")),
        Err(e) => {
            say("the machine stays enabled; --force forgets its state all the same");
            return Err(e);
        }
    }
    dir.clear(&state)?;
    print(&format!("machine {} is disabled\n", state.machine_id))
}

/// A token that SIGTERM and SIGINT cancel.
fn on_signal() -> Result<CancellationToken, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen =
        |kind| signal(kind).map_err(|e| Error::Local(format!("cannot listen for signals: {e}")));
    let (mut term, mut int) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

fn warn_unsafe(how: &How) {
    if matches!(how.trust, Trust::Skip) {
        say(
            "WARNING: signatures are NOT verified (--insecure-skip-signature); anyone who controls the server or its storage can put code into this kernel",
        );
    }
}

fn say(line: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(std::io::stderr(), "livepatch-client: {line}");
}

fn print(text: &str) -> Result<(), Error> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Local(format!(
            "cannot write to standard output: {e}"
        ))),
        _ => Ok(()),
    }
}
