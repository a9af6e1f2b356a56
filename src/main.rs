//! The `rowlock` command.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // The whole chain on one line: a backtrace tells the person at the prompt nothing.
    run().unwrap_or_else(|error| {
        eprintln!("rowlock: {}", rowlock::db::chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cli::run(cli))
}
