//! The ledger checker: producers and workers as processes of their own, faults that are real, and a
//! judge that compares what everybody was told with what is in the database. docs/CHAOS.md tells
//! what it does; `make chaos` runs it.

mod canary;
mod chance;
mod clock;
mod database;
mod faults;
mod http;
mod judge;
mod ledger;
mod mutants;
mod operator;
#[path = "../it/harness/pgbouncer.rs"]
mod pgbouncer;
mod plan;
mod play;
mod producers;
mod report;
mod run;
mod supervisor;
#[allow(dead_code, reason = "shared with the tests of single steps")]
#[path = "../it/harness/wait.rs"]
mod wait;
mod ways;
#[allow(dead_code, unused_imports, reason = "shared with the tests of single steps")]
mod wire;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use supervisor::{CHILD, Role, Task};

/// Runs producers, workers and faults against a Postgres of its own, and judges what is left.
#[derive(Debug, Parser)]
struct Args {
    /// Jobs to enqueue, half of them in graphs
    #[arg(long, default_value_t = 22_000)]
    jobs: usize,
    /// Faults to strike with
    #[arg(long, default_value_t = 72)]
    faults: usize,
    /// Everything that is chance follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write a report in Markdown
    #[arg(long)]
    report: Option<PathBuf>,
    /// Plant this bug: the run must end with exit code 1
    #[arg(long)]
    mutant: Option<String>,
    /// Plant every bug there is, one after the other, and say which check caught it
    #[arg(long)]
    mutants: bool,
    /// Keep the ledgers and logs, and the database, whatever the judgement
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.expect("a runtime").block_on(async {
        let mut arguments = std::env::args().skip(1);
        match arguments.next() {
            Some(first) if first == CHILD => {
                let task = arguments.next().expect("a task");
                child(serde_json::from_str(&task)?).await.map(|()| true)
            }
            _ => {
                // So that what was started ends with it.
                tokio::select! {
                    outcome = play(Args::parse()) => outcome,
                    () = interrupted() => Err(anyhow::anyhow!("interrupted")),
                }
            }
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs what was asked for; true is exit code 0.
async fn play(args: Args) -> Result<bool> {
    match &args.mutant {
        _ if args.mutants => play::try_all(&args).await,
        Some(name) => play::try_mutant(&args, mutants::named(name)?).await,
        None => play::play(&args).await,
    }
}

async fn interrupted() {
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be heard");
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be heard");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What one of the processes of a run does.
async fn child(task: Task) -> Result<()> {
    std::thread::spawn(|| {
        // It ends with the process that started this one.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(3);
    });
    let run = task.run.on_its_way(task.role, task.slot);
    match task.role {
        Role::Producer => producers::run(run, task.slot).await,
        Role::Worker => workers::run(run, task.slot, task.incarnation).await,
        Role::Operator => operator::run(run).await,
        Role::Service => unreachable!("the service is a program of its own"),
    }
}
