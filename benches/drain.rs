//! How fast one worker process empties a queue, and how much of a bare client's rate that is.

use crate::support::{
    Bench, Child, RUNS, Report, Rows, Task, Work, Worked, drain_by_sql, noop, scaled,
};

pub(crate) const ROWS: &[&str] = &["drain", "drain_of_sql"];

/// Jobs of one drain.
pub(crate) const JOBS: usize = 100_000;

/// Batches of the bare client, of which the best counts.
const BATCHES: [i32; 3] = [200, 500, 1_000];

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("drain").await;
    if !rows.has("drain_of_sql") {
        let mut rates = Vec::new();
        for _ in 0..RUNS {
            rates.push(plain().await);
        }
        report.median("drain", "jobs/s", rates);
        return report.end();
    }
    let (mut by_worker, mut pairs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let worker = plain().await;
        let (mut best, mut best_batch) = (0.0, 0);
        for batch in BATCHES {
            let rate = bare(batch).await;
            if best < rate {
                (best, best_batch) = (rate, batch);
            }
        }
        println!("library {worker:.0}, bare client {best:.0} in batches of {best_batch}");
        by_worker.push(worker);
        pairs.push((worker, best));
    }
    if rows.has("drain") {
        report.median("drain", "jobs/s", by_worker);
    }
    report.ratio("drain_of_sql", ["library", "sql"], &pairs);
    report.end();
}

/// The row `drain`, once: a queue of the default priority, emptied.
pub(crate) async fn plain() -> f64 {
    let jobs = scaled(JOBS);
    let bench = Bench::plain().await;
    bench.fill(jobs, |_| noop()).await;
    by_worker(&bench, jobs).await;
    bench.expect(jobs, 0).await;
    bench.verify().await;
    let rate = bench.drain_rate(0, jobs).await;
    bench.end().await;
    rate
}

/// Lets one worker process run so many jobs and stop.
pub(crate) async fn by_worker(bench: &Bench, jobs: usize) -> Worked {
    let worked: Worked = Child::start(&Task::Work(Work::new(&bench.url, jobs))).end().await;
    assert!(jobs <= worked.handled, "{} of {jobs} handled", worked.handled);
    worked
}

async fn bare(batch: i32) -> f64 {
    let jobs = scaled(JOBS);
    let bench = Bench::plain().await;
    bench.fill(jobs, |_| noop()).await;
    assert_eq!(drain_by_sql(&bench, batch).await, jobs, "jobs drained by the bare client");
    bench.expect(jobs, 0).await;
    let rate = bench.drain_rate(0, jobs).await;
    bench.end().await;
    rate
}
