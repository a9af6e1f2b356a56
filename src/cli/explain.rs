//! `rowlock explain`.

use std::process::ExitCode;

use rowlock::engine::Explanation;
use serde_json::{Value, json};
use uuid::Uuid;

use super::database::Database;
use super::{NOT_FOUND, show};

/// Arguments of `rowlock explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job
    id: Uuid,
    /// One object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Says why a job is not running. Exits 3 when there is none.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Some(found) = args.database.engine().await?.explain(args.id).await? else {
        eprintln!("rowlock: no job {}", args.id);
        return Ok(ExitCode::from(NOT_FOUND));
    };
    if args.json {
        show::lines([object(args.id, &found)])?;
    } else {
        print(&found)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(found: &Explanation) -> anyhow::Result<()> {
    show::line(&format!("{} since {} (UTC)", found.state, show::time(found.since)))?;
    show::line(&show::printable(&found.summary))?;
    let parents = waits_for(found);
    let cell = |parent: &Value, key: &str| parent[key].as_str().unwrap_or("-").to_owned();
    let row = |parent: &Value| {
        ["job_id", "state", "on_parent_failure"].map(|key| cell(parent, key)).to_vec()
    };
    if let Some(parents) = parents.as_array() {
        show::line("")?;
        let header = ["waits for", "state", "policy"];
        show::table(&header, parents.iter().map(row).collect(), "nothing")?;
    }
    Ok(())
}

fn object(id: Uuid, found: &Explanation) -> Value {
    json!({
        "job_id": id, "state": found.state, "since": show::rfc3339(found.since),
        "summary": found.summary, "queue": found.queue, "kind": found.kind,
        "priority": found.priority, "attempt": found.attempt,
        "due_at": found.due_at.map(show::rfc3339),
        "queue_paused_at": found.queue_paused_at.map(show::rfc3339),
        "waits_for": waits_for(found), "first_cause": found.first_cause, "ahead": found.ahead,
        "workers_on_queue": found.workers_on_queue, "workers_for_kind": found.workers_for_kind,
        "worker": found.worker, "lease_ends_at": found.lease_ends_at.map(show::rfc3339),
    })
}

fn waits_for(found: &Explanation) -> Value {
    let text = found.waits_for.as_ref().map(|json| json.get());
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}
