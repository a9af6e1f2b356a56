//! A pipeline of jobs over a folder of text, from the outside: what a user of Rowlock would write.
//!
//! `list` finds the documents and enqueues a graph: one `extract` a document (a fan-out), `relate`
//! behind all of them (a fan-in), `report` behind that (a chain). Two worker processes run it; kill
//! one, and the result is the same.
//!
//! - [`service`]: starts `rowlock serve` on a Postgres of its own
//! - [`work`]: the handlers, in the worker processes
//! - [`run`]: enqueues the first job, and watches
//! - [`tables`]: the pipeline's own tables
//! - [`corpus`], [`extract`]: documents, and what they mention

mod corpus;
mod extract;
mod run;
mod service;
mod tables;
mod work;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rowlock::config::units;
use rowlock::shutdown::Shutdown;

/// Extracts entities from a folder of text, relates them, and reports.
#[derive(Debug, Parser)]
#[command(name = "pipeline")]
struct Args {
    /// The folder; by default the sources that Cargo unpacked
    #[arg(long)]
    input: Option<PathBuf>,
    /// End after the result
    #[arg(long)]
    once: bool,
    /// The port to serve on; if it is taken, the next free one
    #[arg(long, default_value_t = 7878)]
    port: u16,
    /// How many worker processes
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How long each document takes at least, to have something to watch
    #[arg(long, default_value = "0ms", value_parser = units::duration)]
    pace: Duration,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One worker process; the pipeline starts them itself
    Worker {
        /// Where Postgres is
        #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
        database_url: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ended = match &args.command {
        Some(Command::Worker { database_url }) => {
            work::run(database_url, args.pace).await.map(|()| ExitCode::SUCCESS)
        }
        None => pipeline(args).await,
    };
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pipeline: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

async fn pipeline(args: Args) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let input = args.input.map_or_else(corpus::default_input, Ok)?;
    let input = input.canonicalize().with_context(|| format!("find {}", input.display()))?;
    let service = service::Service::start(args.port).await?;
    let workers = workers::Workers::start(&service.database_url, args.workers, args.pace)?;
    let result = tokio::select! {
        // First: a Ctrl-C reaches the service too, and the run fails with it.
        biased;
        () = shutdown.stopping() => Ok(ExitCode::from(INTERRUPTED)),
        result = run::run(&service, &workers, &input) => result.map(|()| ExitCode::SUCCESS),
    };
    if result.is_ok() && !shutdown.is_stopping() && args.once {
        println!("\nThe service ends with this run; `{}` brings it back.", service.command_line());
    } else if result.is_ok() && !shutdown.is_stopping() {
        println!("\nServing until Ctrl-C.");
        tokio::select! {
            () = shutdown.stopping() => {}
            never = workers.watch() => match never {},
        }
    }
    workers.stop().await;
    service.stop().await;
    result
}
