//! Entry point of livepatch-client: arguments in, exit code out.

use clap::Parser;
use livepatch_onprem::sim::{cli, error};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()).await {
        Ok(()) => ExitCode::from(error::EXIT_OK),
        Err(e) => {
            eprintln!("livepatch-client: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}
