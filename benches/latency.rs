//! From an enqueue to the start of its handler: at rest, over a long poll, and under load.

use std::time::Duration;

use rand::Rng as _;
use rowlock::{Client, NewJob};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::support::{
    Bench, Child, Handling, Http, Produce, Produced, QUEUE, RUNS, Report, Rows, Service, Task,
    Work, Worked, connect, median, now_micros, percentile, span,
};

pub(crate) const ROWS: &[&str] = &[
    "latency_idle_listen_p50",
    "latency_idle_listen_p99",
    "latency_idle_http_p50",
    "latency_loaded_p99",
];

/// Jobs of one idle run that count.
const SAMPLES: usize = 400;

/// Jobs before them: connections open, statements are prepared, the sleeper settles.
const WARM_UP: usize = 50;

/// Arrivals a millisecond.
const LOAD: usize = 25;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("latency").await;
    if rows.any(&ROWS[..2]) {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(idle_listen().await);
        }
        for (row, share) in [(ROWS[0], 0.5), (ROWS[1], 0.99)] {
            if rows.has(row) {
                idle_row(&mut report, row, &runs, share);
            }
        }
    }
    if rows.has("latency_idle_http_p50") {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            runs.push(idle_http().await);
        }
        idle_row(&mut report, "latency_idle_http_p50", &runs, 0.5);
    }
    if rows.has("latency_loaded_p99") {
        loaded_row(&mut report).await;
    }
    report.end();
}

/// The times of one run in milliseconds: from the commit's answer, and from the call before it.
#[derive(Default)]
struct Latencies {
    commit: Vec<f64>,
    call: Vec<f64>,
}

fn idle_row(report: &mut Report, row: &str, runs: &[Latencies], share: f64) {
    let of = |figures: fn(&Latencies) -> &Vec<f64>| -> Vec<f64> {
        runs.iter().map(|run| percentile(figures(run).clone(), share)).collect()
    };
    let from_commit = of(|run| &run.commit);
    let beside = json!({ "from_call": median(of(|run| &run.call)), "runs": from_commit });
    report.figure(row, "ms", median(from_commit.clone()), beside);
}

/// A worker process that sleeps on LISTEN between jobs.
async fn idle_listen() -> Latencies {
    let bench = Bench::new(2).await;
    let all = WARM_UP + SAMPLES;
    let work = Work::new(&bench.url, all).handling(Handling::Stamp).slots(16);
    let worker = Child::start(&Task::Work(work));
    let sent = enqueue_idly(&bench, None).await;
    let worked: Worked = worker.end().await;
    assert_eq!(worked.handled, all, "jobs handled");
    bench.expect(all, 0).await;
    bench.end().await;
    between(&sent, &worked.stamps)
}

/// A client that asks over HTTP and waits; the producer goes on once it waits again.
async fn idle_http() -> Latencies {
    let bench = Bench::new(2).await;
    let service = Service::start(&bench.url).await;
    let (all, mut http) = (WARM_UP + SAMPLES, Http::connect(&service.address).await);
    let (finished, answers) = mpsc::channel(1);
    let poller = tokio::spawn(async move {
        let (worker, mut stamps) = (Uuid::now_v7(), Vec::new());
        let acquire = json!({ "worker": worker, "queues": [QUEUE], "wait_ms": 20_000 }).to_string();
        while stamps.len() < all {
            let answer = http.post("/v1/acquire", &acquire).await;
            let start = now_micros();
            let Some(job) = answer["jobs"].get(0) else { continue };
            let number = job["args"][0].as_i64().expect("a number");
            stamps.push((vec![number], start));
            let complete = json!({ "worker": worker, "executions": [{
                "job_id": job["job_id"], "attempt": job["attempt"], "token": job["token"] }]});
            let answer: Value = http.post("/v1/executions/complete", &complete.to_string()).await;
            assert!(answer.to_string().contains("\"completed\""), "{answer}");
            finished.send(()).await.expect("the producer waits");
        }
        stamps
    });
    let sent = enqueue_idly(&bench, Some(answers)).await;
    let stamps = poller.await.expect("the poller ends");
    service.end().await;
    bench.expect(all, 0).await;
    bench.end().await;
    between(&sent, &stamps)
}

/// Enqueues one job after the other with pauses by chance: the times of call and commit of each.
async fn enqueue_idly(bench: &Bench, mut done: Option<mpsc::Receiver<()>>) -> Vec<(i64, i64)> {
    let (connection, client) = (connect(&bench.url).await, Client::default());
    // The worker or poller registers meanwhile; the warm-up covers the rest.
    sleep(Duration::from_millis(500)).await;
    let mut sent = Vec::new();
    for number in 0..WARM_UP + SAMPLES {
        let job = NewJob::new("noop", &[number]).expect("JSON").queue(QUEUE);
        let call = now_micros();
        client.enqueue_one(&connection, job).await.expect("enqueues");
        sent.push((call, now_micros()));
        if let Some(done) = &mut done {
            let patience = Duration::from_secs(30);
            timeout(patience, done.recv()).await.expect("the job is done").expect("it goes on");
        }
        let pause = rand::rng().random_range(5_000..20_000);
        sleep(Duration::from_micros(pause)).await;
    }
    sent
}

fn between(sent: &[(i64, i64)], stamps: &[(Vec<i64>, i64)]) -> Latencies {
    let mut latencies = Latencies::default();
    for (args, start) in stamps {
        let number = usize::try_from(args[0]).expect("a place");
        if WARM_UP <= number {
            let (call, commit) = sent[number];
            latencies.call.push((start - call) as f64 / 1e3);
            // A handler may start before the producer has read that its commit is through.
            latencies.commit.push((start - commit).max(0) as f64 / 1e3);
        }
    }
    assert_eq!(latencies.commit.len(), SAMPLES, "samples");
    latencies
}

/// One process enqueues at a steady pace, another works.
async fn loaded_row(report: &mut Report) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(loaded().await);
    }
    runs.sort_by(|a, b| a["p99"].as_f64().partial_cmp(&b["p99"].as_f64()).expect("numbers"));
    let all: Vec<_> = runs.iter().map(|run| run["p99"].clone()).collect();
    let mut middle = runs[runs.len() / 2].clone();
    middle["runs"] = json!(all);
    let value = middle["p99"].as_f64().expect("a number");
    report.figure("latency_loaded_p99", "ms", value, middle);
}

async fn loaded() -> Value {
    let bench = Bench::new(2).await;
    let millis = usize::try_from(span(6.0).as_millis()).expect("few");
    let all = LOAD * millis;
    let worker = Work::new(&bench.url, all).handling(Handling::Stamp);
    let worker = Child::start(&Task::Work(worker));
    let produce = Produce { url: bench.url.clone(), jobs: LOAD, millis };
    let produced: Produced = Child::start(&Task::Produce(produce)).end().await;
    let worked: Worked = worker.end().await;
    assert_eq!((produced.jobs, worked.handled), (all, all), "jobs enqueued and handled");
    bench.expect(all, 0).await;
    bench.end().await;
    // The first sixth of the time is a cold start.
    let mut stamps = worked.stamps;
    stamps.sort_by_key(|(args, _)| args[0]);
    let warm = &stamps[all / 6..];
    let since = |field: usize, share: f64| {
        let waits = warm.iter().map(|(args, start)| (start - args[field]) as f64 / 1e3);
        percentile(waits.collect(), share)
    };
    json!({
        "p99": since(1, 0.99), "p50": since(1, 0.5), "p99_from_arrival": since(0, 0.99),
        "jobs_per_second": produced.jobs as f64 / produced.seconds,
        "samples": warm.len(),
    })
}
