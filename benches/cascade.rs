//! What graphs cost: fan-out, fan-in, layers and chains, by bare SQL from 1, 8 and 64 sessions; a
//! hop of a chain through one LISTEN-driven worker; the end of what hangs from a discarded root; a
//! million edges. On demand: `make bench ROW=cascade`.

mod completers;

use rowlock::model::NewJob;
use serde_json::json;
use uuid::Uuid;

use self::completers::{beside, discard, finish};
use crate::drain::by_worker;
use crate::support::{Bench, RUNS, Report, Rows, median, noop, rate};

pub(crate) const ROWS: &[&str] = &[
    "cascade_fan_out",
    "cascade_fan_in",
    "cascade_layered",
    "cascade_chain",
    "cascade_hop",
    "cascade_discard",
    "cascade_million",
];

const SIZES: [usize; 4] = [50, 1_000, 10_000, 100_000];
const COMPLETERS: [usize; 3] = [1, 8, 64];

/// Executions of one completing call, but for roots and chains, which come one by one.
const BATCH: i32 = 16;

/// Jobs of one enqueue.
const CALL: usize = 10_000;

/// Edges of one enqueue.
const EDGES: usize = 100_000;

/// Layers of the layered graph; each job waits for a block of the layer above.
const LAYERS: usize = 10;
const BLOCK: usize = 10;

/// Jobs of a chain that one session walks at most: a hop costs the same at any depth.
const WALK: usize = 2_000;

/// Jobs of the chain whose hops are timed.
const HOPS: usize = 1_000;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("cascade").await;
    for size in SIZES {
        for completers in COMPLETERS.into_iter().filter(|completers| *completers <= size) {
            if rows.has("cascade_fan_out") {
                fan_out(&mut report, size, completers).await;
            }
            if rows.has("cascade_fan_in") {
                fan_in(&mut report, size, completers).await;
            }
            if rows.has("cascade_layered") && LAYERS * BLOCK <= size {
                layered(&mut report, size, completers).await;
            }
            if rows.has("cascade_chain") {
                chain(&mut report, size, completers).await;
            }
        }
    }
    if rows.has("cascade_hop") {
        hop(&mut report).await;
    }
    if rows.has("cascade_discard") {
        discarded(&mut report, "chain", CALL, |n| n - 1).await;
        discarded(&mut report, "tree", 100_000, |n| n / 2).await;
    }
    if rows.has("cascade_million") {
        million(&mut report).await;
    }
    report.end();
}

/// The largest take long to build, and vary less.
fn runs(size: usize) -> usize {
    if size < 100_000 { RUNS } else { 1 }
}

/// So many children in all, below one root for each completer; all roots complete at once.
async fn fan_out(report: &mut Report, size: usize, completers: usize) {
    let (mut took, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        let roots = enqueue(&bench, vec![noop(); completers]).await;
        let child = |n: usize| noop().queue("children").depends_on(roots[n % completers]);
        enqueue(&bench, (0..size).map(child).collect()).await;
        let finished = finish(&bench, completers, 1, completers).await;
        took.push(finished.ms());
        calls.extend(finished.calls);
        assert_eq!(bench.ready().await, i64::try_from(size).expect("few"));
        bench.verify().await;
        bench.end().await;
    }
    let ms = median(took.clone());
    let mut beside = beside(size, completers, calls);
    beside["jobs_per_second"] = json!(size as f64 / ms * 1e3);
    beside["runs"] = json!(took);
    report.figure("cascade_fan_out", "ms", ms, beside);
}

/// So many parents of one child, against as many jobs without it.
async fn fan_in(report: &mut Report, size: usize, completers: usize) {
    let (mut pairs, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..runs(size) {
        let mut took = [0.0; 2];
        for (edges, took) in [false, true].into_iter().zip(&mut took) {
            let bench = Bench::plain().await;
            let parents = enqueue(&bench, vec![noop(); size]).await;
            if edges {
                let child = noop().queue("children");
                enqueue(&bench, vec![parents.into_iter().fold(child, NewJob::depends_on)]).await;
            }
            let finished = finish(&bench, completers, BATCH, size).await;
            *took = finished.ms();
            if edges {
                calls.extend(finished.calls);
            }
            assert_eq!(bench.ready().await, i64::from(edges), "the child is released");
            bench.verify().await;
            bench.end().await;
        }
        pairs.push((took[1], took[0]));
    }
    let of = |run: &(f64, f64)| run.0 / run.1;
    let ratio = median(pairs.iter().map(of).collect());
    let run = pairs.iter().find(|run| of(run).total_cmp(&ratio).is_eq()).expect("one of them");
    let mut beside = beside(size, completers, calls);
    beside["ms"] = json!(run.0);
    beside["ms_without"] = json!(run.1);
    beside["jobs_per_second"] = json!(size as f64 / run.0 * 1e3);
    beside["runs"] = json!(pairs.iter().map(of).collect::<Vec<_>>());
    report.figure("cascade_fan_in", "ratio", ratio, beside);
}

/// Layers whose neighbours are fully connected in blocks.
async fn layered(report: &mut Report, size: usize, completers: usize) {
    let (mut rates, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..runs(size) {
        let bench = Bench::plain().await;
        build_layers(&bench, size / LAYERS, BLOCK).await;
        let finished = finish(&bench, completers, BATCH, size).await;
        rates.push(rate(size, finished.took));
        calls.extend(finished.calls);
        bench.verify().await;
        bench.end().await;
    }
    let mut beside = beside(size, completers, calls);
    beside["runs"] = json!(rates);
    report.figure("cascade_layered", "jobs/s", median(rates), beside);
}

/// A chain for each completer, so many jobs in all; or the first part of it.
async fn chain(report: &mut Report, size: usize, completers: usize) {
    let (mut rates, mut calls) = (Vec::new(), Vec::new());
    let walked = size.min(completers * WALK);
    for _ in 0..runs(size) {
        let bench = Bench::plain().await;
        let mut above = Vec::new();
        for start in (0..size).step_by(CALL) {
            let link = |n: usize| match n.checked_sub(completers) {
                Some(parent) if start <= parent => {
                    noop().reference(n.to_string()).depends_on(parent.to_string().as_str())
                }
                Some(parent) => noop().reference(n.to_string()).depends_on(above[parent]),
                None => noop().reference(n.to_string()),
            };
            let call = (start..size.min(start + CALL)).map(link).collect();
            let ids = enqueue(&bench, call).await;
            above.extend(ids);
        }
        let finished = finish(&bench, completers, 1, walked).await;
        rates.push(rate(walked, finished.took));
        calls.extend(finished.calls);
        bench.verify().await;
        bench.end().await;
    }
    let mut beside = beside(size, completers, calls);
    beside["walked"] = json!(walked);
    beside["runs"] = json!(rates);
    report.figure("cascade_chain", "jobs/s", median(rates), beside);
}

/// From one job of a chain to the next through a worker process that is woken for each.
async fn hop(report: &mut Report) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        enqueue(&bench, tree(&[], HOPS, |n| n - 1)).await;
        by_worker(&bench, HOPS).await;
        runs.push(1e3 / bench.drain_rate(0, HOPS).await);
        bench.verify().await;
        bench.end().await;
    }
    report.median("cascade_hop", "ms", runs);
}

/// The call that discards the root of so many jobs; job n, from 1, waits for `parent(n)`.
async fn discarded(report: &mut Report, shape: &str, size: usize, parent: fn(usize) -> usize) {
    let mut took = Vec::new();
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        let mut jobs = Vec::new();
        while jobs.len() < size {
            let call = tree(&jobs, CALL.min(size - jobs.len()), parent);
            jobs.extend(enqueue(&bench, call).await);
        }
        took.push(discard(&bench).await);
        let fallen = bench.count("select count(*) from jobs where state = 'cancelled'").await;
        assert_eq!(usize::try_from(fallen), Ok(size - 1), "all others are cancelled");
        bench.verify().await;
        bench.end().await;
    }
    let ms = median(took.clone());
    let beside = json!({
        "shape": shape, "jobs": size, "jobs_per_second": size as f64 / ms * 1e3, "runs": took,
    });
    report.figure("cascade_discard", "ms", ms, beside);
}

/// A million edges, drained by 64 sessions; once.
async fn million(report: &mut Report) {
    const WIDTH: usize = 1_200;
    let bench = Bench::plain().await;
    build_layers(&bench, WIDTH, 100).await;
    let edges = bench.count("select count(*) from dependencies").await;
    let finished = finish(&bench, 64, BATCH, LAYERS * WIDTH).await;
    bench.expect(LAYERS * WIDTH, 0).await;
    bench.verify().await;
    bench.end().await;
    let mut beside = beside(LAYERS * WIDTH, 64, finished.calls);
    beside["edges"] = json!(edges);
    report.figure("cascade_million", "edges/s", edges as f64 / finished.took.as_secs_f64(), beside);
}

/// The next so many jobs of a tree whose first ones are these; job n, from 1, waits for
/// `parent(n)`.
fn tree(above: &[Uuid], size: usize, parent: fn(usize) -> usize) -> Vec<NewJob> {
    let job = |n: usize| match parent(n) {
        0 => noop().reference(n.to_string()),
        up if up <= above.len() => noop().reference(n.to_string()).depends_on(above[up - 1]),
        up => noop().reference(n.to_string()).depends_on(up.to_string().as_str()),
    };
    (above.len() + 1..=above.len() + size).map(job).collect()
}

/// Layers so wide, of which each job waits for a block of the one above.
async fn build_layers(bench: &Bench, width: usize, block: usize) {
    let mut above: Vec<Uuid> = Vec::new();
    for _ in 0..LAYERS {
        let job = |n: usize| {
            let parents = above.iter().skip(n / block * block).take(block);
            parents.fold(noop(), |job, parent| job.depends_on(*parent))
        };
        let jobs: Vec<NewJob> = (0..width).map(job).collect();
        let mut layer = Vec::new();
        for call in jobs.chunks(EDGES / block) {
            layer.extend(enqueue(bench, call.to_vec()).await);
        }
        above = layer;
    }
}

async fn enqueue(bench: &Bench, jobs: Vec<NewJob>) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for call in jobs.chunks(CALL) {
        let answers = bench.engine.enqueue(call.to_vec()).await.expect("enqueues");
        ids.extend(answers.iter().map(|answer| answer.job_id));
    }
    ids
}
