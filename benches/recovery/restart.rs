//! Postgres restarts under load: how long until as many jobs end as before.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock::config::Settings;
use rowlock::db;
use rowlock::embedded::{self, Cluster, Profile};
use rowlock::engine::{AcquireCall, Engine};
use rowlock::maintenance;
use rowlock::model::{FinishVerdict, NewJob};
use rowlock::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::LEASE;
use crate::support::{QUEUE, median, noop, open_engine, percentile, rate, span, until};

/// Tasks that enqueue and tasks that work, and jobs of a call.
const TASKS: usize = 4;
const BATCH: usize = 20;

/// Jobs that wait before all begins; the producers keep up no more, and so no less, than that.
const WAITING: usize = 20_000;

/// How much of the former throughput is as before, in so many windows in a row.
const AS_BEFORE: f64 = 0.95;
const IN_A_ROW: usize = 3;

/// Windows before the restart, of which the median counts.
const BEFORE: usize = 10;

/// A window takes two seconds; one may begin at each step.
const STEP: Duration = Duration::from_millis(100);
const STEPS: usize = 20;

/// It is given up after that, and said so.
const LONGEST: Duration = Duration::from_secs(120);

/// What goes on while Postgres goes away and comes back.
#[derive(Default)]
struct Load {
    produced: AtomicUsize,
    /// Ends that were news to Postgres, and all ends.
    completed: AtomicUsize,
    ended: AtomicUsize,
    /// Acquires that found nothing: what is measured then are the producers.
    empty: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

async fn produce(engine: Engine, load: Arc<Load>) {
    while !load.is_over() {
        let ended = load.ended.load(Ordering::Relaxed);
        if ended + WAITING <= load.produced.load(Ordering::Relaxed) {
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
            load.empty.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
            continue;
        }
        let ends: Vec<_> = jobs.iter().map(|job| (job.execution, None)).collect();
        // Only what this very call has ended counts.
        let Ok(verdicts) = engine.complete(call.worker, ends).await else { continue };
        let completed = verdicts.iter().filter(|it| **it == FinishVerdict::Completed).count();
        load.completed.fetch_add(completed, Ordering::Relaxed);
        load.ended.fetch_add(verdicts.len(), Ordering::Relaxed);
    }
}

/// What was completed by when.
struct Curve {
    load: Arc<Load>,
    began: Instant,
    points: Vec<(Duration, usize)>,
}

impl Curve {
    fn new(load: &Arc<Load>) -> Self {
        Curve { load: load.clone(), began: Instant::now(), points: Vec::new() }
    }

    async fn step(&mut self) {
        self.points.push((self.began.elapsed(), self.load.completed.load(Ordering::Relaxed)));
        sleep(STEP).await;
    }

    /// Jobs a second of the window that begins at a point.
    fn rate(&self, start: usize) -> Option<f64> {
        let (first, last) = (self.points[start], self.points.get(start + STEPS)?);
        Some(rate(last.1 - first.1, last.0 - first.0))
    }

    /// Those of windows one after another.
    fn rates(&self, start: usize) -> Vec<f64> {
        (start..self.points.len()).step_by(STEPS).map_while(|point| self.rate(point)).collect()
    }
}

/// Seconds from when Postgres accepts again to the first of some windows as before, and what
/// stands beside.
pub(super) async fn restart() -> (f64, Value) {
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
    let load = Arc::<Load>::default();
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(produce(engine.clone(), load.clone()));
    }
    until("enough waits", async || load.produced.load(Ordering::Relaxed) >= WAITING).await;
    for _ in 0..TASKS {
        tasks.spawn(work(engine.clone(), load.clone()));
    }
    sleep(span(5.0)).await;
    let mut curve = Curve::new(&load);
    while curve.rates(0).len() < BEFORE {
        curve.step().await;
    }
    let before = curve.rates(0);

    // As `pg_ctl restart -m immediate` does.
    let pid = Pid::from_raw(cluster.pid());
    kill(pid, Signal::SIGQUIT).expect("a signal");
    until("Postgres has ended", async || kill(pid, None).is_err()).await;
    let cluster = embedded::start(&options).await.expect("starts again");
    let figures = as_before(&load, before).await;

    load.over.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    shutdown.drain(Duration::from_secs(10)).await;
    end(cluster, &url, &folder).await;
    figures
}

/// Called when Postgres accepts again.
async fn as_before(load: &Arc<Load>, before: Vec<f64>) -> (f64, Value) {
    let (usual, empty) = (median(before.clone()), load.empty.load(Ordering::Relaxed));
    let is_good = |rate: Option<f64>| rate.is_some_and(|rate| AS_BEFORE * usual <= rate);
    let mut curve = Curve::new(load);
    let start = loop {
        curve.step().await;
        let last = curve.points.len().saturating_sub(IN_A_ROW * STEPS);
        let all_good =
            |start: &usize| (0..IN_A_ROW).all(|window| is_good(curve.rate(start + window * STEPS)));
        if let Some(start) = (last.saturating_sub(1)..last).find(all_good) {
            break start;
        }
        if LONGEST <= curve.began.elapsed() {
            println!("NOT AS BEFORE within {LONGEST:?}");
            break curve.points.len() - 1;
        }
    };
    let seconds = curve.points[start].0.as_secs_f64();
    let beside = json!({
        "seconds": seconds, "before": usual, "before_least": percentile(before.clone(), 0.0),
        "before_most": percentile(before, 1.0), "after": curve.rates(0),
        "empty_acquires": load.empty.load(Ordering::Relaxed) - empty,
    });
    (seconds, beside)
}

async fn end(cluster: Cluster, url: &str, folder: &Path) {
    let client = db::connect(&url.into()).await.expect("connects");
    let sql = "select coalesce(sum(violations), 0)::bigint from rowlock.verify()";
    let violations: i64 = client.query_one(sql, &[]).await.expect("verifies").get(0);
    assert_eq!(violations, 0, "invariants are broken");
    drop(client);
    cluster.destroy().await.expect("is deleted");
    let _ = fs::remove_dir_all(folder);
}
