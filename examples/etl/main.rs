//! Extract, transform, load: one workflow in which results travel from parents to children.
//!
//! ```text
//!   orders-east --+
//!                 +-any-> orders ---+
//!   orders-west --+                 |
//!   customers ----------------------+-> transform --> load --> report
//!   rates ---------- (continue) ----+
//! ```
//!
//! Two mirrors have the orders: whichever answers first is enough, and one may be down. Without
//! today's rates the transformation goes on with none. What it computes is large in earnest, so it
//! goes into a table, and only its key travels on.
//!
//! `cargo run --example etl` needs no database: it starts one for as long as it runs.
//!
//! - [`graph`]: the jobs and their edges
//! - [`work`]: the handlers
//! - [`sources`]: what stands for the systems that are read

mod graph;
mod sources;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rowlock::db::{self, migrate};
use rowlock::embedded::{self, Profile};
use rowlock::model::NewWorkflow;
use rowlock::shutdown::Shutdown;
use rowlock::{Client as Rowlock, Worker};
use tokio_postgres::Client;
use uuid::Uuid;

const QUEUE: &str = "etl";
const GLANCE: Duration = Duration::from_millis(50);
const DRAIN: Duration = Duration::from_secs(5);

/// Adds up the orders of each customer, in euros.
#[derive(Debug, Parser)]
#[command(name = "etl")]
struct Args {
    /// A Postgres of yours; without one, a throw-away one
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// A source that cannot be reached: orders-east, orders-west, customers or rates
    #[arg(long, default_value = "orders-west")]
    down: Vec<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if let Some(url) = &args.database_url {
        return run(url, &args.down).await;
    }
    let temporary = embedded::start_temporary(Profile::Throwaway).await?;
    let ended = run(&temporary.cluster().url(embedded::DATABASE), &args.down).await;
    temporary.destroy().await?;
    ended
}

/// Enqueues the workflow, works until it has ended, and says how.
async fn run(url: &str, down: &[String]) -> anyhow::Result<ExitCode> {
    let mut client = connect(url).await?;
    migrate::run(&mut client, &"rowlock".parse()?).await?;
    client.batch_execute(work::TABLES).await?;
    let shutdown = Shutdown::new();
    let worker = worker(url, down);
    let working = shutdown.spawn({
        let shutdown = shutdown.clone();
        async move { worker.run(&shutdown).await }
    });
    let workflow = NewWorkflow::new("etl");
    let graph = graph::jobs()?;
    let enqueued = Rowlock::default().enqueue_workflow(&client, &workflow, &graph).await?;
    let report = enqueued.jobs.last().context("there are jobs")?.job_id;
    let state = ended(&client, workflow.id).await?;
    shutdown.stop();
    working.await??;
    shutdown.drain(DRAIN).await;
    let reported = print(&client, workflow.id, report).await?;
    println!("workflow {}: {state}", workflow.id);
    // Though a source was down.
    Ok(if reported { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn worker(url: &str, down: &[String]) -> Worker {
    let (down, transform_url, load_url) = (down.to_vec(), url.to_owned(), url.to_owned());
    Worker::new(url)
        .queue(QUEUE, 4)
        .on("extract", move |job| work::extract(job, down.clone()))
        .on("first", work::first)
        .on("transform", move |job| work::transform(job, transform_url.clone()))
        .on("load", move |job| work::load(job, load_url.clone()))
        .on("report", work::report)
}

/// Opens a connection.
async fn connect(url: &str) -> Result<Client, db::Error> {
    db::connect(&url.into()).await
}

/// Waits until a workflow has ended, and gives its state.
async fn ended(client: &Client, workflow: Uuid) -> anyhow::Result<String> {
    let query = "select state from rowlock.workflow_status($1) where finished_at is not null";
    loop {
        if let Some(row) = client.query_opt(query, &[&workflow]).await? {
            return Ok(row.get(0));
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Prints what became of each job, and says whether the report completed.
async fn print(client: &Client, workflow: Uuid, report: Uuid) -> anyhow::Result<bool> {
    let query = "select j.id, concat_ws(' ', j.kind, j.args #>> '{}'), j.state,
                     coalesce(j.reason, left(e.result::text, 60), '')
                 from rowlock.jobs j
                 left join rowlock.executions e on e.job_id = j.id and e.attempt = j.attempt
                 where j.workflow = $1 order by j.id";
    let mut reported = false;
    for row in client.query(query, &[&workflow]).await? {
        let (job, state, more): (&str, &str, &str) = (row.get(1), row.get(2), row.get(3));
        reported |= row.get::<_, Uuid>(0) == report && state == "completed";
        println!("{job:20} {state:10} {more}");
    }
    Ok(reported)
}
