//! The command line's first level: options of every command, and the commands.

use super::client::parse_url;
use super::output::Format;
use super::{
    admin, audit, capture, coverage, job, kernels, login, machine, patch, policy, report, rollout,
    session, storage, sync, sync_tokens, tier, token, webhook,
};
use crate::domain::{Architecture, KernelVersion, Scope, Selector};
use crate::wire::admin::WireScope;
use clap::{Args, Parser, Subcommand, ValueHint};
use clap_complete::Shell;
use reqwest::Url;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  livepatch-admin login -a admin                      asks for the password, keeps the session
  livepatch-admin tier list                           the stops on a patch's way out
  livepatch-admin patch upload *.tar.bz2              brings bundles to the server
  livepatch-admin patch promote 107.1 beta --dry-run  what would change?
  livepatch-admin patch promote 107.1 beta            lets the patch reach tier beta
  livepatch-admin auth-token web-servers stable       prints a token that enables machines
  livepatch-admin explain 3f1c...                     why is this machine offered what it is?

Output: tables for people; --output json or yaml prints what the API answers, exactly.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in or forbidden, 4 not found,
5 refused by a rule, 6 server unreachable, 7 done but something was quarantined or does not verify.";

/// Administers a livepatch server
#[derive(Debug, Parser)]
#[command(
    name = "livepatch-admin",
    version,
    max_term_width = 110,
    after_long_help = EXAMPLES,
    after_help = "Try --help for examples.",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The server
    #[arg(long, global = true, env = "LIVEPATCH_URL", value_name = "URL", value_parser = parse_url,
          default_value = "http://127.0.0.1:8080", hide_env_values = true, value_hint = ValueHint::Url)]
    pub url: Url,
    /// Certificates (PEM) to trust besides the system's
    #[arg(long, global = true, env = "LIVEPATCH_CA_CRT", value_name = "FILE", hide_env_values = true,
          value_hint = ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// Certificate (PEM) to show to a server that asks for one
    #[arg(long, global = true, env = "LIVEPATCH_TLS_CERT", value_name = "FILE", hide_env_values = true,
          value_hint = ValueHint::FilePath)]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(long, global = true, env = "LIVEPATCH_TLS_KEY", value_name = "FILE", hide_env_values = true,
          value_hint = ValueHint::FilePath)]
    pub tls_key: Option<PathBuf>,
    /// Form of the output: table for people, json or yaml for programs
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORM",
        value_enum,
        default_value = "table",
        hide_possible_values = true
    )]
    pub output: Format,
    /// Print results only: no remarks, no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Do not ask before what cannot be undone
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// Wait this long for one answer
    #[arg(long, global = true, value_name = "TIME", default_value = "60s")]
    pub timeout: humantime::Duration,
    /// Where sessions are kept [default: $XDG_STATE_HOME/livepatch-admin/session.json]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub session_file: Option<PathBuf>,
}

/// The commands, Canonical's words first.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Open a session on the server
    Login(login::LoginArgs),
    /// End the session
    Logout,
    /// Tiers: the ordered stops on a patch's way out
    #[command(subcommand)]
    Tier(tier::TierCommand),
    /// Patches: bring, promote, stop
    #[command(subcommand)]
    Patch(patch::PatchCommand),
    /// Rollout policies of tiers: phases, gate, windows
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Say what a file of policies would change, and what that means
    Plan(policy::FileArgs),
    /// Make the policies of a file those of the server
    Apply(policy::ApplyArgs),
    /// Say whether the server has other policies than a file; exits with 7 if it has
    Drift(policy::FileArgs),
    /// Rollouts: how patches come out to tiers, and what to do about it
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Look ahead; nothing is changed
    #[command(subcommand)]
    Preview(rollout::PreviewCommand),
    /// Auth tokens: make one, list, revoke
    AuthToken(token::AuthTokenArgs),
    /// Sync tokens, with which other servers pull from this one: add, list, revoke
    #[command(subcommand)]
    SyncTokens(sync_tokens::SyncTokensCommand),
    /// What lies in the storage
    #[command(subcommand)]
    Storage(storage::StorageCommand),
    /// What comes from upstream: fetch, see, confirm
    #[command(subcommand)]
    Sync(sync::SyncCommand),
    /// Machines: see, move, revoke, forget
    #[command(subcommand)]
    Machine(machine::MachineCommand),
    /// Reports over the fleet
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// How well the machines are covered, and which lose the cover of their kernel
    Coverage(coverage::CoverageArgs),
    /// The table of supported kernels
    #[command(subcommand)]
    Kernels(kernels::KernelsCommand),
    /// Say what a machine would be offered now, and why
    Explain(machine::ExplainArgs),
    /// Administrators
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Sessions of administrators
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Webhooks: tell other programs what happens
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Record raw requests of one machine or address, secrets masked
    #[command(subcommand)]
    Capture(capture::CaptureCommand),
    /// Long work and what came of it
    #[command(subcommand)]
    Job(job::JobCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example: livepatch-admin completion bash > /etc/bash_completion.d/livepatch-admin"
    )]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the version of this program
    Version,
}

/// The option that selects machines.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectorArgs {
    /// Only machines of which all of this is true: kernel=..., flavour=..., arch=... or a label; != for not,
    /// KEY and !KEY for with and without a label, * at a kernel's end for any end
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    pub selector: Option<Selector>,
}

/// Options that narrow an action to a part of a patch.
#[derive(Debug, Clone, Default, Args)]
pub struct ScopeArgs {
    /// Only for exactly this kernel, e.g. 5.15.0-107.117-generic
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<KernelVersion>,
    /// Only for kernels of this flavour, e.g. aws-fips
    #[arg(long, value_name = "FLAVOUR")]
    pub flavour: Option<String>,
    /// Only for this architecture, e.g. amd64
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Architecture>,
}

impl ScopeArgs {
    /// The scope, checked for contradictions.
    pub fn scope(self) -> Result<WireScope, super::CliError> {
        let wire = WireScope {
            kernel: self.kernel,
            flavour: self.flavour,
            architecture: self.arch,
        };
        Scope::try_from(wire)
            .map(WireScope::from)
            .map_err(|e| super::CliError::Usage(e.to_string()))
    }
}
