//! `rowlock cancel`, `rowlock retry` and `rowlock reprioritize`.

use std::process::ExitCode;

use rowlock::model::{CancelVerdict, ReprioritizeVerdict, RetryVerdict};
use serde_json::json;
use uuid::Uuid;

use super::database::Database;
use super::{NOT_FOUND, show};

/// Arguments of `rowlock cancel` and `rowlock retry`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    ids: Vec<Uuid>,
    /// One object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Cancels jobs. Exits 3 when one of them is unknown.
pub(super) async fn cancel(args: Args) -> anyhow::Result<ExitCode> {
    let verdicts = args.database.engine().await?.cancel(args.ids.clone()).await?;
    let unknown = verdicts.contains(&CancelVerdict::Unknown);
    print(&args, verdicts.into_iter().map(CancelVerdict::as_str))?;
    Ok(exit_code(unknown, false))
}

/// Lets jobs run again. Exits 3 when one of them is unknown, 1 when another job has its key.
pub(super) async fn retry(args: Args) -> anyhow::Result<ExitCode> {
    let verdicts = args.database.engine().await?.retry(args.ids.clone()).await?;
    let unknown = verdicts.contains(&RetryVerdict::Unknown);
    let conflict = verdicts.contains(&RetryVerdict::Conflict);
    print(&args, verdicts.into_iter().map(RetryVerdict::as_str))?;
    Ok(exit_code(unknown, conflict))
}

/// Arguments of `rowlock reprioritize`.
#[derive(Debug, clap::Args)]
pub(super) struct ReprioritizeArgs {
    /// 0 runs first, 9 last
    #[arg(long, value_parser = clap::value_parser!(i16).range(0..=9))]
    priority: i16,
    #[command(flatten)]
    of: Args,
}

/// Gives jobs another priority. Exits 3 when one of them is unknown.
pub(super) async fn reprioritize(args: ReprioritizeArgs) -> anyhow::Result<ExitCode> {
    let ReprioritizeArgs { priority, of: args } = args;
    let engine = args.database.engine().await?;
    let verdicts = engine.reprioritize(args.ids.clone(), priority).await?;
    let unknown = verdicts.contains(&ReprioritizeVerdict::Unknown);
    print(&args, verdicts.into_iter().map(ReprioritizeVerdict::as_str))?;
    Ok(exit_code(unknown, false))
}

fn print(args: &Args, verdicts: impl Iterator<Item = &'static str>) -> anyhow::Result<()> {
    let answers = args.ids.iter().zip(verdicts);
    if args.json {
        return show::lines(answers.map(|(id, verdict)| json!({"id": id, "verdict": verdict})));
    }
    let rows = answers.map(|(id, verdict)| vec![id.to_string(), verdict.to_owned()]).collect();
    show::table(&["id", "verdict"], rows, "no jobs")
}

fn exit_code(unknown: bool, refused: bool) -> ExitCode {
    match (unknown, refused) {
        (true, _) => ExitCode::from(NOT_FOUND),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}
