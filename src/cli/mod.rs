//! The command line: one file and one variant per subcommand.

mod postgres;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A Postgres-only job queue.
#[derive(Debug, Parser)]
#[command(name = "rowlock", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look after the private Postgres.
    Postgres(postgres::Args),
}

/// Runs the subcommand that was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Postgres(args) => postgres::run(args).await,
    }
}
