//! `rowlock workflow` and `rowlock workflows`: graphs of jobs, drawn in a terminal.

mod draw;

use std::process::ExitCode;
use std::time::Duration;

use console::Term;
use rowlock::engine::{Engine, WorkflowSummary, WorkflowVerdicts};
use rowlock::model::{Graph, WorkflowState, WorkflowVerdict};
use serde_json::{Value, json};
use uuid::Uuid;

use super::database::Database;
use super::{NOT_FOUND, show};

/// How often a drawing is made anew.
const PAUSE: Duration = Duration::from_millis(500);

/// Up to so many jobs have a line each.
const SINGLE: usize = 20;

/// Where nobody says how wide the paper is.
const WIDTH: usize = 100;

/// Arguments of `rowlock workflow`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The workflow
    id: Uuid,
    /// Draw it as it is now, even at a terminal
    #[arg(long)]
    once: bool,
    /// Cancel what waits of it, and ask what runs to stop
    #[arg(long, conflicts_with_all = ["retry", "once"])]
    cancel: bool,
    /// Let its discarded and cancelled jobs run again
    #[arg(long, conflicts_with = "once")]
    retry: bool,
    /// One object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Draws, cancels or retries a workflow. Exits 3 when there is none, 1 when some of its jobs stayed
/// as they were because others hold them or their keys.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = args.database.engine().await?;
    if args.cancel {
        return operated(&args, &engine.cancel_workflow(args.id).await?);
    }
    if args.retry {
        return operated(&args, &engine.retry_workflow(args.id).await?);
    }
    let term = Term::stdout();
    let live = term.is_term() && !args.once && !args.json;
    let mut drawn = 0;
    loop {
        let Some(summary) = engine.workflow(args.id).await? else { return Ok(none(args.id)) };
        let graph = graph(&engine, args.id, if args.json { usize::MAX } else { SINGLE }).await?;
        if args.json {
            show::lines([object(&summary, &graph)])?;
            return Ok(ExitCode::SUCCESS);
        }
        let size = term.size_checked().map(|(rows, columns)| (rows.into(), columns.into()));
        let (rows, columns) = size.unwrap_or((usize::MAX, WIDTH));
        let mut lines = draw::lines(&summary, &graph, columns, term.is_term());
        if live {
            draw::fit(&mut lines, rows);
        }
        term.clear_last_lines(drawn)?;
        lines.iter().try_for_each(|line| show::line(line))?;
        drawn = lines.len();
        if !live || summary.state != WorkflowState::Running {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn graph(engine: &Engine, id: Uuid, single: usize) -> anyhow::Result<Graph> {
    Ok(Graph::of(&engine.workflow_jobs(id).await?, single))
}

fn none(id: Uuid) -> ExitCode {
    eprintln!("rowlock: no workflow {id}");
    ExitCode::from(NOT_FOUND)
}

fn operated(args: &Args, verdicts: &WorkflowVerdicts) -> anyhow::Result<ExitCode> {
    if verdicts.is_empty() {
        return Ok(none(args.id));
    }
    if args.json {
        let line =
            |(verdict, jobs): &(WorkflowVerdict, i64)| json!({"verdict": verdict, "jobs": jobs});
        show::lines(verdicts.iter().map(line))?;
    } else {
        let row =
            |(verdict, jobs): &(WorkflowVerdict, i64)| vec![verdict.to_string(), jobs.to_string()];
        show::table(&["verdict", "jobs"], verdicts.iter().map(row).collect(), "no jobs")?;
    }
    let stayed = [WorkflowVerdict::Busy, WorkflowVerdict::Conflict];
    let some_stayed = verdicts.iter().any(|(verdict, _)| stayed.contains(verdict));
    Ok(if some_stayed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Arguments of `rowlock workflows`.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// At most so many, newest first
    #[arg(long, short = 'n', default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=100))]
    limit: i64,
    /// Only workflows before this one: the last line of the page before
    #[arg(long, value_name = "ID")]
    before: Option<Uuid>,
    /// One object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Lists workflows.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<ExitCode> {
    let page = args.database.engine().await?.workflows(args.before, args.limit).await?;
    if args.json {
        show::lines(page.workflows.iter().map(summary))?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |workflow: &WorkflowSummary| {
        vec![
            workflow.id.to_string(),
            show::or_dash(workflow.name.as_deref()),
            workflow.state.to_string(),
            format!("{} of {}", workflow.done, workflow.jobs),
            show::time(workflow.created_at),
        ]
    };
    let header = ["id", "name", "state", "done", "created (UTC)"];
    show::table(&header, page.workflows.iter().map(row).collect(), "no workflows")?;
    if let Some(next) = page.next {
        show::line(&format!("more: --before {next}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(workflow: &WorkflowSummary) -> Value {
    let mut value = json!({
        "id": workflow.id, "name": workflow.name, "state": workflow.state,
        "created_at": show::rfc3339(workflow.created_at),
        "finished_at": workflow.finished_at.map(show::rfc3339),
        "jobs": workflow.jobs, "done": workflow.done, "held": workflow.held,
        "pruned": workflow.pruned,
    });
    for (state, jobs) in &workflow.counts {
        value[state.as_str()] = json!(jobs);
    }
    value
}

fn object(workflow: &WorkflowSummary, graph: &Graph) -> Value {
    let mut value = summary(workflow);
    let nodes = graph.nodes.iter().map(|node| {
        json!({
            "id": node.id, "jobs": node.jobs, "layer": node.layer, "kind": node.kind,
            "queue": node.queue, "state": node.state, "held": node.is_held,
        })
    });
    let edges = graph
        .edges
        .iter()
        .map(|edge| json!({"parent": edge.parent, "child": edge.child, "jobs": edge.jobs}));
    value["nodes"] = nodes.collect();
    value["edges"] = edges.collect();
    value["jobs_left_out"] = json!(graph.jobs_left_out);
    value["edges_left_out"] = json!(graph.edges_left_out);
    value
}
