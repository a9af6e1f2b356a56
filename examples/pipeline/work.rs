//! The handlers. Each writes its rows and completes its job in one transaction, so that a process
//! that dies anywhere leaves either both or neither.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rowlock::config::Settings;
use rowlock::model::OnParentFailure;
use rowlock::shutdown::Shutdown;
use rowlock::{Client as Rowlock, Job, NewJob, Outcome, Worker, telemetry};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::runtime::Handle;
use tokio_postgres::Transaction;
use uuid::Uuid;

use crate::{corpus, extract, tables};

/// The queue of all the pipeline's jobs.
pub(crate) const QUEUE: &str = "pipeline";

/// Short, so that the jobs of a killed worker are soon somebody else's.
const LEASE: Duration = Duration::from_secs(5);
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_REPORTED: i64 = 15;
/// What fails three times does not mend itself while somebody watches.
pub(crate) const ATTEMPTS: i32 = 3;
/// Unreadable documents that are named.
const MOST_NAMED: usize = 10;

/// Args of `list`, `relate` and `report`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) run: Uuid,
    pub(crate) input: PathBuf,
}

/// Args of `extract`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Document {
    run: Uuid,
    path: PathBuf,
}

/// Works until a signal.
pub(crate) async fn run(database_url: &str, pace: Duration) -> anyhow::Result<()> {
    let mut log = Settings::default().log;
    log.filter = "warn".to_owned();
    telemetry::init(&log)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    tables::create(&mut tables::connect(database_url).await?).await?;
    let url = || database_url.to_owned();
    let (for_list, for_extract, for_relate, for_report) = (url(), url(), url(), url());
    Worker::new(database_url)
        .lease(LEASE)
        .queue(QUEUE, 2)
        .on("list", move |job| list(job, for_list.clone()))
        .on_blocking("extract", move |job| extract_one(&job, &for_extract, pace))
        .on("relate", move |job| relate(job, for_relate.clone()))
        .on("report", move |job| report(job, for_report.clone()))
        .run(&shutdown)
        .await?;
    shutdown.drain(LEASE).await;
    Ok(())
}

/// Enqueues the graph: all of it and this job's completion, or nothing.
async fn list(job: Job, url: String) -> anyhow::Result<Outcome> {
    let args: Run = job.args()?;
    let corpus = corpus::list(&args.input)?;
    say_what_is_missing(&corpus);
    let documents = &corpus.documents;
    // A document that fails is missing from the result, no more.
    let mut relate = NewJob::new("relate", &args)?
        .queue(QUEUE)
        .reference("relate")
        .max_attempts(ATTEMPTS)
        .on_parent_failure(OnParentFailure::Continue);
    let mut jobs = Vec::with_capacity(documents.len() + 2);
    for (n, path) in documents.iter().enumerate() {
        let document = Document { run: args.run, path: path.clone() };
        let name = format!("document {n}");
        relate = relate.depends_on(name.as_str());
        let extract = NewJob::new("extract", &document)?.queue(QUEUE).reference(name);
        jobs.push(extract.timeout(DOCUMENT_TIMEOUT).max_attempts(ATTEMPTS));
    }
    jobs.push(relate);
    let report = NewJob::new("report", &args)?.queue(QUEUE).max_attempts(ATTEMPTS);
    jobs.push(report.depends_on("relate"));

    let mut client = tables::connect(&url).await?;
    let transaction = client.transaction().await?;
    let answers = Rowlock::default().enqueue(&transaction, &jobs).await?;
    let report_job = answers.last().context("every job is answered")?.job_id;
    let input = args.input.to_string_lossy();
    tables::begin_run(&transaction, args.run, &input, documents.len(), report_job).await?;
    let result = json!({"documents": documents.len(), "unreadable": corpus.unreadable.len(),
                        "left_out": corpus.left_out});
    complete(&job, transaction, &result).await
}

fn say_what_is_missing(corpus: &corpus::Corpus) {
    for (path, error) in corpus.unreadable.iter().take(MOST_NAMED) {
        eprintln!("skipped, since it cannot be read: {} ({error})", path.display());
    }
    if MOST_NAMED < corpus.unreadable.len() {
        eprintln!("skipped as well: {} more", corpus.unreadable.len() - MOST_NAMED);
    }
    if 0 < corpus.left_out {
        let read = corpus.documents.len();
        eprintln!("{} documents are left out: one run reads {read}", corpus.left_out);
    }
}

/// Runs on a thread of its own: it computes.
fn extract_one(job: &Job, url: &str, pace: Duration) -> anyhow::Result<Outcome> {
    let args: Document = job.args()?;
    let bytes = std::fs::read(&args.path).with_context(|| args.path.display().to_string())?;
    let entities = extract::extract(&String::from_utf8_lossy(&bytes));
    std::thread::sleep(pace);
    Handle::current().block_on(async {
        let mut client = tables::connect(url).await?;
        let transaction = client.transaction().await?;
        let document = args.path.to_string_lossy();
        tables::write_entities(&transaction, args.run, &document, &entities).await?;
        complete(job, transaction, &json!({"entities": entities.len()})).await
    })
}

async fn relate(job: Job, url: String) -> anyhow::Result<Outcome> {
    let args: Run = job.args()?;
    let mut client = tables::connect(&url).await?;
    let transaction = client.transaction().await?;
    let relations = tables::relate(&transaction, args.run).await?;
    complete(&job, transaction, &json!({"relations": relations})).await
}

async fn report(job: Job, url: String) -> anyhow::Result<Outcome> {
    let args: Run = job.args()?;
    let mut client = tables::connect(&url).await?;
    let transaction = client.transaction().await?;
    let strongest = tables::strongest(&transaction, args.run, MOST_REPORTED).await?;
    let failed = tables::failed_documents(&transaction, args.run).await?;
    let report = json!({ "strongest": strongest, "failed_documents": failed });
    tables::write_report(&transaction, args.run, &report).await?;
    complete(&job, transaction, &report).await
}

/// Completes the job in the transaction that holds its writes; a cancelled job's are dropped.
async fn complete(
    job: &Job,
    transaction: Transaction<'_>,
    result: &serde_json::Value,
) -> anyhow::Result<Outcome> {
    let result = serde_json::value::to_raw_value(result)?;
    if job.complete_in(&transaction, Some(result)).await? {
        transaction.commit().await?;
        Ok(Outcome::Complete)
    } else {
        transaction.rollback().await?;
        anyhow::bail!("cancelled")
    }
}
