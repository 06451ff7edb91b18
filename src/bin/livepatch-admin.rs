//! Entry point of livepatch-admin.

fn main() -> std::process::ExitCode {
    livepatch_onprem::cli::main()
}
