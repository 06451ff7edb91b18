//! `get-resource-token`: the two calls to the contracts service that turn a contract token of Ubuntu Pro into this server's resource
//! token. Neither token is given or shown on a command line; both are secrets.

use crate::config::Config;
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::{Db, tokens};
use crate::domain::{Architecture, Secret};
use crate::upstream::contracts::Client;
use crate::wire::contracts::{MachineTokenRequest, ON_PREM, Os};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// The longest token that is read, in bytes.
const MAX_TOKEN: u64 = 16 << 10;

/// Arguments of `get-resource-token`.
#[derive(Debug, Args)]
#[command(
    after_help = "The service is that of contracts.url, with contracts.ca and patch-sync.proxy.*. The token is stored in the database\n\
    and given to canonical-livepatch-downloader where patch-sync.token is empty.\n\n\
    Examples:\n  livepatch-server get-resource-token --contract-token-file /run/secrets/contract\n  \
    livepatch-server get-resource-token --contract-token-file - --output resource-token < contract"
)]
pub(super) struct ResourceTokenArgs {
    /// File with the contract token of the Ubuntu Pro subscription; `-` for standard input
    #[arg(long, value_name = "FILE")]
    contract_token_file: PathBuf,
    /// Write the token to this file, readable by its owner only, instead of the database
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the token instead of storing it
    #[arg(long, conflicts_with = "output")]
    print: bool,
    /// Configuration file; without it LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: ResourceTokenArgs) -> anyhow::Result<ExitCode> {
    let contract_token = read_token(&args.contract_token_file)?;
    let loaded = super::serve::load(args.config.as_deref())?;
    super::serve::runtime()?.block_on(async move {
        let config = loaded.config;
        let token = ask(&config, &contract_token).await?;
        if args.print {
            println!("{}", token.expose());
        } else if let Some(path) = &args.output {
            write(path, &token)?;
            println!("the resource token is in {}", path.display());
        } else {
            store(&config, &token).await?;
            println!("the resource token is stored in the database");
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn read_token(path: &Path) -> anyhow::Result<Secret> {
    let what = format!("--contract-token-file {}", path.display());
    let mut text = String::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| what.clone())?)
    };
    source
        .take(MAX_TOKEN + 1)
        .read_to_string(&mut text)
        .with_context(|| what.clone())?;
    let token = text.trim();
    if token.is_empty()
        || token.len() as u64 > MAX_TOKEN
        || !token.bytes().all(|b| b.is_ascii_graphic())
    {
        bail!("{what}: one token on one line is expected, as the Ubuntu Pro dashboard shows it");
    }
    Ok(Secret::new(token))
}

async fn ask(config: &Config, contract_token: &Secret) -> anyhow::Result<Secret> {
    let client = Client::new(&config.contracts, &config.patch_sync.proxy)?;
    let machine_token = client
        .machine_token(contract_token, &request())
        .await
        .context("asking for a machine token with the contract token")?;
    client
        .resource_token(&machine_token)
        .await
        .context("asking for the resource token of livepatch-onprem")
}

/// What this server says of itself; the form is the documented one.
fn request() -> MachineTokenRequest {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map_or_else(String::new, |value| value.trim_matches('"').to_owned())
    };
    let machine = std::env::consts::ARCH;
    MachineTokenRequest {
        architecture: machine
            .parse::<Architecture>()
            .map_or_else(|_| machine.to_owned(), |known| known.to_string()),
        host_type: "container".to_owned(),
        machine_id: ON_PREM.to_owned(),
        os: Os {
            distribution: field("NAME"),
            kernel: kernel.trim().to_owned(),
            release: field("VERSION_ID"),
            series: field("VERSION_CODENAME"),
            kind: "Linux".to_owned(),
        },
    }
}

fn write(path: &Path, token: &Secret) -> anyhow::Result<()> {
    let what = || format!("writing --output {}", path.display());
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // A temporary file of this kind is readable by its owner only, and stays so under its new name.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(what)?;
    writeln!(file, "{}", token.expose()).with_context(what)?;
    file.as_file().sync_all().with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}

async fn store(config: &Config, token: &Secret) -> anyhow::Result<()> {
    let db = Db::new(&config.database, Arc::new(|_, _, _| {})).map_err(|why| anyhow!(why))?;
    let storing = async {
        let mut conn = db.conn().await?;
        let tx = conn.begin().await?;
        tokens::store_resource_token(&tx, token).await?;
        let actor = Actor {
            name: "system".to_owned(),
            source: "get-resource-token".to_owned(),
        };
        let entry = Entry {
            actor: &actor,
            action: "resource-token.store",
            target: "installation",
            details: serde_json::json!({ "contracts": config.contracts.url }),
        };
        audit::append(&tx, entry, Change::Nothing).await?;
        tx.commit().await
    };
    storing.await.context(
        "storing the resource token in the database (database.connection-string); a new database needs `livepatch-server migrate` first",
    )
}
