//! The SQL functions, called as any client calls them. Arguments are SQL text: this is a test.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::error::DbError;
use tokio_postgres::types::FromSqlOwned;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

/// Longer than any statement of a test should take; one that waits for ever fails by this.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(60);

/// What an acquire gave: the right to finish one execution.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Execution {
    pub(crate) worker: Uuid,
    pub(crate) job_id: Uuid,
    pub(crate) attempt: i32,
    pub(crate) token: Uuid,
    pub(crate) kind: String,
    pub(crate) priority: i32,
}

/// One row of what `enqueue_many` answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Enqueued {
    pub(crate) reference: Option<String>,
    pub(crate) job_id: Uuid,
    pub(crate) created: bool,
}

/// Runs statements and expects them to succeed.
#[track_caller]
pub(crate) fn run(client: &Client, sql: &str) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        if let Err(error) = in_time(sql, client.batch_execute(sql)).await {
            panic!("{sql:.500}, at {caller}: {error:?}");
        }
    }
}

/// The first column of every row.
#[track_caller]
pub(crate) fn column<T: FromSqlOwned>(client: &Client, sql: &str) -> impl Future<Output = Vec<T>> {
    let caller = std::panic::Location::caller();
    async move {
        match in_time(sql, client.query(sql, &[])).await {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error) => panic!("{sql:.500}, at {caller}: {error:?}"),
        }
    }
}

/// The only column of the only row.
#[track_caller]
pub(crate) fn value<T: FromSqlOwned>(client: &Client, sql: &str) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match in_time(sql, client.query_one(sql, &[])).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("{sql:.500}, at {caller}: {error:?}"),
        }
    }
}

/// Runs a statement that must be refused with this SQLSTATE, and gives the error.
#[track_caller]
pub(crate) fn refused(client: &Client, code: &str, sql: &str) -> impl Future<Output = DbError> {
    let caller = std::panic::Location::caller();
    async move {
        let error = match in_time(sql, client.batch_execute(sql)).await {
            Ok(()) => panic!("{sql:.500}, at {caller}: was not refused"),
            Err(error) => error.as_db_error().expect("the server answers").clone(),
        };
        assert_eq!(error.code().code(), code, "{sql:.500}, at {caller}: {error:?}");
        if code.starts_with("RL") {
            let detail = error.detail().expect("a refusal has a DETAIL");
            assert!(detail.chars().count() <= 200, "at {caller}: DETAIL {detail}");
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "at {caller}: no HINT");
        }
        error
    }
}

async fn in_time<T>(
    sql: &str,
    statement: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let done = tokio::time::timeout(STATEMENT_DEADLINE, statement).await;
    done.unwrap_or_else(|_| panic!("{sql:.500}: still running after {STATEMENT_DEADLINE:?}"))
}

/// Pages that the statement reads, its functions' too.
pub(crate) async fn pages(client: &Client, sql: &str) -> i64 {
    let plan: Value =
        value(client, &format!("explain (analyze, buffers, format json) {sql}")).await;
    let top = &plan[0]["Plan"];
    let blocks = |name: &str| top[name].as_i64().expect("a count");
    blocks("Shared Hit Blocks") + blocks("Shared Read Blocks")
}

/// The backend's process id, for `blocked_on_lock`.
pub(crate) async fn pid(client: &Client) -> i32 {
    value(client, "select pg_backend_pid()").await
}

/// Ids as an SQL literal of type `uuid[]`.
pub(crate) fn ids(ids: &[Uuid]) -> String {
    let list: Vec<String> = ids.iter().map(Uuid::to_string).collect();
    format!("'{{{}}}'::uuid[]", list.join(","))
}

/// `enqueue(...)` with these arguments, as `"'kind', priority => 0"`.
#[track_caller]
pub(crate) fn enqueue(client: &Client, arguments: &str) -> impl Future<Output = Uuid> {
    let call = format!("select enqueue({arguments})");
    let caller = std::panic::Location::caller();
    async move {
        match in_time(&call, client.query_one(&call, &[])).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("{call:.500}, at {caller}: {error:?}"),
        }
    }
}

/// `enqueue_many` of a JSON array.
pub(crate) async fn enqueue_many(client: &Client, jobs: &Value) -> Vec<Enqueued> {
    let rows = client.query("select * from enqueue_many($1)", &[jobs]).await.expect("enqueued");
    let enqueued = rows.iter().map(|row| Enqueued {
        reference: row.get(0),
        job_id: row.get(1),
        created: row.get(2),
    });
    enqueued.collect()
}

/// `acquire` for this worker from the queue `default`.
pub(crate) async fn acquire(client: &Client, worker: Uuid, max_jobs: i32) -> Vec<Execution> {
    acquire_with(client, worker, &format!("'{{default}}', {max_jobs}")).await
}

/// `acquire` with these arguments after the worker.
#[track_caller]
pub(crate) fn acquire_with(
    client: &Client,
    worker: Uuid,
    arguments: &str,
) -> impl Future<Output = Vec<Execution>> {
    let call = format!("select * from acquire('{worker}', {arguments})");
    let caller = std::panic::Location::caller();
    async move {
        let rows = match in_time(&call, client.query(&call, &[])).await {
            Ok(rows) => rows,
            Err(error) => panic!("{call:.500}, at {caller}: {error:?}"),
        };
        let executions = rows.iter().map(|row| Execution {
            worker,
            job_id: row.get("job_id"),
            attempt: row.get("attempt"),
            token: row.get("token"),
            kind: row.get("kind"),
            priority: row.get("priority"),
        });
        executions.collect()
    }
}

/// Acquires until exactly this job comes, for a worker of its own; whatever else is ready stays so.
pub(crate) async fn acquire_job(client: &Client, job_id: Uuid) -> Execution {
    let worker = Uuid::new_v4();
    let all = acquire(client, worker, 1000).await;
    let (mine, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|execution| execution.job_id == job_id);
    if !others.is_empty() {
        release(client, &others).await;
    }
    mine.into_iter().next().unwrap_or_else(|| panic!("{job_id} is not ready"))
}

/// The text of a call of a finishing verb; `more` is further arguments, with a leading comma.
/// All executions are of one worker.
pub(crate) fn finishing(verb: &str, executions: &[Execution], more: &str) -> String {
    let worker = executions.first().map_or_else(Uuid::nil, |execution| execution.worker);
    let jobs: Vec<Uuid> = executions.iter().map(|execution| execution.job_id).collect();
    let tokens: Vec<Uuid> = executions.iter().map(|execution| execution.token).collect();
    let attempts: Vec<String> =
        executions.iter().map(|execution| execution.attempt.to_string()).collect();
    format!(
        "select verdict from {verb}('{worker}', {}, '{{{}}}'::int[], {}{more})",
        ids(&jobs),
        attempts.join(","),
        ids(&tokens),
    )
}

/// Calls a finishing verb or `heartbeat` and gives the verdicts in order.
#[track_caller]
pub(crate) fn finish(
    client: &Client,
    verb: &str,
    executions: &[Execution],
    more: &str,
) -> impl Future<Output = Vec<String>> {
    let call = finishing(verb, executions, more);
    let caller = std::panic::Location::caller();
    async move {
        match in_time(&call, client.query(&call, &[])).await {
            Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
            Err(error) => panic!("{call:.500}, at {caller}: {error:?}"),
        }
    }
}

pub(crate) async fn complete(client: &Client, executions: &[Execution]) -> Vec<String> {
    finish(client, "complete", executions, "").await
}

pub(crate) async fn fail(client: &Client, executions: &[Execution]) -> Vec<String> {
    finish(client, "fail", executions, "").await
}

/// Fails for good.
pub(crate) async fn discard(client: &Client, executions: &[Execution]) -> Vec<String> {
    let discards = vec!["true"; executions.len()].join(",");
    finish(client, "fail", executions, &format!(", discard => '{{{discards}}}'")).await
}

pub(crate) async fn release(client: &Client, executions: &[Execution]) -> Vec<String> {
    finish(client, "release", executions, "").await
}

pub(crate) async fn cancel(client: &Client, jobs: &[Uuid]) -> Vec<String> {
    column(client, &format!("select verdict from cancel({})", ids(jobs))).await
}

pub(crate) async fn retry(client: &Client, jobs: &[Uuid]) -> Vec<String> {
    column(client, &format!("select verdict from retry({})", ids(jobs))).await
}

/// The job's state, or `gone`.
pub(crate) async fn state(client: &Client, job_id: Uuid) -> String {
    states(client, &[job_id]).await.remove(0)
}

/// The states of jobs in the order given.
pub(crate) async fn states(client: &Client, jobs: &[Uuid]) -> Vec<String> {
    let sql = format!(
        "select coalesce(j.state, 'gone') from unnest({}) with ordinality g(id, n)
         left join jobs j on j.id = g.id order by g.n",
        ids(jobs)
    );
    column(client, &sql).await
}

/// Acquires and completes until nothing is ready in `default`; gives how many completed.
pub(crate) async fn drain(client: &Client) -> usize {
    let worker = Uuid::new_v4();
    let mut drained = 0;
    loop {
        let executions = acquire(client, worker, 500).await;
        if executions.is_empty() {
            return drained;
        }
        let verdicts = complete(client, &executions).await;
        drained += verdicts.iter().filter(|verdict| *verdict == "completed").count();
    }
}

/// Enqueues a graph; the ids of its jobs.
pub(crate) async fn graph(client: &Client, jobs: &Value) -> Vec<Uuid> {
    enqueue_many(client, jobs).await.iter().map(|job| job.job_id).collect()
}

/// Acquires and completes one job.
pub(crate) async fn complete_job(client: &Client, job: Uuid) {
    assert_eq!(complete(client, &[acquire_job(client, job).await]).await, ["completed"]);
}

/// Acquires and discards one job.
pub(crate) async fn discard_job(client: &Client, job: Uuid) {
    assert_eq!(discard(client, &[acquire_job(client, job).await]).await, ["discarded"]);
}
