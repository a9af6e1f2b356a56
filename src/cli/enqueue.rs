//! `rowlock enqueue`: one job, from the command line.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, builder::NonEmptyStringValueParser};
use rowlock::config::units;
use rowlock::model::{NewJob, OnParentFailure, WaitFor};
use serde_json::json;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::database::Database;
use super::{Cli, show};

/// Arguments of `rowlock enqueue`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What sort of job it is; chooses the handler
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    kind: String,
    /// The arguments as JSON; `-` reads them from standard input
    #[arg(default_value = "{}")]
    args: String,
    /// The queue
    #[arg(long, short)]
    queue: Option<String>,
    /// 0 runs first, 9 last
    #[arg(long, short)]
    priority: Option<i16>,
    /// Not before this time, such as 2030-01-31T12:00:00Z
    #[arg(long, value_parser = time_of, conflicts_with = "run_in")]
    run_at: Option<OffsetDateTime>,
    /// Not before this much time has passed, such as 30s or 2h
    #[arg(long, value_parser = units::duration)]
    run_in: Option<Duration>,
    /// A job that must finish first; may be repeated
    #[arg(long, value_name = "ID")]
    depends_on: Vec<Uuid>,
    /// What to do when one of these does not complete: cancel, continue or hold
    #[arg(long, value_name = "POLICY")]
    on_parent_failure: Option<OnParentFailure>,
    /// Whether it waits for all of these, or for any: all or any
    #[arg(long, value_name = "WHICH")]
    wait_for: Option<WaitFor>,
    /// How many failures it may have
    #[arg(long)]
    max_attempts: Option<i32>,
    /// How long one execution may take
    #[arg(long, value_parser = units::duration)]
    timeout: Option<Duration>,
    /// While a job with this key is unfinished, answers with that one
    #[arg(long)]
    unique_key: Option<String>,
    /// Its id, so that a repeated call enqueues it once
    #[arg(long)]
    id: Option<Uuid>,
    /// Print an object instead of the id
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

fn time_of(text: &str) -> Result<OffsetDateTime, time::error::Parse> {
    OffsetDateTime::parse(text, &Rfc3339)
}

/// Enqueues, and prints the id.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = args.database.engine().await?;
    let json = args.json;
    let answer = engine.enqueue_one(job(args)?).await?;
    let id = answer.job_id;
    if json {
        show::lines([json!({"id": id, "created": answer.created})])?;
    } else {
        show::line(&id.to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn job(args: Args) -> anyhow::Result<NewJob> {
    let text = if args.args == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        text
    } else {
        args.args
    };
    let raw = RawValue::from_string(text).unwrap_or_else(|error| {
        let message = format!("the arguments are not JSON: {error}");
        Cli::command().error(ErrorKind::ValueValidation, message).exit()
    });
    let mut job = NewJob::from_raw(args.kind, raw);
    job.queue = args.queue;
    job.priority = args.priority;
    job.run_at = args.run_at.or_else(|| Some(OffsetDateTime::now_utc() + args.run_in?));
    job.parents = args.depends_on.into_iter().map(Into::into).collect();
    job.on_parent_failure = args.on_parent_failure;
    job.wait_for = args.wait_for;
    job.max_attempts = args.max_attempts;
    job.timeout = args.timeout;
    job.unique_key = args.unique_key;
    job.id = args.id;
    Ok(job)
}
