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
use rowlock::db::migrate;
use rowlock::embedded::{self, Profile};
use rowlock::shutdown::Shutdown;
use rowlock::{Client as Rowlock, Worker};
use tokio_postgres::{Client, NoTls};
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
    let jobs = Rowlock::default().enqueue(&client, &graph::jobs()?).await?;
    let report = jobs.last().context("there are jobs")?.job_id;
    let state = ended(&client, report).await?;
    shutdown.stop();
    working.await??;
    shutdown.drain(DRAIN).await;
    print(&client, &jobs.iter().map(|job| job.job_id).collect::<Vec<_>>()).await?;
    Ok(if state == "completed" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // It ends with the client, and its errors are the client's.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Waits until a job has ended, and gives its state.
async fn ended(client: &Client, job: Uuid) -> anyhow::Result<String> {
    let query = "select state from rowlock.job_details
                 where id = $1 and finished_at is not null";
    loop {
        if let Some(row) = client.query_opt(query, &[&job]).await? {
            return Ok(row.get(0));
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Prints what became of each job.
async fn print(client: &Client, jobs: &[Uuid]) -> anyhow::Result<()> {
    let query = "select concat_ws(' ', j.kind, j.args #>> '{}'), j.state,
                     coalesce(j.reason, left(e.result::text, 60), '')
                 from unnest($1::uuid[]) with ordinality g(id, n)
                 join rowlock.jobs j on j.id = g.id
                 left join rowlock.executions e on e.job_id = j.id and e.attempt = j.attempt
                 order by g.n";
    for row in client.query(query, &[&jobs]).await? {
        let (job, state, more): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        println!("{job:20} {state:10} {more}");
    }
    Ok(())
}
