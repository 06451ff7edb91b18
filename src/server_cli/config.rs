//! `livepatch-server config`: check the configuration, show what is in effect, list the keys.

use crate::config::{self, Config, ConfigError, Loaded, Source, Values, keys};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check or show the configuration
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration and the files it names, and say everything that is wrong; exit 1 if anything is
    Check {
        #[command(flatten)]
        file: FileArg,
    },
    /// Print what is in effect and where each value came from, with secrets masked
    Show {
        #[command(flatten)]
        file: FileArg,
        /// The form of the output
        #[arg(long, value_enum, default_value_t = Output::Yaml)]
        output: Output,
        /// Print a commented file of all defaults instead, reading no file and no environment
        #[arg(long, conflicts_with_all = ["config", "output"])]
        defaults: bool,
    },
    /// List every key with its type, default, environment variable and meaning
    Keys,
    /// Make a configuration from one of Canonical's server: its snap's, its charms', or its old reactive charm's
    #[command(after_help = CONVERT)]
    Convert {
        /// What `snap get -d canonical-livepatch-server lp` or `juju config APPLICATION` printed, or a file of keys
        #[arg(value_name = "FILE")]
        input: PathBuf,
        /// Write it to this file, which must not be there yet, instead of standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

const CONVERT: &str = "\
Examples:
  snap get -d canonical-livepatch-server lp > old.json && livepatch-server config convert old.json -o /etc/livepatch.yaml
  juju config livepatch > old.yaml && livepatch-server config convert old.yaml

Only what somebody set is taken over. What cannot be taken over, and what is missing to start, is said on standard error.";

/// Where the configuration file is
#[derive(Debug, Args)]
struct FileArg {
    /// The configuration file [default: $LIVEPATCH_CONFIG_LOCATION, else /etc/livepatch.yaml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Yaml,
    Json,
}

/// Runs the command on this process's environment, standard output and standard error.
///
/// # Errors
/// When output cannot be written.
pub fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let env: Vec<_> = config::process_environment().collect();
    let code = execute(
        args,
        env,
        &mut std::io::stdout().lock(),
        &mut std::io::stderr().lock(),
    )?;
    Ok(ExitCode::from(code))
}

/// As [`run`], with everything it reads from the process and writes to as parameters. Answers the exit code.
///
/// # Errors
/// When output cannot be written.
pub fn execute(
    args: ConfigArgs,
    env: Vec<(String, String)>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    match args.command {
        ConfigCommand::Check { file } => {
            let loaded = match Config::load(file.config.as_deref(), env.into_iter()) {
                Ok(loaded) => loaded,
                Err(errors) => return refuse(&errors, err),
            };
            for notice in &loaded.notices {
                writeln!(err, "{notice}")?;
            }
            let missing = config::check_files(&loaded.config);
            if !missing.is_empty() {
                return refuse(&missing, err);
            }
            writeln!(out, "configuration is good: {}", origin(&loaded))?;
        }
        ConfigCommand::Show { defaults: true, .. } => write!(out, "{}", config::show::defaults())?,
        ConfigCommand::Show {
            file,
            output,
            defaults: false,
        } => {
            let loaded = match Config::load(file.config.as_deref(), env.into_iter()) {
                Ok(loaded) => loaded,
                Err(errors) => return refuse(&errors, err),
            };
            match output {
                Output::Yaml => write!(out, "{}", config::show::yaml(&loaded.sources))?,
                Output::Json => {
                    let shown = config::show::json(&loaded.sources);
                    let text = serde_json::to_string_pretty(&shown).context("writing JSON")?;
                    writeln!(out, "{text}")?;
                }
            }
        }
        ConfigCommand::Keys => write!(out, "{}", key_table())?,
        ConfigCommand::Convert { input, output } => {
            return convert(&input, output.as_deref(), out, err);
        }
    }
    Ok(0)
}

fn convert(
    input: &Path,
    output: Option<&Path>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<u8> {
    let read = std::fs::read_to_string(input).map_err(|error| error.to_string());
    let converted = match read.and_then(|text| config::convert::convert(&text)) {
        Ok(converted) => converted,
        Err(why) => {
            writeln!(err, "error: {}: {why}", input.display())?;
            return Ok(1);
        }
    };
    match output {
        None => write!(out, "{}", converted.text)?,
        Some(path) => {
            // It may hold secrets, and there may be a configuration already.
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
                .with_context(|| format!("{}: the file to write", path.display()))?;
            file.write_all(converted.text.as_bytes())?;
        }
    }
    writeln!(
        err,
        "{} keys taken over from {}",
        converted.taken, converted.from
    )?;
    for remark in &converted.remarks {
        writeln!(err, "{remark}")?;
    }
    let place = output.unwrap_or(Path::new("the result"));
    let read = |_: &Path| Ok(converted.text.clone());
    match config::load_with(Some(place), std::iter::empty(), &read) {
        Ok(_) => writeln!(
            err,
            "complete: `livepatch-server config check` finds nothing wrong"
        )?,
        Err(errors) => {
            writeln!(err, "to be done before it starts:")?;
            for error in errors {
                writeln!(err, "  {error}")?;
            }
        }
    }
    Ok(0)
}

fn refuse(errors: &[ConfigError], err: &mut dyn Write) -> anyhow::Result<u8> {
    for error in errors {
        writeln!(err, "error: {error}")?;
    }
    let plural = if errors.len() == 1 { "error" } else { "errors" };
    writeln!(err, "{} {plural}; nothing was started", errors.len())?;
    Ok(1)
}

/// How many keys came from where.
fn origin(loaded: &Loaded) -> String {
    let count = |of: fn(&Source) -> bool| count_sources(&loaded.sources, of);
    let from_file = count(|source| matches!(source, Source::File { .. }));
    let from_environment = count(|source| matches!(source, Source::Environment { .. }));
    let from_secret_files = count(|source| matches!(source, Source::SecretFile { .. }));
    let file = loaded.file.as_ref().map_or_else(
        || "no configuration file".to_owned(),
        |path| format!("{from_file} keys from {}", path.display()),
    );
    format!(
        "{file}, {from_environment} from the environment, {from_secret_files} from files of secrets"
    )
}

fn count_sources(values: &Values, of: fn(&Source) -> bool) -> usize {
    values
        .iter()
        .filter(|(_, effective)| of(&effective.source))
        .count()
}

fn key_table() -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(["KEY", "TYPE", "DEFAULT", "ENVIRONMENT VARIABLE", "MEANING"]);
    for key in keys::all() {
        let meaning = if key.is_used() {
            key.about.to_owned()
        } else {
            format!("{} ({})", key.about, key.status_line())
        };
        table.add_row([
            key.name.to_owned(),
            key.kind.label(),
            key.default.to_owned(),
            key.variable(),
            meaning,
        ]);
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}
