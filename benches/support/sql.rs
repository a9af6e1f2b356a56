//! A bare client over the SQL functions: what the library is measured against.

use std::time::Duration;

use uuid::Uuid;

use super::database::{Bench, QUEUE, connect};

/// Connections of the bare client: two saturate two cores.
const CONNECTIONS: usize = 2;

/// Drains the queue by acquire and complete in batches of so many, from two connections; jobs
/// acquired.
pub(crate) async fn drain_by_sql(bench: &Bench, batch: i32) -> usize {
    let mut loops = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = connect(&bench.url).await;
        loops.spawn(async move {
            let patience = Duration::from_secs(120);
            tokio::time::timeout(patience, drain(&client, batch)).await.expect("it ends in time")
        });
    }
    loops.join_all().await.into_iter().sum()
}

async fn drain(client: &tokio_postgres::Client, batch: i32) -> usize {
    client.batch_execute("set search_path = rowlock, pg_temp").await.expect("search_path");
    // What the library asks for too, so that Postgres has the same to send.
    let acquire = "select job_id, attempt, token, queue, kind, priority, args, timeout, run_at,
        created_at from acquire($1, $2, $3)";
    let acquire = client.prepare(acquire).await.expect("prepares");
    let complete = "select verdict from complete($1, $2, $3, $4)";
    let complete = client.prepare(complete).await.expect("prepares");
    let (worker, queues, mut done) = (Uuid::now_v7(), vec![QUEUE], 0);
    loop {
        let jobs = client.query(&acquire, &[&worker, &queues, &batch]).await.expect("acquires");
        if jobs.is_empty() {
            return done;
        }
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.get(0)).collect();
        let attempts: Vec<i32> = jobs.iter().map(|job| job.get(1)).collect();
        let tokens: Vec<Uuid> = jobs.iter().map(|job| job.get(2)).collect();
        let verdicts = client.query(&complete, &[&worker, &ids, &attempts, &tokens]).await;
        let verdicts = verdicts.expect("completes");
        assert!(verdicts.iter().all(|row| row.get::<_, &str>(0) == "completed"), "all completed");
        done += jobs.len();
    }
}
