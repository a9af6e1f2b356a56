//! How long it takes until all is as before: after a restart of Postgres, after the death of a
//! worker, after a wake-up that is lost.

mod restart;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rand::Rng;
use rowlock::config::Settings;
use rowlock::db::Options;
use rowlock::engine::{AcquireCall, Engine, Mode};
use rowlock::shutdown::Shutdown;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    Bench, Child, Handling, QUEUE, RUNS, Report, Rows, Service, Task, Work, median, millis, noop,
    percentile, until,
};
use crate::wire::{Mode as Wire, Protocol, Proxy, Upstream};

pub(crate) const ROWS: &[&str] = &["restart_to_95", "next_attempt_after_kill", "lost_wakeup"];

/// Workers that are killed, at the same time and in all, and what each holds.
const VICTIMS: usize = 10;
const ROUNDS: usize = 10;
const HELD: usize = 5;
const LEASE: Duration = Duration::from_secs(2);

const LOST_WAKEUPS: usize = 30;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("recovery").await;
    if rows.has(ROWS[0]) {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let (seconds, beside) = restart::restart().await;
            let line = json!({ "row": format!("{}_run", ROWS[0]), "run": beside });
            println!("{line}");
            report.line(&line);
            runs.push(seconds);
        }
        report.median(ROWS[0], "s", runs);
    }
    if rows.has(ROWS[1]) {
        let late = kills().await;
        let beside = json!({
            "p50": median(late.clone()), "worst": percentile(late.clone(), 1.0),
            "lease_ms": millis(LEASE), "attempts": late.len(),
        });
        report.figure(ROWS[1], "ms beyond the lease, p99", percentile(late, 0.99), beside);
    }
    if rows.has(ROWS[2]) {
        let waits = lost_wakeups().await;
        let beside = json!({
            "p50": median(waits.clone()), "wakeups": waits.len(),
            "poll_ms": millis(Settings::default().queue.poll),
        });
        report.figure(ROWS[2], "ms, worst", percentile(waits, 1.0), beside);
    }
    report.end();
}

/// From kill -9 to each next attempt, less the lease, in milliseconds.
async fn kills() -> Vec<f64> {
    let bench = Bench::plain().await;
    let service = Service::start(&bench.url).await;
    // Who waits for the jobs is woken, as workers are.
    let (settings, shutdown) = (Settings::default(), Shutdown::new());
    let options = Options::new(bench.url.as_str().into(), &settings.database);
    let engine = Engine::open(&options, &settings.queue, &shutdown).expect("an engine");
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        let victims = (0..VICTIMS).map(|number| {
            let queue = format!("victim_{round}_{number}");
            victim(engine.clone(), bench.url.clone(), queue)
        });
        late.extend(join_all(victims).await.into_iter().flatten());
    }
    shutdown.drain(Duration::from_secs(10)).await;
    drop(engine);
    service.end().await;
    bench.verify().await;
    bench.end().await;
    late
}

async fn victim(engine: Engine, url: String, queue: String) -> Vec<f64> {
    let jobs = (0..HELD).map(|_| noop().queue(&queue)).collect();
    let ids = engine.enqueue(jobs).await.expect("enqueues");
    let work = Work::endless(&url).queue(&queue).slots(HELD).lease(LEASE);
    let child = Child::start(&Task::Work(work.handling(Handling::Sleep(600_000))));
    until("the worker has them all", async || {
        let mut running = 0;
        for job in &ids {
            let job = engine.job(job.job_id).await.expect("reads").expect("is there");
            running += usize::from(job.summary.state.as_str() == "running");
        }
        running == HELD
    })
    .await;
    // At any point of its lease.
    let into = LEASE.mul_f64(rand::rng().random_range(0.0..1.0));
    sleep(into).await;
    // Dropped, it is killed.
    drop(child);
    let killed = Instant::now();
    let mut late = Vec::new();
    let call = AcquireCall {
        max_jobs: i32::try_from(HELD).expect("few"),
        ..AcquireCall::new(Uuid::now_v7(), vec![queue])
    };
    while late.len() < HELD {
        let (patience, stop) = (Duration::from_secs(60), CancellationToken::new());
        let jobs = engine.acquire_wait(call.clone(), patience, &stop).await.expect("acquires");
        assert!(!jobs.is_empty(), "the jobs are lost");
        for job in &jobs {
            assert_eq!(job.execution.attempt, 2);
            late.push(millis(killed.elapsed()) - millis(LEASE));
        }
        let ends = jobs.iter().map(|job| (job.execution, None)).collect();
        engine.complete(call.worker, ends).await.expect("completes");
    }
    late
}

/// From the commit of a job to its start where nothing of the notification arrives.
async fn lost_wakeups() -> Vec<f64> {
    let bench = Bench::plain().await;
    let proxy = Proxy::start(Upstream::of(&bench.url), Protocol::Postgres).await;
    let settings = Settings::default();
    let mut options = Options::new(bench.url.as_str().into(), &settings.database);
    options.settings.listen_url = Some(proxy.url(&bench.url).as_str().into());
    let shutdown = Shutdown::new();
    let engine = Engine::open(&options, &settings.queue, &shutdown).expect("an engine");
    let mut waits = Vec::new();
    while waits.len() < LOST_WAKEUPS {
        proxy.set(Wire::Pass);
        until("it listens", async || engine.mode() == Mode::Listen).await;
        let call = AcquireCall::new(Uuid::now_v7(), vec![QUEUE.to_owned()]);
        let own = engine.clone();
        let acquiring = tokio::spawn(async move {
            let stop = CancellationToken::new();
            let jobs = own.acquire_wait(call.clone(), Duration::from_secs(60), &stop).await;
            let (jobs, at) = (jobs.expect("acquires"), Instant::now());
            let ends = jobs.iter().map(|job| (job.execution, None)).collect();
            own.complete(call.worker, ends).await.expect("completes");
            at
        });
        let asleep = "select count(*) from pg_locks where locktype = 'advisory' and granted
            and mode = 'ShareLock' and database = (select oid from pg_database
                where datname = current_database())";
        until("it sleeps", async || bench.count(asleep).await == 1).await;
        // Somewhere in the poll interval.
        sleep(settings.queue.poll.mul_f64(rand::rng().random_range(0.0..1.0))).await;
        proxy.set(Wire::BlackHole);
        let enqueued = Instant::now();
        bench.engine.enqueue_one(noop()).await.expect("enqueues");
        let at = acquiring.await.expect("no panic");
        waits.push(millis(at - enqueued));
    }
    shutdown.drain(Duration::from_secs(10)).await;
    drop((engine, proxy));
    bench.verify().await;
    bench.end().await;
    waits
}
