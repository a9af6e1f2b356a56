//! Updates that stay HOT: a change of state writes no index entry, and leaves none to be vacuumed.

use std::time::Duration;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{acquire, complete, fail, finish, release, run, value};
use crate::harness::{Db, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// Jobs enqueued at each batch size.
const JOBS: usize = 4_000;

/// A transaction open anywhere in the cluster keeps old versions on their pages, and so does a
/// snapshot in this database, though it has drawn no transaction id: autovacuum's ANALYZE of a
/// table beside ours holds one.
async fn older_transactions_end(client: &Client) {
    let drawn: i64 = value(client, "select pg_current_xact_id()::text::bigint").await;
    let gone = format!(
        "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint > {drawn}
            and not exists (
                select from pg_stat_activity a
                where a.datname = current_database() and a.pid <> pg_backend_pid()
                  and a.backend_xmin is not null
            )"
    );
    wait_until("older transactions end", DEADLINE, || async { value(client, &gone).await }).await;
}

/// Enqueue, acquire and one of the ends: of ten batches seven complete, one each fails, is snoozed
/// and is given back.
async fn flow(client: &Client, batch: usize, workflow: bool) {
    let jobs = format!(
        "(select jsonb_agg(jsonb_build_object('kind', 'k',
            'args', jsonb_build_object('path', repeat('x', 40)))) from generate_series(1, {batch}))"
    );
    let call = if workflow {
        format!("jsonb_build_object('workflow', 'n', 'jobs', {jobs})")
    } else {
        jobs
    };
    let fill = format!("select count(*) from enqueue_many({call})");
    let until = format!(", array_fill(clock_timestamp() + interval '1 day', array[{batch}])");
    for round in 0..JOBS / batch {
        run(client, &fill).await;
        let got = acquire(client, Uuid::new_v4(), i32::try_from(batch).expect("few")).await;
        older_transactions_end(client).await;
        let (verdicts, word) = match round % 10 {
            7 => (fail(client, &got).await, "retrying"),
            8 => (finish(client, "snooze", &got, &until).await, "snoozed"),
            9 => (release(client, &got).await, "released"),
            _ => (complete(client, &got).await, "completed"),
        };
        assert_eq!(verdicts, vec![word; batch]);
        older_transactions_end(client).await;
    }
}

/// Of so many updates of a table the share that was HOT.
async fn hot_share(db: &Db, table: &str, updates: usize) -> f64 {
    // Counts arrive with the end of the session that made them, or after a while.
    let client = db.connect().await;
    let counts = format!(
        "select case when n_tup_upd >= {updates} then n_tup_hot_upd::float8 / n_tup_upd else -1 end
         from pg_stat_user_tables where relname = '{table}'"
    );
    wait_until("counts arrive", DEADLINE, || async { 0.0 <= value::<f64>(&client, &counts).await })
        .await;
    value(&client, &counts).await
}

async fn stays_hot(batch: usize, workflow: bool) {
    let db = Db::new().await;
    let client = db.connect().await;
    let off = "alter table jobs set (autovacuum_enabled = off);
        alter table executions set (autovacuum_enabled = off)";
    run(&client, off).await;
    flow(&client, batch, workflow).await;
    drop(client);
    let jobs = hot_share(&db, "jobs", 2 * JOBS).await;
    let executions = hot_share(&db, "executions", JOBS).await;
    assert!(0.99 <= jobs && 0.99 <= executions, "HOT: jobs {jobs}, executions {executions}");
    db.finish().await;
}

#[tokio::test]
async fn single_jobs_are_updated_in_place() {
    stays_hot(1, false).await;
}

#[tokio::test]
async fn batches_of_a_hundred_are_updated_in_place() {
    stays_hot(100, false).await;
}

#[tokio::test]
async fn batches_of_five_hundred_are_updated_in_place() {
    stays_hot(500, false).await;
}

#[tokio::test]
async fn the_jobs_of_workflows_are_updated_in_place() {
    stays_hot(100, true).await;
}
