//! The command line: one file and one variant per subcommand.

mod migrate;
mod postgres;
mod serve;

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
    /// Run the service.
    ///
    /// Without DATABASE_URL it starts a Postgres of its own, and stops it at the end.
    Serve(Box<serve::Args>),
    /// Bring the schema up, or print the SQL that would.
    Migrate(migrate::Args),
    /// Look after the private Postgres.
    Postgres(postgres::Args),
}

/// Runs the subcommand that was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Postgres(args) => postgres::run(args).await,
    }
}
