//! `rowlock jobs` and `rowlock job`: what is in the queue.

use std::process::ExitCode;

use rowlock::engine::{ExecutionRecord, JobDetails, JobFilter, JobSummary, Relative};
use rowlock::model::JobState;
use serde_json::{Value, json};
use uuid::Uuid;

use super::database::Database;
use super::{NOT_FOUND, show};

/// Arguments of `rowlock jobs`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// Only jobs in this state
    #[arg(long, short)]
    state: Option<JobState>,
    /// Only jobs of this queue
    #[arg(long, short)]
    queue: Option<String>,
    /// Only jobs of this kind
    #[arg(long, short)]
    kind: Option<String>,
    /// At most so many, newest first
    #[arg(long, short = 'n', default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    /// Only jobs before this one: the last line of the page before
    #[arg(long, value_name = "ID")]
    before: Option<Uuid>,
    /// One object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Lists jobs.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let engine = args.database.engine().await?;
    let filter =
        JobFilter { state: args.state, queue: args.queue, kind: args.kind, before: args.before };
    let page = engine.jobs(&filter, args.limit).await?;
    if args.json {
        show::lines(page.jobs.iter().map(summary))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |job: &JobSummary| {
        vec![
            job.id.to_string(),
            job.state.to_string(),
            job.queue.clone(),
            job.kind.clone(),
            job.priority.to_string(),
            job.attempt.to_string(),
            show::time(job.created_at),
        ]
    };
    let header = ["id", "state", "queue", "kind", "priority", "attempt", "created (UTC)"];
    show::table(&header, page.jobs.iter().map(row).collect(), "no jobs")?;
    if let Some(next) = page.next {
        show::line(&format!("more: --before {next}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Arguments of `rowlock job`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    /// The job
    id: Uuid,
    /// One object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Shows one job. Exits 3 when there is none.
pub(super) async fn show(args: ShowArgs) -> anyhow::Result<ExitCode> {
    let engine = args.database.engine().await?;
    let Some(job) = engine.job(args.id).await? else {
        eprintln!("rowlock: no job {}", args.id);
        return Ok(ExitCode::from(NOT_FOUND));
    };
    if args.json {
        show::lines([details(&job)])?;
    } else {
        print(&job)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(job: &JobDetails) -> anyhow::Result<()> {
    let of = &job.summary;
    let mut fields = vec![
        ("id", of.id.to_string()),
        ("state", of.state.to_string()),
        ("queue", of.queue.clone()),
        ("kind", of.kind.clone()),
        ("priority", of.priority.to_string()),
        ("attempt", format!("{} ({} of {} failures)", of.attempt, of.failures, of.max_attempts)),
        ("created", show::time(of.created_at)),
        ("due", show::time(of.run_at)),
    ];
    let finished = of.finished_at.map(show::time);
    let optional = [
        ("finished", finished),
        ("reason", of.reason.clone()),
        ("caused by", job.cause.map(|id| id.to_string())),
        ("workflow", job.workflow.map(|id| id.to_string())),
        ("unique key", job.unique_key.clone()),
        ("result", job.result.as_ref().map(|result| result.get().to_owned())),
    ];
    fields.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    fields.push(("args", job.args.get().to_owned()));
    for (name, value) in fields {
        show::line(&format!("{name:<11}{}", show::printable(&value)))?;
    }
    if !job.executions.is_empty() {
        show::line("")?;
        let header = ["attempt", "started (UTC)", "outcome", "worker", "error"];
        show::table(&header, job.executions.iter().map(execution_row).collect(), "")?;
    }
    for (what, relatives) in [("parents", &job.parents), ("children", &job.children)] {
        if !relatives.is_empty() {
            show::line("")?;
            let rows = relatives.iter().map(relative_row).collect();
            show::table(&[what, "state", "policy"], rows, "")?;
        }
    }
    Ok(())
}

fn execution_row(execution: &ExecutionRecord) -> Vec<String> {
    let error = execution.error.as_deref().and_then(|error| error.lines().next());
    vec![
        execution.attempt.to_string(),
        show::time(execution.started_at),
        show::or_dash(execution.outcome.as_deref()),
        execution.worker.to_string(),
        show::or_dash(error),
    ]
}

fn relative_row(relative: &Relative) -> Vec<String> {
    let state = relative.state.map_or("pruned", JobState::as_str);
    vec![relative.job_id.to_string(), state.to_owned(), relative.policy.to_string()]
}

fn summary(job: &JobSummary) -> Value {
    json!({
        "id": job.id, "state": job.state, "queue": job.queue, "kind": job.kind,
        "priority": job.priority, "attempt": job.attempt, "failures": job.failures,
        "max_attempts": job.max_attempts, "created_at": show::rfc3339(job.created_at),
        "run_at": show::rfc3339(job.run_at), "finished_at": job.finished_at.map(show::rfc3339),
        "reason": job.reason,
    })
}

fn details(job: &JobDetails) -> Value {
    let execution = |execution: &ExecutionRecord| {
        json!({
            "attempt": execution.attempt, "worker": execution.worker,
            "started_at": show::rfc3339(execution.started_at),
            "finished_at": execution.finished_at.map(show::rfc3339),
            "outcome": execution.outcome, "error": execution.error,
        })
    };
    let relative = |relative: &Relative| json!({"id": relative.job_id, "state": relative.state, "policy": relative.policy});
    let mut value = summary(&job.summary);
    value["args"] = serde_json::from_str(job.args.get()).unwrap_or_default();
    let result = job.result.as_ref().and_then(|result| serde_json::from_str(result.get()).ok());
    value["result"] = result.unwrap_or_default();
    value["unique_key"] = json!(job.unique_key);
    value["cause"] = json!(job.cause);
    value["workflow"] = json!(job.workflow);
    value["waits_for"] = json!(job.waits_for);
    value["executions"] = job.executions.iter().map(execution).collect();
    value["parents"] = job.parents.iter().map(relative).collect();
    value["children"] = job.children.iter().map(relative).collect();
    value
}
