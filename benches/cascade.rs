//! What graphs cost: fan-out, fan-in, layers and chains, by bare SQL from 1, 8 and 64 sessions; and
//! a hop of a chain through one LISTEN-driven worker. On demand: `make bench ROW=cascade`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rowlock::model::NewJob;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::drain::by_worker;
use crate::support::{
    Bench, QUEUE, RUNS, Report, Rows, connect, median, millis, noop, percentile, rate,
};

pub(crate) const ROWS: &[&str] =
    &["cascade_fan_out", "cascade_fan_in", "cascade_layered", "cascade_chain", "cascade_hop"];

const SIZES: [usize; 4] = [50, 1_000, 10_000, 100_000];
const COMPLETERS: [usize; 3] = [1, 8, 64];

/// Executions of one completing call, but for roots and chains, which come one by one.
const BATCH: i32 = 16;

/// Jobs of one enqueue.
const CALL: usize = 10_000;

/// A child has so many parents at most.
const MOST_PARENTS: usize = 10_000;

/// Layers of the layered graph; each job waits for a block of the layer above.
const LAYERS: usize = 10;
const BLOCK: usize = 10;

/// Jobs of the chain whose hops are timed.
const HOPS: usize = 1_000;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("cascade").await;
    if rows.has("cascade_fan_out") {
        for size in SIZES {
            fan_out(&mut report, size).await;
        }
    }
    if rows.has("cascade_fan_in") {
        for size in SIZES.into_iter().filter(|size| *size <= MOST_PARENTS) {
            for completers in COMPLETERS {
                fan_in(&mut report, size, completers).await;
            }
        }
    }
    if rows.has("cascade_layered") {
        for size in SIZES.into_iter().filter(|size| LAYERS * BLOCK <= *size) {
            for completers in COMPLETERS {
                layered(&mut report, size, completers).await;
            }
        }
    }
    if rows.has("cascade_chain") {
        for size in SIZES.into_iter().filter(|size| *size <= CALL) {
            chain(&mut report, size).await;
        }
    }
    if rows.has("cascade_hop") {
        hop(&mut report).await;
    }
    report.end();
}

/// The call that completes a root with so many children.
async fn fan_out(report: &mut Report, size: usize) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        let root = enqueue(&bench, vec![noop()]).await[0];
        for start in (0..size).step_by(CALL) {
            let children = size.min(start + CALL) - start;
            enqueue(&bench, (0..children).map(|_| noop().depends_on(root)).collect()).await;
        }
        runs.push(finish(&bench, 1, 1, 1).await.calls[0]);
        assert_eq!(bench.ready().await, i64::try_from(size).expect("few"));
        bench.verify().await;
        bench.end().await;
    }
    let ms = median(runs.clone());
    let beside =
        json!({ "children": size, "jobs_per_second": size as f64 / ms * 1e3, "runs": runs });
    report.figure("cascade_fan_out", "ms", ms, beside);
}

/// So many parents of one child, against as many jobs without it.
async fn fan_in(report: &mut Report, size: usize, completers: usize) {
    let mut runs = Vec::new();
    let mut calls = Vec::new();
    for _ in 0..RUNS {
        let mut took = [0.0; 2];
        for (edges, took) in [false, true].into_iter().zip(&mut took) {
            let bench = Bench::plain().await;
            let parents = enqueue(&bench, (0..size).map(|_| noop()).collect()).await;
            if edges {
                let child = parents.into_iter().fold(noop(), NewJob::depends_on);
                enqueue(&bench, vec![child]).await;
            }
            let finished = finish(&bench, completers, BATCH, size).await;
            *took = millis(finished.took);
            if edges {
                calls.extend(finished.calls);
                assert_eq!(bench.ready().await, 1, "the child is released");
            }
            bench.verify().await;
            bench.end().await;
        }
        runs.push((took[1], took[0]));
    }
    let of = |run: &(f64, f64)| run.0 / run.1;
    let ratio = median(runs.iter().map(of).collect());
    let run = runs.iter().find(|run| of(run).total_cmp(&ratio).is_eq()).expect("one of them");
    let beside = json!({
        "parents": size, "completers": completers, "ms": run.0, "ms_without": run.1,
        "call_p50": percentile(calls.clone(), 0.5), "call_p99": percentile(calls, 0.99),
        "runs": runs.iter().map(of).collect::<Vec<_>>(),
    });
    report.figure("cascade_fan_in", "ratio", ratio, beside);
}

/// Layers whose neighbours are fully connected in blocks.
async fn layered(report: &mut Report, size: usize, completers: usize) {
    let width = size / LAYERS;
    let (mut rates, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        let mut above: Vec<Uuid> = Vec::new();
        for _ in 0..LAYERS {
            let job = |n: usize| {
                let parents = above.iter().skip(n / BLOCK * BLOCK).take(BLOCK);
                parents.fold(noop(), |job, parent| job.depends_on(*parent))
            };
            above = enqueue(&bench, (0..width).map(job).collect()).await;
        }
        let finished = finish(&bench, completers, BATCH, width * LAYERS).await;
        rates.push(rate(width * LAYERS, finished.took));
        calls.extend(finished.calls);
        bench.verify().await;
        bench.end().await;
    }
    let beside = json!({
        "jobs": width * LAYERS, "completers": completers, "runs": rates,
        "call_p50": percentile(calls.clone(), 0.5), "call_p99": percentile(calls, 0.99),
    });
    report.figure("cascade_layered", "jobs/s", median(rates), beside);
}

/// A chain that one session walks.
async fn chain(report: &mut Report, size: usize) {
    let (mut rates, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        enqueue(&bench, chain_of(size)).await;
        let finished = finish(&bench, 1, 1, size).await;
        rates.push(rate(size, finished.took));
        calls.extend(finished.calls);
        bench.verify().await;
        bench.end().await;
    }
    let beside = json!({
        "jobs": size, "runs": rates,
        "call_p50": percentile(calls.clone(), 0.5), "call_p99": percentile(calls, 0.99),
    });
    report.figure("cascade_chain", "jobs/s", median(rates), beside);
}

/// From one job of a chain to the next through a worker process that is woken for each.
async fn hop(report: &mut Report) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let bench = Bench::plain().await;
        enqueue(&bench, chain_of(HOPS)).await;
        by_worker(&bench, HOPS).await;
        runs.push(1e3 / bench.drain_rate(0, HOPS).await);
        bench.verify().await;
        bench.end().await;
    }
    report.median("cascade_hop", "ms", runs);
}

fn chain_of(size: usize) -> Vec<NewJob> {
    let job = |n: usize| match n {
        0 => noop().reference("0"),
        _ => noop().reference(n.to_string()).depends_on((n - 1).to_string().as_str()),
    };
    (0..size).map(job).collect()
}

async fn enqueue(bench: &Bench, jobs: Vec<NewJob>) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for call in jobs.chunks(CALL) {
        let answers = bench.engine.enqueue(call.to_vec()).await.expect("enqueues");
        ids.extend(answers.iter().map(|answer| answer.job_id));
    }
    ids
}

/// What it took to complete jobs.
struct Finished {
    took: Duration,
    /// Each completing call, in milliseconds.
    calls: Vec<f64>,
}

/// Acquires and completes from so many sessions until so many jobs are done.
async fn finish(bench: &Bench, completers: usize, batch: i32, jobs: usize) -> Finished {
    let done = Arc::new(AtomicUsize::new(0));
    let mut sessions = Vec::new();
    for _ in 0..completers {
        let client = connect(&bench.url).await;
        client.batch_execute("set search_path = rowlock, pg_temp").await.expect("search_path");
        sessions.push(client);
    }
    let started = Instant::now();
    let mut loops = JoinSet::new();
    for client in sessions {
        let done = done.clone();
        loops.spawn(async move { complete_until(&client, batch, &done, jobs).await });
    }
    let calls = loops.join_all().await.into_iter().flatten().collect();
    Finished { took: started.elapsed(), calls }
}

async fn complete_until(
    client: &tokio_postgres::Client,
    batch: i32,
    done: &AtomicUsize,
    jobs: usize,
) -> Vec<f64> {
    let acquire = "select job_id, attempt, token from acquire($1, $2, $3)";
    let acquire = client.prepare(acquire).await.expect("prepares");
    let complete = "select verdict from complete($1, $2, $3, $4)";
    let complete = client.prepare(complete).await.expect("prepares");
    let (worker, mut calls) = (Uuid::now_v7(), Vec::new());
    while done.load(Ordering::Relaxed) < jobs {
        let most = i32::try_from(jobs).map_or(batch, |jobs| jobs.min(batch));
        let got = client.query(&acquire, &[&worker, &vec![QUEUE], &most]).await.expect("acquires");
        if got.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let ids: Vec<Uuid> = got.iter().map(|job| job.get(0)).collect();
        let attempts: Vec<i32> = got.iter().map(|job| job.get(1)).collect();
        let tokens: Vec<Uuid> = got.iter().map(|job| job.get(2)).collect();
        let began = Instant::now();
        let verdicts = client.query(&complete, &[&worker, &ids, &attempts, &tokens]).await;
        calls.push(millis(began.elapsed()));
        let verdicts = verdicts.expect("completes");
        assert!(verdicts.iter().all(|row| row.get::<_, &str>(0) == "completed"), "all completed");
        done.fetch_add(got.len(), Ordering::Relaxed);
    }
    calls
}
