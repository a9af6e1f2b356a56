//! How long it takes until all is as before: after a restart of Postgres, after the death of a
//! worker, after a wake-up that is lost.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng;
use rowlock::config::Settings;
use rowlock::db::{self, Options};
use rowlock::embedded::{self, Cluster, Profile};
use rowlock::engine::{AcquireCall, Engine, Mode};
use rowlock::maintenance;
use rowlock::model::NewJob;
use rowlock::shutdown::Shutdown;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    Bench, Child, Handling, QUEUE, RUNS, Report, Rows, Service, Task, Work, median, millis, noop,
    open_engine, percentile, rate, span, until,
};
use crate::wire::{Mode as Wire, Protocol, Proxy, Upstream};

pub(crate) const ROWS: &[&str] = &["restart_to_95", "next_attempt_after_kill", "lost_wakeup"];

/// Tasks that enqueue and tasks that work, and jobs of a call.
const TASKS: usize = 4;
const BATCH: usize = 20;

/// Jobs that may wait before the producers do.
const MOST_WAITING: usize = 2_000;

/// How much of the former throughput is as before.
const AS_BEFORE: f64 = 0.95;

/// Over how long a rate is taken, and how often one begins.
const WINDOW: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(100);

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
            runs.push(restart().await);
        }
        let rates: Vec<f64> = runs.iter().map(|run| run.1).collect();
        let seconds: Vec<f64> = runs.iter().map(|run| run.0).collect();
        let beside = json!({ "jobs_per_second_before": rates, "runs": seconds });
        report.figure(ROWS[0], "s", median(seconds), beside);
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

/// What goes on while Postgres goes away and comes back.
struct Load {
    produced: AtomicUsize,
    completed: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

async fn produce(engine: Engine, load: Arc<Load>) {
    while !load.is_over() {
        let done = load.completed.load(Ordering::Relaxed);
        if done + MOST_WAITING < load.produced.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let jobs: Vec<NewJob> = (0..BATCH).map(|_| noop().id(Uuid::now_v7())).collect();
        while !load.is_over() && engine.enqueue(jobs.clone()).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
        load.produced.fetch_add(BATCH, Ordering::Relaxed);
    }
}

async fn work(engine: Engine, load: Arc<Load>) {
    let most = i32::try_from(BATCH).expect("few");
    let call = AcquireCall {
        max_jobs: most,
        lease: LEASE,
        ..AcquireCall::new(Uuid::now_v7(), vec![QUEUE.to_owned()])
    };
    while !load.is_over() {
        let Ok(jobs) = engine.acquire(call.clone()).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        if jobs.is_empty() {
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let ends: Vec<_> = jobs.iter().map(|job| (job.execution, None)).collect();
        // Only what Postgres has acknowledged counts.
        if engine.complete(call.worker, ends).await.is_ok() {
            load.completed.fetch_add(jobs.len(), Ordering::Relaxed);
        }
    }
}

/// Seconds from when Postgres accepts again to the first window as before; and the rate before.
async fn restart() -> (f64, f64) {
    let folder = embedded::fresh_data_dir(Profile::Throwaway);
    let options = embedded::Options::durable(&folder);
    let cluster = embedded::start(&options).await.expect("a cluster");
    let url = cluster.url(embedded::DATABASE);
    let mut client = db::connect(&url.as_str().into()).await.expect("connects");
    let schema = Settings::default().database.schema;
    db::migrate::run(&mut client, &schema).await.expect("migrates");
    drop(client);
    let (shutdown, engine) = (Shutdown::new(), open_engine(&url, 2 * TASKS as u32 + 6));
    let interval = Settings::default().queue.maintenance_interval;
    maintenance::start(engine.pool(), interval, &shutdown);
    let load = Arc::new(Load {
        produced: AtomicUsize::new(0),
        completed: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    });
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(produce(engine.clone(), load.clone()));
        tasks.spawn(work(engine.clone(), load.clone()));
    }
    sleep(span(3.0)).await;
    let (began, done) = (Instant::now(), load.completed.load(Ordering::Relaxed));
    sleep(span(8.0)).await;
    let before = rate(load.completed.load(Ordering::Relaxed) - done, began.elapsed());

    // As `pg_ctl restart -m immediate` does.
    let pid = Pid::from_raw(cluster.pid());
    kill(pid, Signal::SIGQUIT).expect("a signal");
    until("Postgres has ended", async || kill(pid, None).is_err()).await;
    let cluster = embedded::start(&options).await.expect("starts again");
    let accepts = Instant::now();
    let seconds = as_before(&load, before, accepts).await;

    load.over.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    shutdown.drain(Duration::from_secs(10)).await;
    end(cluster, &url, &folder).await;
    (seconds, before)
}

async fn as_before(load: &Load, before: f64, accepts: Instant) -> f64 {
    let mut counts = Vec::new();
    let steps = (WINDOW.as_secs_f64() / STEP.as_secs_f64()) as usize;
    loop {
        counts.push((accepts.elapsed(), load.completed.load(Ordering::Relaxed)));
        if let Some(start) = counts.len().checked_sub(steps + 1) {
            let (first, last) = (counts[start], counts[counts.len() - 1]);
            if AS_BEFORE * before <= rate(last.1 - first.1, last.0 - first.0) {
                return first.0.as_secs_f64();
            }
        }
        assert!(accepts.elapsed() < Duration::from_secs(120), "it never is as before: {before}");
        sleep(STEP).await;
    }
}

async fn end(cluster: Cluster, url: &str, folder: &std::path::Path) {
    let client = db::connect(&url.into()).await.expect("connects");
    let sql = "select coalesce(sum(violations), 0)::bigint from rowlock.verify()";
    let violations: i64 = client.query_one(sql, &[]).await.expect("verifies").get(0);
    assert_eq!(violations, 0, "invariants are broken");
    drop(client);
    cluster.destroy().await.expect("is deleted");
    let _ = fs::remove_dir_all(folder);
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
        sleep(settings.queue.poll.mul_f64(rand::rng().random_range(0.1..0.9))).await;
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
