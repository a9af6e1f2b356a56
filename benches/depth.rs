//! Whether the rate holds with many more jobs waiting: ten priorities, aging on.

use rowlock::NewJob;
use serde_json::json;

use crate::drain::{JOBS, by_worker, plain};
use crate::support::{Bench, RUNS, Report, Rows, median, noop, scaled};

pub(crate) const ROWS: &[&str] = &["drain_depth_1m"];
pub(crate) const ROWS_10M: &[&str] = &["drain_depth_10m"];

pub(crate) async fn report(_: Rows) {
    measure("depth", ROWS[0], &[1_000_000], RUNS).await;
}

/// Ten million rows take minutes and gigabytes: only when asked for by name, and once.
pub(crate) async fn report_10m(_: Rows) {
    measure("depth_10m", ROWS_10M[0], &[1_000_000, 10_000_000], 1).await;
}

/// The row is about the last depth; each depth is a point of the chart.
async fn measure(file: &str, row: &str, depths: &[usize], runs: usize) {
    let mut report = Report::rows(file).await;
    let (mut pairs, mut points) = (Vec::new(), vec![Vec::new(); depths.len() + 1]);
    for _ in 0..runs {
        points[0].push(plain().await);
        for (depth, rates) in depths.iter().zip(&mut points[1..]) {
            rates.push(at_depth(scaled(*depth)).await);
        }
        let newest = |rates: &Vec<f64>| *rates.last().expect("it was measured");
        let (shallow, deep) = (newest(&points[0]), points.last().map_or(0.0, newest));
        println!("{deep:.0} jobs/s at the greatest depth, {shallow:.0} by the row drain");
        pairs.push((deep, shallow));
    }
    report.ratio(row, ["deep", "drain"], &pairs);
    for (waiting, rates) in [JOBS].iter().chain(depths).zip(points) {
        let beside = json!({ "waiting": scaled(*waiting) });
        report.figure("drain_at_depth", "jobs/s", median(rates), beside);
    }
    report.end();
}

/// Jobs a second while a worker takes the first of so many.
async fn at_depth(depth: usize) -> f64 {
    let jobs = scaled(JOBS);
    let bench = Bench::plain().await;
    bench.fill(depth, ten_priorities).await;
    let lanes = "select count(distinct priority) from ready";
    assert_eq!(bench.count(lanes).await, 10, "priorities that wait");
    by_worker(&bench, jobs).await;
    let left = bench.ready().await;
    let rate = bench.drain_rate(0, jobs).await;
    // The worker stops at full speed, so it completes somewhat more, and gives the rest back.
    let completed = "select count(*) from jobs where state = 'completed'";
    let done = bench.count(completed).await;
    assert_eq!(done + left, i64::try_from(depth).expect("few"), "no job is lost");
    bench.end().await;
    rate
}

fn ten_priorities(n: usize) -> NewJob {
    noop().priority(i16::try_from(n % 10).expect("a digit"))
}
