//! One run: enqueue the first job, watch, print the result and where to look.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use rowlock::{Client as Rowlock, NewJob};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::service::Service;
use crate::tables::{self, Relation};
use crate::work::{ATTEMPTS, QUEUE, Run};
use crate::workers::Workers;

const GLANCE: Duration = Duration::from_millis(100);
/// Without a terminal, a line when so much more is done.
const LINE_PERCENT: u64 = 10;

/// Runs the pipeline over a folder to its end.
pub(crate) async fn run(service: &Service, workers: &Workers, input: &Path) -> anyhow::Result<()> {
    let mut client = tables::connect(&service.database_url).await?;
    tables::create(&mut client).await?;
    let run = Uuid::now_v7();
    let args = Run { run, input: input.to_owned() };
    let began = Instant::now();
    let list = NewJob::new("list", &args)?.queue(QUEUE).priority(2).max_attempts(ATTEMPTS);
    let list = Rowlock::default().enqueue_one(&client, list).await?.job_id;
    println!("Reading {} with workers {:?}.", input.display(), workers.pids());
    let report_job = tokio::select! {
        watched = watch(&client, run, list) => watched?,
        never = workers.watch() => match never {},
    };
    let seconds = began.elapsed().as_secs_f64();
    print_result(&client, run, seconds).await?;
    print_where_to_look(service, run, report_job);
    Ok(())
}

/// Waits for the report, showing how far it is; gives the last job.
async fn watch(client: &Client, run: Uuid, list: Uuid) -> anyhow::Result<Uuid> {
    let query = "select r.documents, r.report_job, p.run is not null,
                 (select count(*) from pipeline_documents d where d.run = r.run)
                 from pipeline_runs r left join pipeline_reports p on p.run = r.run
                 where r.run = $1";
    let mut progress = None;
    let mut failures = Failures { run, list, shown: HashSet::new() };
    loop {
        let row = client.query_opt(query, &[&run]).await?;
        let last = row.as_ref().map_or(list, |row| row.get(1));
        let checked = check(client, last).await;
        // What failed on the way there is said first.
        failures.show(client, progress.as_ref()).await?;
        checked?;
        let Some(row) = row else {
            tokio::time::sleep(GLANCE).await;
            continue;
        };
        let (total, report_job): (i32, Uuid) = (row.get(0), row.get(1));
        let done = u64::try_from(row.get::<_, i64>(3))?;
        let progress =
            progress.get_or_insert_with(|| Progress::new(u64::from(total.unsigned_abs())));
        progress.show(done);
        if row.get(2) {
            progress.end();
            return Ok(report_job);
        }
        tokio::time::sleep(GLANCE).await;
    }
}

/// Says once of each execution of a run that failed, which and why.
struct Failures {
    run: Uuid,
    list: Uuid,
    shown: HashSet<(Uuid, i32)>,
}

impl Failures {
    async fn show(&mut self, client: &Client, progress: Option<&Progress>) -> anyhow::Result<()> {
        // The run's jobs have ids from the first one's on: no look at older executions.
        let query = "select e.job_id, e.attempt, j.kind, coalesce(e.error, e.outcome), j.state
                     from rowlock.executions e join rowlock.jobs j on j.id = e.job_id
                     where e.job_id >= $1 and e.outcome in ('failed', 'timed_out')
                     and j.queue = $2 and j.args ->> 'run' = $3 order by e.finished_at";
        let run = self.run.to_string();
        for row in client.query(query, &[&self.list, &QUEUE, &run]).await? {
            let (job, attempt): (Uuid, i32) = (row.get(0), row.get(1));
            if self.shown.insert((job, attempt)) {
                let (kind, error): (String, String) = (row.get(2), row.get(3));
                let state: String = row.get(4);
                let line =
                    format!("{kind} {job} failed ({attempt} of {ATTEMPTS}): {error}; {state}");
                match progress.and_then(|progress| progress.bar.as_ref()) {
                    Some(bar) => bar.suspend(|| eprintln!("{line}")),
                    None => eprintln!("{line}"),
                }
            }
        }
        Ok(())
    }
}

/// Fails when the job will not complete any more.
async fn check(client: &Client, job: Uuid) -> anyhow::Result<()> {
    let query = "select state, reason from rowlock.job_details where id = $1";
    let row = client.query_opt(query, &[&job]).await?.context("the job has gone")?;
    let (state, reason): (String, Option<String>) = (row.get(0), row.get(1));
    if matches!(state.as_str(), "cancelled" | "discarded") {
        bail!("job {job} was {state}: {}", reason.unwrap_or_default());
    }
    Ok(())
}

/// A bar at a terminal, else a line now and then.
struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    next_line: u64,
}

impl Progress {
    fn new(total: u64) -> Self {
        let style = "{bar:40} {pos}/{len} documents, {elapsed}";
        let style = ProgressStyle::with_template(style).expect("the template is constant");
        let bar = std::io::stderr().is_terminal();
        let bar = bar.then(|| ProgressBar::new(total).with_style(style));
        Progress { bar, total, next_line: 0 }
    }

    fn show(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.next_line <= done {
            println!("{done} of {} documents", self.total);
            self.next_line = done + (self.total * LINE_PERCENT).div_ceil(100).max(1);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            // Stays where it is: documents that failed are missing.
            bar.abandon();
        }
    }
}

async fn print_result(client: &Client, run: Uuid, seconds: f64) -> anyhow::Result<()> {
    let query = "select (select count(*) from pipeline_documents where run = $1),
                 (select count(distinct (sort, entity)) from pipeline_entities where run = $1),
                 (select count(*) from pipeline_relations where run = $1),
                 (select report -> 'strongest' from pipeline_reports where run = $1),
                 (select (report ->> 'failed_documents')::bigint
                  from pipeline_reports where run = $1)";
    let row = client.query_one(query, &[&run]).await?;
    let (documents, entities, relations): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    let strongest: Vec<Relation> = serde_json::from_value(row.get(3))?;
    println!(
        "\n{documents} documents, {entities} entities, {relations} relationships, \
         in {seconds:.1} s. The strongest:\n"
    );
    println!("{:>8}  {:>9}", "strength", "documents");
    for Relation { first, second, documents, strength } in strongest {
        println!("{strength:>8.1}  {documents:>9}  {first} - {second}");
    }
    let failed: i64 = row.get(4);
    if 0 < failed {
        println!("\nDocuments that failed and are missing here: {failed}; why is said above.");
    }
    Ok(())
}

fn print_where_to_look(service: &Service, run: Uuid, report_job: Uuid) {
    let (port, url) = (service.port, &service.database_url);
    let rowlock = service.program.display();
    let strongest = format!(
        "select first, second, documents, strength from pipeline_relations where run = '{run}' \
         order by strength desc limit 20"
    );
    let psql = if service.embedded {
        format!("{rowlock} postgres{} psql", service.data_dir_flag())
    } else {
        format!("psql '{url}'")
    };
    println!(
        "\nWhere to look:\n\
         \n  curl -s http://127.0.0.1:{port}/v1/jobs/{report_job}\
         \n  curl -s 'http://127.0.0.1:{port}/v1/jobs?queue={QUEUE}&limit=5'\
         \n  curl -s http://127.0.0.1:{port}/metrics\
         \n  {psql} -c \"{strongest}\"\
         \n  {psql} -c 'select * from rowlock.outcome_stats'\
         \n\nAny program is a worker:\n\
         \n  {rowlock} enqueue count '{{\"text\":\"hello\"}}' --queue mine --database-url '{url}'\
         \n  {rowlock} work mine --database-url '{url}' -- wc -c"
    );
}
