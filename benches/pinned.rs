//! The field's best known cliff: a transaction elsewhere pins the horizon, dead rows stay, and
//! every acquire would walk over them. The rate of the last jobs, against that without.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::drain::by_worker;
use crate::single::by_library;
use crate::support::{
    Bench, RUNS, Report, Rows, Service, connect, create_database, drop_database, noop, rate, scaled,
};

pub(crate) const ROWS: &[&str] = &["drain_pinned", "drain_pinned_by_writer", "single_pinned"];

/// Jobs of a run, pinned or plain: the same history, so that the pin alone makes the difference.
const JOBS: usize = 600_000;

/// The last of them, whose rate counts.
const LAST: usize = 100_000;

/// A point of the chart.
const SLICE: usize = 50_000;

/// Single acquires under a pinned horizon are slow without floors; a bench must end.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("pinned").await;
    if rows.has("drain_pinned") {
        let mut pairs = Vec::new();
        for run in 0..RUNS {
            let (plain, plain_slices) = drained(Pin::None).await;
            let (pinned, slices) = drained(Pin::Snapshot).await;
            println!("last {}: {pinned:.0} jobs/s pinned, {plain:.0} plain", scaled(LAST));
            pairs.push((pinned, plain));
            if run == 0 {
                points(&mut report, "plain", &plain_slices);
                points(&mut report, "snapshot", &slices);
            }
        }
        report.ratio("drain_pinned", ["pinned", "plain"], &pairs);
    }
    if rows.has("drain_pinned_by_writer") {
        let (plain, _) = drained(Pin::None).await;
        let (pinned, slices) = drained(Pin::Writer).await;
        points(&mut report, "writer", &slices);
        once(&mut report, "drain_pinned_by_writer", pinned, plain);
    }
    if rows.has("single_pinned") {
        let (plain, pinned) = (single(Pin::None).await, single(Pin::Snapshot).await);
        once(&mut report, "single_pinned", pinned, plain);
    }
    report.end();
}

/// One run stands for the median: it takes half a minute.
fn once(report: &mut Report, row: &str, pinned: f64, plain: f64) {
    let beside = json!({ "pinned": pinned, "plain": plain, "measured": "once" });
    report.figure(row, "ratio", pinned / plain, beside);
}

fn points(report: &mut Report, series: &str, slices: &[f64]) {
    for (at, value) in slices.iter().enumerate() {
        let done = scaled(SLICE) * (at + 1);
        let beside = json!({ "series": series, "done": done });
        report.figure("drain_pinned_slice", "jobs/s", *value, beside);
    }
}

/// What holds the horizon while jobs are done.
#[derive(Clone, Copy)]
enum Pin {
    None,
    /// A REPEATABLE READ snapshot in the same database.
    Snapshot,
    /// A transaction in another database that has written and stays open.
    Writer,
}

/// A pin that holds.
struct Pinned {
    client: Option<tokio_postgres::Client>,
    other: Option<String>,
}

impl Pin {
    async fn hold(self, bench: &Bench) -> Pinned {
        match self {
            Pin::None => Pinned { client: None, other: None },
            Pin::Snapshot => {
                let client = connect(&bench.url).await;
                let begin = "begin isolation level repeatable read; select count(*) from pg_class";
                client.batch_execute(begin).await.expect("a snapshot");
                Pinned { client: Some(client), other: None }
            }
            Pin::Writer => {
                let name = format!("bench_other_{}", Uuid::new_v4().simple());
                let client = connect(&create_database(&name).await).await;
                let begin = "create table t (n int); begin; insert into t values (1)";
                client.batch_execute(begin).await.expect("a transaction that has written");
                Pinned { client: Some(client), other: Some(name) }
            }
        }
    }
}

impl Pinned {
    /// Lets go; it must have held to this moment.
    async fn release(self) {
        if let Some(client) = self.client {
            let sql = "select pg_current_xact_id_if_assigned() is not null
                or current_setting('transaction_isolation') = 'repeatable read'";
            let held: bool = client.query_one(sql, &[]).await.expect("it is there").get(0);
            assert!(held, "the horizon was not pinned to the end");
            client.batch_execute("rollback").await.expect("it rolls back");
        }
        if let Some(name) = self.other {
            drop_database(&name).await;
        }
    }
}

/// Jobs a second of the last ones, and slice by slice; maintenance runs as in production.
async fn drained(pin: Pin) -> (f64, Vec<f64>) {
    let (jobs, last, slice) = (scaled(JOBS), scaled(LAST), scaled(SLICE));
    let bench = Bench::new(2).await;
    bench.fill(jobs, |_| noop()).await;
    let service = Service::start(&bench.url).await;
    let pinned = pin.hold(&bench).await;
    by_worker(&bench, jobs).await;
    pinned.release().await;
    service.end().await;
    bench.expect(jobs, 0).await;
    let rate = bench.drain_rate(jobs - last, jobs).await;
    let mut slices = Vec::new();
    for start in (0..jobs).step_by(slice) {
        slices.push(bench.drain_rate(start, jobs.min(start + slice)).await);
    }
    bench.verify().await;
    bench.end().await;
    (rate, slices)
}

/// The last jobs one at a time; those before them in batches, which leaves as many dead rows.
async fn single(pin: Pin) -> f64 {
    let (jobs, last) = (scaled(JOBS), scaled(LAST));
    let bench = Bench::plain().await;
    bench.fill(jobs, |_| noop()).await;
    let service = Service::start(&bench.url).await;
    let pinned = pin.hold(&bench).await;
    by_worker(&bench, jobs - last).await;
    let (done, took) = by_library(&bench, PATIENCE).await;
    pinned.release().await;
    service.end().await;
    assert!(0 < done && done <= last, "{done} of {last} done one at a time");
    bench.verify().await;
    bench.end().await;
    rate(done, took)
}
