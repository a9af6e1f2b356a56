//! The worker library, against a real Postgres.

mod client;
mod ends;
mod outcomes;
mod pace;
mod stops;
mod wakes;

use std::time::Duration;

use rowlock::shutdown::Shutdown;
use rowlock::worker::{Error, Worker};
use rowlock::{Client as Rowlock, NewJob};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{Db, wait_until};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A worker that runs in this process.
pub(crate) struct Running {
    pub(crate) shutdown: Shutdown,
    task: JoinHandle<Result<(), Error>>,
}

/// A worker that looks often, so that tests need no wake-ups.
pub(crate) fn worker(db: &Db) -> Worker {
    worker_at(&db.url())
}

/// The same, with this connection string.
pub(crate) fn worker_at(url: &str) -> Worker {
    Worker::new(url).poll(Duration::from_millis(50)).stop_grace(Duration::from_millis(200))
}

pub(crate) fn start(worker: Worker) -> Running {
    let shutdown = Shutdown::new();
    let own = shutdown.clone();
    let task = tokio::spawn(async move { worker.run(&own).await });
    Running { shutdown, task }
}

impl Running {
    /// Stops it, and fails the test when it does not come down.
    pub(crate) async fn stop(self) {
        self.shutdown.stop();
        let ended = tokio::time::timeout(DEADLINE, self.task).await.expect("the worker ends");
        ended.expect("the worker does not panic").expect("the worker ends well");
        assert!(self.shutdown.drain(DEADLINE).await, "its tasks end");
    }
}

pub(crate) async fn enqueue(client: &Client, job: NewJob) -> Uuid {
    Rowlock::default().enqueue_one(client, job).await.expect("the job is taken").job_id
}

pub(crate) fn job(kind: &str) -> NewJob {
    NewJob::new(kind, &serde_json::json!({})).expect("args are JSON")
}

pub(crate) async fn state(client: &Client, id: Uuid) -> String {
    let query = "select state from rowlock.jobs where id = $1";
    client.query_one(query, &[&id]).await.expect("the job is there").get(0)
}

pub(crate) async fn reaches(client: &Client, id: Uuid, wanted: &str) {
    wait_until(&format!("the job is {wanted}"), DEADLINE, || async {
        state(client, id).await == wanted
    })
    .await;
}

/// Outcome, error and result of one execution.
pub(crate) async fn execution(
    client: &Client,
    id: Uuid,
    attempt: i32,
) -> (Option<String>, Option<String>, Option<serde_json::Value>) {
    let query = "select outcome, error, result from rowlock.executions
                 where job_id = $1 and attempt = $2";
    let row = client.query_one(query, &[&id, &attempt]).await.expect("the execution is there");
    (row.get(0), row.get(1), row.get(2))
}

/// Waits until an execution has ended, and gives its outcome and error.
pub(crate) async fn ended(client: &Client, id: Uuid, attempt: i32) -> (String, Option<String>) {
    let query = "select exists (select from rowlock.executions
                 where job_id = $1 and attempt = $2 and finished_at is not null)";
    wait_until("the execution has ended", DEADLINE, || async {
        client.query_one(query, &[&id, &attempt]).await.expect("query").get(0)
    })
    .await;
    let (outcome, error, _) = execution(client, id, attempt).await;
    (outcome.expect("an ended execution has an outcome"), error)
}
