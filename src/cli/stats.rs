//! `rowlock stats`: depth, latency, outcomes and workers.

use std::process::ExitCode;

use rowlock::engine::{
    LatencyFigures, OutcomeFigures, QueueFigures, Stats, WaitFigures, WorkerFigures,
};
use rowlock::model::JobState;
use serde_json::{Value, json};

use super::database::Database;
use super::show;

/// Arguments of `rowlock stats`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One object a line, each with its sort in `figure`
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Prints the figures.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = args.database.engine().await?;
    let (queues, workers) = (engine.queues().await?, engine.workers().await?);
    let Stats { latencies, outcomes, waits } = engine.stats().await?;
    if args.json {
        show::lines(queues.iter().map(queue_json))?;
        show::lines(latencies.iter().map(latency_json))?;
        show::lines(outcomes.iter().map(outcome_json))?;
        show::lines(waits.iter().map(wait_json))?;
        show::lines(workers.iter().map(worker_json))?;
        return Ok(ExitCode::SUCCESS);
    }
    let header = ["queue", "ready", "scheduled", "blocked", "running", "oldest ready", ""];
    show::table(&header, queues.iter().map(queue_row).collect(), "no queue has jobs that wait")?;
    show::line("")?;
    let header = ["ready to acquired, last hour", "executions", "average", "p95", "p99"];
    show::table(&header, latencies.iter().map(latency_row).collect(), "nothing was acquired")?;
    show::line("")?;
    let header = ["queue", "outcome, last hour", "executions", "share", "average"];
    show::table(&header, outcomes.iter().map(outcome_row).collect(), "nothing has ended")?;
    show::line("")?;
    let header = ["worker", "queues", "load", "heard of", "health"];
    show::table(&header, workers.iter().map(worker_row).collect(), "no workers")?;
    Ok(ExitCode::SUCCESS)
}

fn depth(queue: &QueueFigures, state: JobState) -> i64 {
    queue.depths.iter().filter(|depth| depth.state == state).map(|depth| depth.jobs).sum()
}

fn oldest_ready(queue: &QueueFigures) -> Option<f64> {
    let ready = queue.depths.iter().filter(|depth| depth.state == JobState::Ready);
    ready.filter_map(|depth| depth.oldest_seconds).max_by(f64::total_cmp)
}

const WAITING: [JobState; 4] =
    [JobState::Ready, JobState::Scheduled, JobState::Blocked, JobState::Running];

fn queue_row(queue: &QueueFigures) -> Vec<String> {
    let mut row = vec![queue.name.clone()];
    row.extend(WAITING.map(|state| depth(queue, state).to_string()));
    row.push(show::seconds(oldest_ready(queue)));
    row.push(if queue.paused_at.is_some() { "paused".to_owned() } else { String::new() });
    row
}

fn queue_json(queue: &QueueFigures) -> Value {
    let mut value = json!({
        "figure": "queue", "queue": queue.name, "paused": queue.paused_at.is_some(),
        "oldest_ready_seconds": oldest_ready(queue),
    });
    for state in WAITING {
        value[state.as_str()] = json!(depth(queue, state));
    }
    value
}

fn latency_row(figures: &LatencyFigures) -> Vec<String> {
    vec![
        figures.queue.clone().unwrap_or_else(|| "(all)".to_owned()),
        figures.executions.to_string(),
        show::seconds(figures.average_seconds),
        show::seconds(figures.p95_seconds),
        show::seconds(figures.p99_seconds),
    ]
}

fn latency_json(figures: &LatencyFigures) -> Value {
    json!({
        "figure": "latency", "queue": figures.queue, "executions": figures.executions,
        "average_seconds": figures.average_seconds, "p95_seconds": figures.p95_seconds,
        "p99_seconds": figures.p99_seconds,
    })
}

fn outcome_row(figures: &OutcomeFigures) -> Vec<String> {
    vec![
        figures.queue.clone(),
        figures.outcome.clone(),
        figures.executions.to_string(),
        format!("{:.1} %", figures.share * 100.0),
        show::seconds(figures.average_seconds),
    ]
}

fn outcome_json(figures: &OutcomeFigures) -> Value {
    json!({
        "figure": "outcome", "queue": figures.queue, "outcome": figures.outcome,
        "executions": figures.executions, "share": figures.share,
        "average_seconds": figures.average_seconds,
    })
}

fn wait_json(figures: &WaitFigures) -> Value {
    json!({
        "figure": "longest_wait", "queue": figures.queue, "priority": figures.priority,
        "seconds": figures.seconds, "paused": figures.paused,
    })
}

fn worker_row(worker: &WorkerFigures) -> Vec<String> {
    let capacity = show::or_dash(worker.capacity);
    vec![
        worker.name.clone().unwrap_or_else(|| worker.id.to_string()),
        worker.queues.join(" "),
        format!("{} of {capacity}", worker.load),
        format!("{} ago", show::seconds(Some(worker.heartbeat_age_seconds))),
        worker.health.clone(),
    ]
}

fn worker_json(worker: &WorkerFigures) -> Value {
    json!({
        "figure": "worker", "id": worker.id, "name": worker.name, "queues": worker.queues,
        "kinds": worker.kinds, "capacity": worker.capacity, "load": worker.load,
        "heartbeat_age_seconds": worker.heartbeat_age_seconds, "health": worker.health,
    })
}
