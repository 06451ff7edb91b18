//! `livepatch-server keys`: the keys that this deployment signs its index and archives with, and those of others that it
//! believes. Works on the database that the configuration names, whether a server runs on it or not.

use super::serve::{load, runtime};
use crate::db::Db;
use crate::db::audit::Actor;
use crate::domain::PublicKey;
use crate::service::peer::keys;
use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Arguments of `keys`.
#[derive(Debug, Args)]
pub(super) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
    /// Configuration file; without it LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make the signing key, if there is none yet, and print its public half
    Generate,
    /// Print the public keys that this deployment signs with, the current one first
    Show,
    /// Replace the signing key; the old one signs beside it for 90 days, so that servers below learn of the new one
    Rotate {
        /// The old keys sign no more, for a key that got out: servers below refuse the index until they trust the new key
        #[arg(long)]
        drop_old: bool,
    },
    /// Believe indexes and archives that are signed with a key
    #[command(
        after_help = "Example: livepatch-server keys trust ed25519:0f1e... --name staging\nThe other side prints its key with `livepatch-server keys show`."
    )]
    Trust {
        /// The public key: ed25519: and 64 hexadecimal digits
        key: PublicKey,
        /// What to call it
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// Stop believing a key
    Untrust {
        /// The public key
        key: PublicKey,
    },
    /// List the keys that are believed
    List,
}

pub(super) fn run(args: KeysArgs) -> anyhow::Result<ExitCode> {
    let loaded = load(args.config.as_deref())?;
    let db = Db::new(&loaded.config.database, Arc::new(|_, _, _| {})).map_err(|e| anyhow!(e))?;
    let text = runtime()?
        .block_on(execute(&db, args.command))
        .context("keys")?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

async fn execute(db: &Db, command: KeysCommand) -> anyhow::Result<String> {
    let actor = Actor {
        name: "system".to_owned(),
        source: "livepatch-server keys".to_owned(),
    };
    Ok(match command {
        KeysCommand::Generate => {
            let (key, made) = keys::generate(db, &actor).await?;
            if !made {
                eprintln!("there is a signing key already; `keys rotate` replaces it");
            }
            key.to_string()
        }
        KeysCommand::Show => {
            let signing = keys::signing(db).await?;
            let mut lines = vec![keys::public(&signing.current)?.to_string()];
            for former in signing.former {
                let key = keys::public(&former.key)?;
                lines.push(format!("{key}  (replaced {})", former.replaced_at));
            }
            lines.join("\n")
        }
        KeysCommand::Rotate { drop_old } => {
            let (old, new) = keys::rotate(db, &actor, drop_old).await?;
            if drop_old {
                eprintln!(
                    "the old key {old} signs no more; servers below must be told to trust the new one"
                );
            } else {
                eprintln!("the old key {old} signs beside the new one for 90 days");
            }
            new.to_string()
        }
        KeysCommand::Trust { key, name } => {
            keys::trust(db, &actor, &key, &name).await?;
            format!("{key} is trusted as {name}")
        }
        KeysCommand::Untrust { key } => {
            let name = keys::untrust(db, &actor, &key).await?;
            format!("{key}, called {name}, is not trusted any more")
        }
        KeysCommand::List => {
            let trusted = keys::list(db).await?;
            if trusted.is_empty() {
                "No keys of others are trusted.".to_owned()
            } else {
                let line = |key: &crate::db::trusted_keys::TrustedKey| {
                    format!("{}  {}  since {}", key.key, key.name, key.added_at)
                };
                trusted.iter().map(line).collect::<Vec<_>>().join("\n")
            }
        }
    })
}
