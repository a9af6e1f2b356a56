//! Mutants that show only in one moment: two sessions, step by step, so that it is that moment.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::database::connect;

const DEADLINE: Duration = Duration::from_secs(20);

type Verdict = Result<Option<&'static str>>;

async fn session(url: &str) -> Result<Client> {
    let client = connect(url, "spec").await?;
    client.batch_execute("set search_path = rowlock").await?;
    Ok(client)
}

/// Asks until the answer is true.
async fn wait(client: &Client, sql: &str) -> Result<()> {
    let end = Instant::now() + DEADLINE;
    while !client.query_one(sql, &[]).await?.get::<_, bool>(0) {
        ensure!(Instant::now() < end, "not in time: {sql}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn enqueue(client: &Client, parent: Option<Uuid>) -> Result<Uuid> {
    let parents: Vec<Uuid> = parent.into_iter().collect();
    let sql = "select enqueue('work', depends_on => $1)";
    Ok(client.query_one(sql, &[&parents]).await?.get(0))
}

async fn state(client: &Client, job: Uuid) -> Result<String> {
    Ok(client.query_one("select state from jobs where id = $1", &[&job]).await?.get(0))
}

/// Finishes an execution of a worker with a statement that takes worker, ids, attempts, tokens.
async fn finish(client: &Client, sql: &str, worker: Uuid, job: Uuid) -> Result<String> {
    let row = client
        .query_one("select token, attempt from executions where job_id = $1", &[&job])
        .await?;
    let (token, attempt): (Uuid, i32) = (row.get(0), row.get(1));
    let (jobs, attempts, tokens) = ([job], [attempt], [token]);
    let (jobs, attempts, tokens) = (jobs.as_slice(), attempts.as_slice(), tokens.as_slice());
    Ok(client.query_one(sql, &[&worker, &jobs, &attempts, &tokens]).await?.get(0))
}

const COMPLETE: &str = "select verdict from complete($1, $2, $3, $4)";
const DISCARD: &str = "select verdict from fail($1, $2, $3, $4, null, null, array[true])";

async fn acquire(client: &Client, worker: Uuid, count: i32, lease: &str) -> Result<Vec<Uuid>> {
    let sql = "select job_id from acquire($1, '{default}', $2, lease => $3::text::interval)";
    let rows = client.query(sql, &[&worker, &count, &lease]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// M4: the worker completes between what rescue reads and what it writes.
pub(super) async fn rescue_and_complete(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    let worker = Uuid::new_v4();
    let job = enqueue(&one, None).await?;
    acquire(&one, worker, 1, "1 second").await?;
    wait(&one, "select bool_and(lease_ends_at < clock_timestamp()) from workers").await?;
    let rescuing = tokio::spawn(async move { other.query("select * from rescue(10)", &[]).await });
    wait(
        &one,
        "select count(*) > 0 from pg_stat_activity
         where wait_event = 'PgSleep' and query like '%rescue%' and pid <> pg_backend_pid()",
    )
    .await?;
    let verdict = finish(&one, COMPLETE, worker, job).await?;
    rescuing.await??;
    let state = state(&one, job).await?;
    let told_well = verdict == "completed" && state != "completed";
    Ok(told_well.then_some("a completed job was made ready by rescue"))
}

/// M7: a parent, with a child already, completes in an open transaction; another child comes.
pub(super) async fn attach_and_complete(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    let worker = Uuid::new_v4();
    let parent = enqueue(&one, None).await?;
    enqueue(&one, Some(parent)).await?;
    acquire(&one, worker, 1, "30 seconds").await?;
    one.batch_execute("begin").await?;
    finish(&one, COMPLETE, worker, parent).await?;
    let child = enqueue(&other, Some(parent)).await?;
    one.batch_execute("commit").await?;
    other.batch_execute("select * from maintain()").await?;
    let is_stranded = state(&other, child).await? == "blocked";
    Ok(is_stranded.then_some("a child waits for a parent that has completed"))
}

/// M8: two parents of the same children complete at the same moment.
pub(super) async fn cascades_at_once(url: &str) -> Verdict {
    let sessions = [session(url).await?, session(url).await?];
    for _ in 0..5 {
        let worker = Uuid::new_v4();
        let graph = "select array_agg(job_id order by ref) from enqueue_many((
            select jsonb_agg(x.job) from (
                select jsonb_build_object('ref', p, 'kind', 'work') as job
                from unnest('{a,b}'::text[]) p
                union all
                select jsonb_build_object('kind', 'work', 'depends_on', '[\"a\",\"b\"]'::jsonb)
                from generate_series(1, 12)
            ) x)) where ref is not null";
        let parents: Vec<Uuid> = sessions[0].query_one(graph, &[]).await?.get(0);
        let mut held = acquire(&sessions[0], worker, 100, "30 seconds").await?;
        held.retain(|job| !parents.contains(job));
        ensure!(held.len() + 2 >= parents.len(), "the parents are held");
        let ends = tokio::join!(
            finish(&sessions[0], COMPLETE, worker, parents[0]),
            finish(&sessions[1], COMPLETE, worker, parents[1]),
        );
        for end in [ends.0, ends.1] {
            let Err(error) = end else { continue };
            let code = error.downcast_ref::<tokio_postgres::Error>().and_then(|e| e.code());
            if code.is_some_and(|code| code.code() == "40P01") {
                return Ok(Some("two completions deadlock"));
            }
            return Err(error);
        }
        acquire(&sessions[0], worker, 100, "30 seconds").await?;
    }
    Ok(None)
}

/// M9: a row of somebody's own table refers to the parent, in a transaction that is open.
pub(super) async fn attach_beside_a_key(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    let parent = enqueue(&one, None).await?;
    one.batch_execute("create table chaos.notes (job uuid references rowlock.jobs)").await?;
    one.batch_execute("begin").await?;
    one.execute("insert into chaos.notes values ($1)", &[&parent]).await?;
    enqueue(&other, Some(parent)).await?;
    let left: i64 = other.query_one("select count(*) from links", &[]).await?.get(0);
    one.batch_execute("commit").await?;
    Ok((0 < left).then_some("a key of somebody's own table keeps a child from its parent"))
}

/// M16: the reply to an acquire was lost, the lease ended, and the worker goes on.
pub(super) async fn acquire_after_the_lease(url: &str) -> Verdict {
    let one = session(url).await?;
    let worker = Uuid::new_v4();
    let job = enqueue(&one, None).await?;
    acquire(&one, worker, 1, "1 second").await?;
    wait(&one, "select bool_and(lease_ends_at < clock_timestamp()) from workers").await?;
    // What it gets now, if anything, is another execution.
    acquire(&one, worker, 1, "1 second").await?;
    let sql = "select outcome from executions where job_id = $1 and attempt = 1";
    let outcome: Option<String> = one.query_one(sql, &[&job]).await?.get(0);
    let is_revived = outcome.as_deref() != Some("lost");
    Ok(is_revived.then_some("an execution lives on after its lease has ended"))
}

/// While what falls with a discarded job is being written, a child of a falling one comes.
pub(super) async fn attach_to_the_falling(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    let worker = Uuid::new_v4();
    let parent = enqueue(&one, None).await?;
    let child = enqueue(&one, Some(parent)).await?;
    acquire(&one, worker, 1, "30 seconds").await?;
    let discarding = tokio::spawn(async move { finish(&one, DISCARD, worker, parent).await });
    wait(
        &other,
        "select count(*) > 0 from pg_stat_activity
         where wait_event = 'PgSleep' and query like '%fail(%' and pid <> pg_backend_pid()",
    )
    .await?;
    let late = enqueue(&other, Some(child)).await?;
    discarding.await??;
    other.batch_execute("select * from maintain()").await?;
    let is_stranded = state(&other, late).await? == "blocked";
    Ok(is_stranded.then_some("a child waits for a parent that fell"))
}

/// A producer has drawn its number and is open, while others come and go above it.
pub(super) async fn floors_and_a_producer(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    let worker = Uuid::new_v4();
    acquire(&other, worker, 1, "30 seconds").await?;
    one.batch_execute("begin").await?;
    let job = enqueue(&one, None).await?;
    other.batch_execute("select enqueue('work') from generate_series(1, 300)").await?;
    acquire(&other, worker, 1000, "30 seconds").await?;
    other.batch_execute("select * from floors(100)").await?;
    one.batch_execute("commit").await?;
    let got = acquire(&other, worker, 1000, "30 seconds").await?;
    Ok((!got.contains(&job)).then_some("a job lies below the floor of its lane"))
}

/// A job comes while an operator cancels it, who had not found it.
pub(super) async fn cancel_what_comes(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    one.batch_execute("begin").await?;
    let job = enqueue(&one, None).await?;
    let cancelling = tokio::spawn(async move {
        other.query("select verdict from cancel(array[$1::uuid])", &[&job]).await
    });
    let observer = session(url).await?;
    wait(
        &observer,
        "select count(*) > 0 from pg_stat_activity
         where wait_event = 'PgSleep' and query like '%cancel(%' and pid <> pg_backend_pid()",
    )
    .await?;
    one.batch_execute("commit").await?;
    cancelling.await??;
    let broken = "select count(*) from verify() where violations > 0";
    let broken: i64 = observer.query_one(broken, &[]).await?.get(0);
    Ok((0 < broken).then_some("a cancelled job waits in a lane"))
}

/// A call is repeated; its first transaction, which it waits for, also runs the job and ends it.
pub(super) async fn repeat_beside_an_end(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    let id = Uuid::now_v7();
    let call = format!("select enqueue('work', unique_key => 'k', id => '{id}')");
    one.batch_execute(&format!("begin; {call}")).await?;
    let end = "select complete(x.worker, array[x.job_id], array[x.attempt], array[x.token])
         from (select gen_random_uuid() as worker) w
         cross join lateral (
             select w.worker, a.job_id, a.attempt, a.token from acquire(w.worker, '{default}', 1) a
         ) x";
    one.batch_execute(end).await?;
    let repeating = tokio::spawn(async move { other.batch_execute(&call).await });
    let observer = session(url).await?;
    wait(
        &observer,
        "select count(*) > 0 from pg_stat_activity
         where wait_event_type = 'Lock' and query like '%enqueue(%' and pid <> pg_backend_pid()",
    )
    .await?;
    one.batch_execute("commit").await?;
    repeating.await??;
    let kept: i64 = observer.query_one("select count(*) from unique_keys", &[]).await?.get(0);
    Ok((0 < kept).then_some("a job that has ended keeps its key"))
}

/// A producer looked for sleepers, found none, and has not committed; then one lies down.
pub(super) async fn settle_beside_a_producer(url: &str) -> Verdict {
    let (one, other) = (session(url).await?, session(url).await?);
    one.batch_execute("begin").await?;
    enqueue(&one, None).await?;
    let row = other.query_one("select watch('{default}')::text", &[]).await?;
    let since: String = row.get(0);
    let sql = "select settled($1::text::pg_snapshot)";
    let settled: bool = other.query_one(sql, &[&since]).await?.get(0);
    one.batch_execute("commit").await.context("commit")?;
    Ok(settled.then_some("a sleeper waits for a wake-up that nobody will send"))
}
