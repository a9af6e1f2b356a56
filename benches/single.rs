//! One acquire and one complete at a time, from many workers.

use std::time::{Duration, Instant};

use rowlock::store::acquire::AcquireCall;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Bench, Http, QUEUE, RUNS, Report, Rows, Service, noop, rate, scaled, span};

pub(crate) const ROWS: &[&str] = &["single_library", "single_http"];

/// Workers, each with an id of its own.
const WORKERS: usize = 64;

/// More than the window can take.
const JOBS: usize = 150_000;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("single").await;
    if rows.has("single_library") {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let bench = filled().await;
            let (done, took) = by_library(&bench, span(3.0)).await;
            ended(bench, done).await;
            rates.push(rate(done, took));
        }
        report.median("single_library", "jobs/s", rates);
    }
    if rows.has("single_http") {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            let bench = filled().await;
            let service = Service::start(&bench.url).await;
            let (done, took) = by_http(&service.address, span(3.0)).await;
            service.end().await;
            ended(bench, done).await;
            rates.push(rate(done, took));
        }
        report.median("single_http", "jobs/s", rates);
    }
    report.end();
}

async fn filled() -> Bench {
    let bench = Bench::plain().await;
    bench.fill(scaled(JOBS), |_| noop()).await;
    bench
}

async fn ended(bench: Bench, done: usize) {
    let left = scaled(JOBS).checked_sub(done).expect("no job is done twice");
    assert!(left > 0, "the queue was empty before the window ended");
    bench.expect(done, left).await;
    bench.verify().await;
    bench.end().await;
}

/// Jobs done through the engine's verbs, until the queue is empty or the window over, and how long
/// that took.
pub(crate) async fn by_library(bench: &Bench, window: Duration) -> (usize, Duration) {
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let engine = bench.engine.clone();
        workers.spawn(async move {
            let (worker, mut done) = (Uuid::now_v7(), 0);
            while started.elapsed() < window {
                let call = AcquireCall::new(worker, vec![QUEUE.to_owned()]);
                let jobs = engine.acquire(call).await.expect("acquires");
                let [job] = &jobs[..] else { break };
                let entries = vec![(job.execution, None)];
                let verdicts = engine.complete(worker, entries).await.expect("completes");
                assert_eq!(verdicts[0].as_str(), "completed");
                done += 1;
            }
            done
        });
    }
    (workers.join_all().await.into_iter().sum(), started.elapsed())
}

async fn by_http(address: &str, window: Duration) -> (usize, Duration) {
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let mut http = Http::connect(address).await;
        workers.spawn(async move {
            let (worker, mut done) = (Uuid::now_v7(), 0);
            let acquire = json!({ "worker": worker, "queues": [QUEUE] }).to_string();
            while started.elapsed() < window {
                let answer = http.post("/v1/acquire", &acquire).await;
                let Some(job) = answer["jobs"].get(0) else { break };
                let complete = json!({ "worker": worker, "executions": [{
                    "job_id": job["job_id"], "attempt": job["attempt"], "token": job["token"] }]});
                let answer =
                    http.post("/v1/executions/complete", &complete.to_string()).await.to_string();
                assert!(answer.contains("\"completed\""), "{answer}");
                done += 1;
            }
            done
        });
    }
    (workers.join_all().await.into_iter().sum(), started.elapsed())
}
