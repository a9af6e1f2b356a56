//! What every bench needs: a database of its own on a durable Postgres, processes on it, the
//! machine's own figures, medians of several runs, JSON lines and one table.

pub(crate) mod child;
mod cores;
mod database;
mod http;
mod machine;
mod offer;
mod plot;
mod process;
mod report;
mod sql;
mod stats;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use child::{Handling, Produce, Produced, Task, Work, Worked};
pub(crate) use cores::Cores;
pub(crate) use database::{
    Bench, QUEUE, connect, create_database, drop_database, noop, open_engine,
};
pub(crate) use http::Http;
pub(crate) use offer::{End, Offer, Offered, Sample};
pub(crate) use plot::{Plot, Series};
pub(crate) use process::{CHILD, Child, Memory, Service, until};
pub(crate) use report::{Report, Rows, folder};
pub(crate) use sql::drain_by_sql;
pub(crate) use stats::Stats;

/// How often each row is measured; the median stands in the report.
pub(crate) const RUNS: usize = 3;

/// So many things, or fewer for a smoke test: `BENCH_SCALE=0.05`.
pub(crate) fn scaled(count: usize) -> usize {
    let scaled = (count as f64 * scale()).round() as usize;
    // Whole batches and slices, whatever the scale.
    scaled.div_ceil(1_000) * 1_000
}

/// So long, or shorter for a smoke test.
pub(crate) fn span(seconds: f64) -> Duration {
    Duration::from_secs_f64((seconds * scale()).max(0.3))
}

fn scale() -> f64 {
    let given = std::env::var("BENCH_SCALE").ok();
    given.map_or(1.0, |text| text.parse().expect("BENCH_SCALE is a number"))
}

/// The middle of several figures.
pub(crate) fn median(figures: Vec<f64>) -> f64 {
    percentile(figures, 0.5)
}

/// The figure below which so large a share of them lies.
pub(crate) fn percentile(mut figures: Vec<f64>, share: f64) -> f64 {
    assert!(!figures.is_empty(), "nothing was measured");
    figures.sort_by(f64::total_cmp);
    let place = (figures.len() as f64 * share) as usize;
    figures[place.min(figures.len() - 1)]
}

/// Things a second.
pub(crate) fn rate(things: usize, took: Duration) -> f64 {
    things as f64 / took.as_secs_f64()
}

/// Milliseconds.
pub(crate) fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// Microseconds of the machine's clock, which all processes share.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 294441")
}
