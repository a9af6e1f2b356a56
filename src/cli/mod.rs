//! The command line: one file and one variant per subcommand.

mod database;
mod enqueue;
mod jobs;
mod migrate;
mod operate;
mod postgres;
mod serve;
mod show;
mod stats;
mod verify;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit code for what is not there; 1 is any other failure and 2 wrong usage.
const NOT_FOUND: u8 = 3;

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
    /// Run a command for each job of some queues.
    Work(work::Args),
    /// Enqueue a job and print its id.
    Enqueue(enqueue::Args),
    /// List jobs, newest first.
    Jobs(jobs::ListArgs),
    /// Show one job with its executions. Exits 3 when there is none.
    Job(jobs::ShowArgs),
    /// Show depth, latency, outcomes and workers.
    Stats(stats::Args),
    /// Check every invariant. Exits 1 when one is violated.
    Verify(verify::Args),
    /// Cancel jobs that wait, and ask those that run to stop.
    Cancel(operate::Args),
    /// Let discarded and cancelled jobs run again.
    Retry(operate::Args),
    /// Look after the private Postgres.
    Postgres(postgres::Args),
}

/// Runs the subcommand that was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Work(args) => work::run(args).await,
        Command::Enqueue(args) => enqueue::run(args).await,
        Command::Jobs(args) => jobs::list(args).await,
        Command::Job(args) => jobs::show(args).await,
        Command::Stats(args) => stats::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Cancel(args) => operate::cancel(args).await,
        Command::Retry(args) => operate::retry(args).await,
        Command::Postgres(args) => postgres::run(args).await,
    }
}
