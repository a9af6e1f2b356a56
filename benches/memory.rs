//! What the service and a worker hold in memory, and whether waiting jobs add to it.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::drain::{JOBS, by_worker};
use crate::support::{Bench, Memory, RUNS, Report, Rows, Service, noop, scaled};

pub(crate) const ROWS: &[&str] = &["memory_service_idle", "memory_worker_draining"];

/// Waiting jobs that must add nothing.
const MANY: usize = 1_000_000;

/// After this, what a process needed for its start has been let go, and each duty has run.
const SETTLED: Duration = Duration::from_secs(3);

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("memory").await;
    let (empty, full) = (Bench::new(4).await, Bench::new(4).await);
    full.fill(scaled(MANY), |_| noop()).await;
    if rows.has("memory_service_idle") {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push((service(&empty.url).await, service(&full.url).await));
        }
        let rss = |memory: Memory| memory.rss_mb;
        line(&mut report, "memory_service_idle", &runs, rss);
    }
    if rows.has("memory_worker_draining") {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let few = Bench::new(4).await;
            few.fill(scaled(JOBS), |_| noop()).await;
            let alone = by_worker(&few, scaled(JOBS)).await.memory;
            few.expect(scaled(JOBS), 0).await;
            few.end().await;
            runs.push((alone, by_worker(&full, scaled(JOBS)).await.memory));
        }
        // Its highest, over the whole drain.
        line(&mut report, "memory_worker_draining", &runs, |memory| memory.most_mb);
    }
    empty.end().await;
    full.end().await;
    report.end();
}

/// The value is the median without a backlog; beside it stand that with one, and the other figure.
fn line(report: &mut Report, row: &str, runs: &[(Memory, Memory)], value: fn(Memory) -> f64) {
    let mut runs = runs.to_vec();
    runs.sort_by(|a, b| value(a.0).total_cmp(&value(b.0)));
    let (middle, mut with_many) = (runs[runs.len() / 2], Vec::new());
    with_many.extend(runs.iter().map(|run| value(run.1)));
    let beside = json!({
        "with_waiting_jobs": crate::support::median(with_many), "waiting_jobs": scaled(MANY),
        "rss_mb": middle.0.rss_mb, "most_mb": middle.0.most_mb,
        "runs": runs.iter().map(|run| value(run.0)).collect::<Vec<_>>(),
    });
    report.figure(row, "MB", value(middle.0), beside);
}

async fn service(url: &str) -> Memory {
    let service = Service::start(url).await;
    sleep(SETTLED).await;
    let memory = service.memory();
    service.end().await;
    memory
}
