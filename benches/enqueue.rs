//! How fast jobs are created: one a call over HTTP and through the library, and in bulk.

use std::time::{Duration, Instant};

use rowlock::NewJob;
use rowlock::engine::Engine;
use rowlock::model::Parent;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Bench, RUNS, Report, Rows, millis, noop, percentile, rate, scaled, span};
use crate::wrk;

pub(crate) const ROWS: &[&str] = &[
    "enqueue_http",
    "enqueue_library",
    "enqueue_library_10",
    "enqueue_bulk",
    "enqueue_bulk_c4",
    "enqueue_bulk_1kb",
    "enqueue_bulk_with_parent",
];

/// Jobs of one bulk call.
const BULK: usize = 1_000;

/// Connections of the HTTP client.
const CONNECTIONS: usize = 64;

/// Makes a job by its number.
type Make = fn(usize) -> NewJob;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("enqueue").await;
    if rows.has("enqueue_http") {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(wrk::enqueue(CONNECTIONS, span(4.0)).await);
        }
        runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
        let middle = &runs[runs.len() / 2];
        let rates: Vec<f64> = runs.iter().map(|run| run.rate).collect();
        let beside = json!({ "p50_ms": middle.p50_ms, "p99_ms": middle.p99_ms, "runs": rates });
        report.figure("enqueue_http", "jobs/s", middle.rate, beside);
    }
    for (row, tasks) in [("enqueue_library", 64), ("enqueue_library_10", 10)] {
        if rows.has(row) {
            one_a_call(&mut report, row, tasks).await;
        }
    }
    let bulk: [(&str, usize, usize, Make); 4] = [
        ("enqueue_bulk", 1, 100_000, |_| noop()),
        ("enqueue_bulk_c4", 4, 200_000, |_| noop()),
        ("enqueue_bulk_1kb", 1, 50_000, one_kilobyte),
        ("enqueue_bulk_with_parent", 1, 50_000, with_parent),
    ];
    for (row, callers, jobs, job) in bulk.into_iter().filter(|row| rows.has(row.0)) {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            rates.push(in_bulk(callers, scaled(jobs), job).await);
        }
        report.median(row, "jobs/s", rates);
    }
    report.end();
}

/// So many tasks that each enqueue one job at a time.
async fn one_a_call(report: &mut Report, row: &str, tasks: usize) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        let latencies = by_tasks(&bench.engine, tasks, span(3.0)).await;
        assert_eq!(bench.ready().await, latencies.1.len() as i64, "each call made a job");
        bench.verify().await;
        bench.end().await;
        let share = |share| percentile(latencies.1.clone(), share);
        runs.push((latencies.0, share(0.5), share(0.99)));
    }
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (middle, p50, p99) = runs[runs.len() / 2];
    let rates: Vec<f64> = runs.iter().map(|run| run.0).collect();
    let beside = json!({ "p50_ms": p50, "p99_ms": p99, "runs": rates });
    report.figure(row, "jobs/s", middle, beside);
}

/// Jobs a second, and what each call took in milliseconds.
pub(crate) async fn by_tasks(engine: &Engine, tasks: usize, window: Duration) -> (f64, Vec<f64>) {
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..tasks {
        let engine = engine.clone();
        callers.spawn(async move {
            let mut took = Vec::new();
            while started.elapsed() < window {
                let began = Instant::now();
                let made = engine.enqueue(vec![noop()]).await.expect("enqueues");
                took.push(millis(began.elapsed()));
                assert!(made.len() == 1 && made[0].created, "one job is made");
            }
            took
        });
    }
    let took = callers.join_all().await.concat();
    (rate(took.len(), started.elapsed()), took)
}

/// Calls of a thousand jobs from so many callers, made before the clock starts.
async fn in_bulk(callers: usize, jobs: usize, job: Make) -> f64 {
    let bench = Bench::plain().await;
    // A connection for each, with its statement prepared.
    bench.engine.enqueue((0..BULK).map(job).collect()).await.expect("enqueues");
    let calls = (jobs / callers / BULK).max(1);
    let mut batches = Vec::new();
    for _ in 0..callers {
        let call = |_| (0..BULK).map(job).collect::<Vec<_>>();
        batches.push((0..calls).map(call).collect::<Vec<_>>());
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for batches in batches {
        let engine = bench.engine.clone();
        tasks.spawn(async move {
            for batch in batches {
                let made = engine.enqueue(batch).await.expect("enqueues");
                assert!(made.len() == BULK && made.iter().all(|one| one.created), "all are made");
            }
        });
    }
    tasks.join_all().await;
    let took = started.elapsed();
    let made = callers * calls * BULK;
    let stored = bench.count("select count(*) from jobs").await;
    assert_eq!(stored, i64::try_from(made + BULK).expect("few"), "jobs stored");
    bench.verify().await;
    bench.end().await;
    rate(made, took)
}

fn one_kilobyte(n: usize) -> NewJob {
    let args = json!({ "number": n, "text": "lorem ipsum dolor sit amet ".repeat(37) });
    NewJob::new("noop", &args).expect("JSON").queue(crate::support::QUEUE)
}

/// Each second job of a call depends on the one before it.
fn with_parent(n: usize) -> NewJob {
    let name = |n: usize| format!("job {n}");
    if n.is_multiple_of(2) {
        noop().reference(name(n))
    } else {
        noop().depends_on(Parent::Ref(name(n - 1)))
    }
}
