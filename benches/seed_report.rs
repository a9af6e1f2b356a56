//! The rows of the old service's report: its figure, ours, the ratio. Real executions, through the
//! library's public functions. `make bench ROW=seed_report`.

use std::time::{Duration, Instant};

use crate::support::{Bench, RUNS, Report, Rows, median, millis, rate};
use rowlock::model::{NewJob, Parent};
use serde_json::json;
use uuid::Uuid;

/// Their names.
pub(crate) const ROWS: &[&str] = &{
    let mut names = [""; FIGURES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = FIGURES[at].0;
        at += 1;
    }
    names
};

/// A row's name, its unit, and what the old service had.
const FIGURES: &[(&str, &str, f64)] = &[
    ("creation", "jobs/s", 234.80),
    ("creation_with_dependencies", "jobs/s", 133.96),
    ("acquisition_single", "jobs/s", 3.44),
    ("acquisition_batched", "jobs/s", 3.44),
    ("lifecycle_200_throughput", "jobs/s", 4.95),
    ("lifecycle_200_average_ms", "ms", 202.0),
    ("chain_depth_10", "jobs/s", 85.47),
    ("fan_out_50_released", "jobs", 0.0),
    ("fan_out_50_ms", "ms", f64::NAN),
    ("inheritance_overhead_ms", "ms", 0.0),
    ("fair_acquire_depth_50_ms", "ms", 391.0),
    ("fair_acquire_depth_100000_ms", "ms", 391.0),
    ("worker_registration_orphans", "orphans", f64::NAN),
];

/// Measures the rows that are wanted.
pub(crate) async fn report(rows: Rows) {
    let mut report = Report::begin("seed_report", &["row", "unit", "old", "ours", "ratio"]).await;
    for (row, unit, old) in FIGURES.iter().filter(|figure| rows.has(figure.0)) {
        let mut figures = Vec::new();
        for _ in 0..RUNS {
            figures.push(measure(row).await);
        }
        let value = median(figures);
        // JSON has no NaN: a row that the old report had no figure for says null.
        let seed = old.is_finite().then_some(*old);
        report.line(&json!({"row": row, "unit": unit, "seed": seed, "value": value}));
        let ratio = match seed {
            Some(old) if 0.0 < old && *unit == "ms" => format!("{:.0} x", old / value),
            Some(old) if 0.0 < old => format!("{:.0} x", value / old),
            _ => "-".to_owned(),
        };
        let old = seed.map_or("failed".to_owned(), |old| old.to_string());
        report.row(vec![(*row).to_owned(), (*unit).to_owned(), old, format!("{value:.3}"), ratio]);
    }
    report.end();
}

async fn measure(row: &str) -> f64 {
    let bench = Bench::new(if row == "worker_registration_orphans" { 50 } else { 4 }).await;
    let value = match row {
        "creation" => creation(&bench).await,
        "creation_with_dependencies" => creation_with_dependencies(&bench).await,
        "acquisition_single" => acquisition(&bench, 1, 500).await,
        "acquisition_batched" => acquisition(&bench, 100, 20_000).await,
        "lifecycle_200_throughput" => lifecycle(&bench).await.0,
        "lifecycle_200_average_ms" => lifecycle(&bench).await.1,
        "chain_depth_10" => chain(&bench, 10).await,
        "fan_out_50_released" => fan_out(&bench, 50).await.0,
        "fan_out_50_ms" => fan_out(&bench, 50).await.1,
        "inheritance_overhead_ms" => inheritance(&bench).await,
        "fair_acquire_depth_50_ms" => fair_acquire(&bench, 50).await,
        "fair_acquire_depth_100000_ms" => fair_acquire(&bench, 100_000).await,
        "worker_registration_orphans" => registration(&bench, 1_000).await,
        other => panic!("no row {other}"),
    };
    bench.verify().await;
    bench.end().await;
    value
}

fn job(queue: &str) -> NewJob {
    NewJob::new("bench", &json!({"n": 1})).expect("args").queue(queue)
}

async fn enqueue(bench: &Bench, jobs: Vec<NewJob>) {
    bench.engine.enqueue(jobs).await.expect("enqueues");
}

async fn fill(bench: &Bench, queue: &str, count: usize) {
    for start in (0..count).step_by(1_000) {
        let batch = (start..count.min(start + 1_000)).map(|_| job(queue)).collect();
        enqueue(bench, batch).await;
    }
}

/// One commit a batch of 100.
async fn creation(bench: &Bench) -> f64 {
    let started = Instant::now();
    for _ in 0..100 {
        enqueue(bench, (0..100).map(|_| job("q")).collect()).await;
    }
    rate(10_000, started.elapsed())
}

/// Batches of 50 pairs, a parent and its child.
async fn creation_with_dependencies(bench: &Bench) -> f64 {
    let started = Instant::now();
    for _ in 0..100 {
        let pair = |n| {
            let name = format!("parent {n}");
            [job("q").reference(name.clone()), job("q").depends_on(Parent::Ref(name))]
        };
        enqueue(bench, (0..50).flat_map(pair).collect()).await;
    }
    rate(10_000, started.elapsed())
}

async fn acquisition(bench: &Bench, batch: i32, count: usize) -> f64 {
    fill(bench, "q", count).await;
    let (worker, started, mut taken) = (Uuid::now_v7(), Instant::now(), 0);
    while taken < count {
        let jobs = bench.acquire(worker, "q", batch).await;
        assert!(!jobs.is_empty(), "{taken} of {count} acquired");
        taken += jobs.len();
    }
    rate(count, started.elapsed())
}

/// 200 jobs, enqueued one a call while a worker takes ten at a time: jobs a second, and the average
/// time from a job's enqueue to its end.
async fn lifecycle(bench: &Bench) -> (f64, f64) {
    let started = Instant::now();
    let produce = async {
        for _ in 0..200 {
            enqueue(bench, vec![job("q")]).await;
        }
    };
    let work = async {
        let (worker, mut done) = (Uuid::now_v7(), 0);
        while done < 200 {
            let jobs = bench.acquire(worker, "q", 10).await;
            bench.complete(worker, &jobs).await;
            done += jobs.len();
        }
    };
    tokio::join!(produce, work);
    let took = started.elapsed();
    let average =
        "select avg(extract(epoch from finished_at - created_at) * 1000)::float8 from jobs";
    let average = bench.client.query_one(average, &[]).await.expect("averages").get(0);
    (rate(200, took), average)
}

async fn chain(bench: &Bench, depth: usize) -> f64 {
    let link = |n: usize| {
        let own = job("q").reference(n.to_string());
        if n == 0 { own } else { own.depends_on(Parent::Ref((n - 1).to_string())) }
    };
    enqueue(bench, (0..depth).map(link).collect()).await;
    let (worker, started) = (Uuid::now_v7(), Instant::now());
    for _ in 0..depth {
        let jobs = bench.acquire(worker, "q", 10).await;
        assert_eq!(jobs.len(), 1, "one job of a chain is ready at a time");
        bench.complete(worker, &jobs).await;
    }
    rate(depth, started.elapsed())
}

/// Children that are ready when the parent's completion returns, and how long that call took.
async fn fan_out(bench: &Bench, children: usize) -> (f64, f64) {
    let child = |_| job("children").depends_on("parent");
    let jobs = std::iter::once(job("q").reference("parent")).chain((0..children).map(child));
    enqueue(bench, jobs.collect()).await;
    let worker = Uuid::now_v7();
    let parent = bench.acquire(worker, "q", 1).await;
    let started = Instant::now();
    bench.complete(worker, &parent).await;
    let took = started.elapsed();
    let released = bench.count("select count(*) from ready where queue = 'children'").await;
    (released as f64, millis(took))
}

/// What a child that inherits its priority adds to a pair, against one that names it.
async fn inheritance(bench: &Bench) -> f64 {
    let mut differences = Vec::new();
    for _ in 0..20 {
        let mut took = [Duration::ZERO; 2];
        for (inherits, spent) in took.iter_mut().enumerate() {
            let pair = |n: usize| {
                let child = job("q").depends_on(Parent::Ref(n.to_string()));
                let child = if inherits == 1 { child } else { child.priority(2) };
                [job("q").priority(2).reference(n.to_string()), child]
            };
            let started = Instant::now();
            enqueue(bench, (0..50).flat_map(pair).collect()).await;
            *spent = started.elapsed();
        }
        differences.push((millis(took[1]) - millis(took[0])) / 50.0);
    }
    median(differences)
}

/// One acquire, aging deciding among ten lanes of which the less urgent have waited longer.
async fn fair_acquire(bench: &Bench, depth: usize) -> f64 {
    let lane = |n: usize| job("q").priority(i16::try_from(n % 10).expect("a digit"));
    for start in (0..depth).step_by(1_000) {
        enqueue(bench, (start..depth.min(start + 1_000)).map(lane).collect()).await;
    }
    let age = "update ready set ready_at = ready_at - priority * interval '3 minutes'";
    bench.client.batch_execute(age).await.expect("ages");
    let (worker, mut calls) = (Uuid::now_v7(), Vec::new());
    for _ in 0..40 {
        let started = Instant::now();
        let jobs = bench.acquire(worker, "q", 1).await;
        calls.push(millis(started.elapsed()));
        assert_eq!(jobs.len(), 1);
    }
    median(calls)
}

/// Fresh workers, all acquiring at once: errors, plus executions without a worker.
async fn registration(bench: &Bench, workers: usize) -> f64 {
    fill(bench, "q", workers).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let engine = bench.engine.clone();
        tasks.spawn(async move {
            let call =
                rowlock::store::acquire::AcquireCall::new(Uuid::now_v7(), vec!["q".to_owned()]);
            engine.acquire(call).await.map(|jobs| jobs.len())
        });
    }
    let (mut errors, mut taken) = (0_usize, 0);
    while let Some(outcome) = tasks.join_next().await {
        match outcome.expect("a task") {
            Ok(count) => taken += count,
            Err(_) => errors += 1,
        }
    }
    assert!(taken + errors >= workers, "{taken} of {workers} acquired, {errors} errors");
    let orphans = "select count(*) from executions e left join workers w on w.id = e.worker
        where w.id is null";
    errors as f64 + bench.count(orphans).await as f64
}
