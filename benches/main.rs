//! The benches: one file a question, one binary, so that it links once. `make bench`, or
//! `make bench ROW=name` for one of them or one of their rows.

mod cascade;
mod chart;
mod depth;
mod drain;
mod enqueue;
mod latency;
mod memory;
mod overload;
mod pinned;
mod pinned_tables;
mod prune;
mod recovery;
mod seed_report;
mod single;
mod support;
mod views;
mod wakeups;
mod wal;
#[allow(dead_code, unused_imports, reason = "the benches need little of it")]
#[path = "../tests/chaos/wire/mod.rs"]
mod wire;
mod wrk;

use std::pin::Pin;

use support::Rows;

/// A bench: its name, its rows, whether it runs unasked, and how.
struct Bench {
    name: &'static str,
    rows: &'static [&'static str],
    unasked: bool,
    run: fn(Rows) -> Pin<Box<dyn Future<Output = ()>>>,
}

macro_rules! bench {
    ($name:literal, $rows:expr, $unasked:expr, $run:path) => {
        Bench { name: $name, rows: $rows, unasked: $unasked, run: |rows| Box::pin($run(rows)) }
    };
}

const BENCHES: &[Bench] = &[
    bench!("seed_report", seed_report::ROWS, true, seed_report::report),
    bench!("drain", drain::ROWS, true, drain::report),
    bench!("depth", depth::ROWS, true, depth::report),
    bench!("depth_10m", depth::ROWS_10M, false, depth::report_10m),
    bench!("enqueue", enqueue::ROWS, true, enqueue::report),
    bench!("latency", latency::ROWS, true, latency::report),
    bench!("single", single::ROWS, true, single::report),
    bench!("pinned", pinned::ROWS, true, pinned::report),
    bench!("pinned_tables", pinned_tables::ROWS, false, pinned_tables::report),
    bench!("wakeups", wakeups::ROWS, true, wakeups::report),
    bench!("memory", memory::ROWS, true, memory::report),
    bench!("wal", wal::ROWS, true, wal::report),
    bench!("recovery", recovery::ROWS, false, recovery::report),
    bench!("overload", overload::ROWS, false, overload::report),
    bench!("prune", prune::ROWS, false, prune::report),
    bench!("cascade", cascade::ROWS, false, cascade::report),
    bench!("chart", &["chart"], false, chart::report),
    bench!("views", &["views"], false, views::report),
];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut arguments = std::env::args().skip(1);
        match arguments.next() {
            Some(first) if first == support::CHILD => {
                support::child::run(&arguments.next().expect("a task")).await;
            }
            _ => bench(&std::env::var("ROW").unwrap_or_default()).await,
        }
    });
}

/// Runs the benches that have the wanted row, or all that run unasked.
async fn bench(wanted: &str) {
    let mut found = false;
    for bench in BENCHES {
        // A row before the bench of the same name.
        let row = bench.rows.contains(&wanted);
        if row || bench.name == wanted || (wanted.is_empty() && bench.unasked) {
            (bench.run)(Rows::named(if row { wanted } else { "" })).await;
            found = true;
        }
    }
    if !found {
        let known =
            BENCHES.iter().map(|bench| format!("{}: {}", bench.name, bench.rows.join(", ")));
        eprintln!("no bench {wanted}; there are\n  {}", known.collect::<Vec<_>>().join("\n  "));
        std::process::exit(2);
    }
}
