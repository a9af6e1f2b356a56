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

/// The row is about the last depth, against the row `drain`. Beside it stands the rate of as few
/// jobs in as many priorities, which alone tells what the depth costs; the chart has these points.
async fn measure(file: &str, row: &str, depths: &[usize], runs: usize) {
    let mut report = Report::rows(file).await;
    let depths: Vec<_> = [JOBS].iter().chain(depths).map(|depth| scaled(*depth)).collect();
    let (mut drains, mut points) = (Vec::new(), vec![Vec::new(); depths.len()]);
    for run in 1..=runs {
        drains.push(plain().await);
        for (depth, rates) in depths.iter().zip(&mut points) {
            rates.push(at_depth(*depth).await);
            println!("run {run}: {:.0} jobs/s of {depth}", rates.last().expect("it is"));
        }
    }
    let deep = points.last().expect("there are depths");
    let ratios: Vec<f64> = deep.iter().zip(&drains).map(|(deep, drain)| deep / drain).collect();
    let value = median(ratios.clone());
    let place = ratios.iter().position(|ratio| ratio.total_cmp(&value).is_eq());
    let place = place.expect("the median is one of them");
    let (rate, shallow) = (deep[place], points[0][place]);
    let beside = json!({
        "deep": rate, "drain": drains[place], "as_few_in_ten_priorities": shallow,
        "of_as_few": rate / shallow, "runs": ratios,
    });
    report.figure(row, "ratio", value, beside);
    for (depth, rates) in depths.iter().zip(points) {
        report.figure("drain_at_depth", "jobs/s", median(rates), json!({ "waiting": depth }));
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
