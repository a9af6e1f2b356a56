//! Sessions that acquire and complete bare, and how long each completing call took.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Bench, QUEUE, connect, millis, percentile};

/// What it took to complete jobs.
pub(super) struct Finished {
    pub(super) took: Duration,
    /// Each completing call, in milliseconds.
    pub(super) calls: Vec<f64>,
}

impl Finished {
    pub(super) fn ms(&self) -> f64 {
        millis(self.took)
    }
}

/// What stands beside a figure.
pub(super) fn beside(size: usize, completers: usize, calls: Vec<f64>) -> Value {
    json!({
        "jobs": size, "completers": completers,
        "call_p50": percentile(calls.clone(), 0.5), "call_p99": percentile(calls, 0.99),
    })
}

/// Acquires and completes from so many sessions until so many jobs are done. Nothing else may be
/// in the queue once they are, or it is counted too.
pub(super) async fn finish(bench: &Bench, completers: usize, batch: i32, jobs: usize) -> Finished {
    let (done, together) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(completers + 1)));
    let mut loops = JoinSet::new();
    for _ in 0..completers {
        let client = connect(&bench.url).await;
        client.batch_execute("set search_path = rowlock, pg_temp").await.expect("search_path");
        let (done, together) = (done.clone(), together.clone());
        loops.spawn(async move {
            together.wait().await;
            complete_until(&client, batch, &done, jobs).await
        });
    }
    together.wait().await;
    let started = Instant::now();
    let calls = loops.join_all().await.into_iter().flatten().collect();
    Finished { took: started.elapsed(), calls }
}

async fn complete_until(
    client: &tokio_postgres::Client,
    batch: i32,
    done: &AtomicUsize,
    jobs: usize,
) -> Vec<f64> {
    let acquire = "select job_id, attempt, token from acquire($1, $2, $3)";
    let acquire = client.prepare(acquire).await.expect("prepares");
    let complete = "select verdict from complete($1, $2, $3, $4)";
    let complete = client.prepare(complete).await.expect("prepares");
    let (worker, mut calls) = (Uuid::now_v7(), Vec::new());
    while done.load(Ordering::Relaxed) < jobs {
        let got = client.query(&acquire, &[&worker, &vec![QUEUE], &batch]).await.expect("acquires");
        if got.is_empty() {
            // Nothing is ready until another session completes what it has.
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let ids: Vec<Uuid> = got.iter().map(|job| job.get(0)).collect();
        let attempts: Vec<i32> = got.iter().map(|job| job.get(1)).collect();
        let tokens: Vec<Uuid> = got.iter().map(|job| job.get(2)).collect();
        let began = Instant::now();
        let verdicts = client.query(&complete, &[&worker, &ids, &attempts, &tokens]).await;
        calls.push(millis(began.elapsed()));
        let verdicts = verdicts.expect("completes");
        assert!(verdicts.iter().all(|row| row.get::<_, &str>(0) == "completed"), "all completed");
        done.fetch_add(got.len(), Ordering::Relaxed);
    }
    calls
}

/// Fails the only ready job for good; milliseconds.
pub(super) async fn discard(bench: &Bench) -> f64 {
    let client = &bench.client;
    let worker = Uuid::now_v7();
    let acquire = "select job_id, attempt, token from acquire($1, $2, 1)";
    let got = client.query_one(acquire, &[&worker, &vec![QUEUE]]).await.expect("acquires one");
    let (job, attempt, token): (Uuid, i32, Uuid) = (got.get(0), got.get(1), got.get(2));
    let fail = "select verdict from fail(
        $1, array[$2::uuid], array[$3::int], array[$4::uuid], discard => '{true}')";
    let fail = client.prepare(fail).await.expect("prepares");
    let began = Instant::now();
    let ended = client.query_one(&fail, &[&worker, &job, &attempt, &token]).await.expect("fails");
    let took = millis(began.elapsed());
    assert_eq!(ended.get::<_, &str>(0), "discarded");
    took
}
