//! What this binary does as a child: work through the library, enqueue at a steady pace, or ask
//! the service.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rowlock::shutdown::Shutdown;
use rowlock::{Client, Job, NewJob, Outcome, Worker};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::database::{QUEUE, connect};
use super::now_micros;
use super::offer::Offer;
use super::process::{Memory, memory};

/// Slots of a worker for short jobs, unless `BENCH_SLOTS` says so.
const SLOTS: usize = 1_000;

/// Jobs of one call of a producer that has fallen behind; its report says how far.
const MOST_JOBS: usize = 1_000;

/// The task of a child.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// Work through the library.
    Work(Work),
    /// Enqueue at a steady pace.
    Produce(Produce),
    /// Ask the service.
    Offer(Offer),
}

/// What a worker process does.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    url: String,
    queue: String,
    handling: Handling,
    stop_after: Option<usize>,
    slots: usize,
    prefetch: Option<usize>,
    lease: Option<Duration>,
}

/// What its handlers do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Handling {
    /// Nothing.
    Nothing,
    /// Keep the args, which are numbers, with the time of the start.
    Stamp,
    /// Sleep for so many milliseconds.
    Sleep(u64),
}

/// What a worker reports.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Worked {
    /// Handlers that ran.
    pub(crate) handled: usize,
    /// Its memory at the end.
    pub(crate) memory: Memory,
    /// The args and the start, in microseconds of the machine's clock.
    pub(crate) stamps: Vec<(Vec<i64>, i64)>,
}

/// What a producer process does: so many jobs every millisecond, for so many milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Produce {
    /// The database.
    pub(crate) url: String,
    /// Jobs that arrive in each millisecond.
    pub(crate) jobs: usize,
    /// For how long.
    pub(crate) millis: usize,
}

/// What a producer reports.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Produced {
    /// Jobs enqueued.
    pub(crate) jobs: usize,
    /// In so many seconds.
    pub(crate) seconds: f64,
}

impl Work {
    /// A worker for short jobs, which stops once so many handlers have run.
    pub(crate) fn new(url: &str, stop_after: usize) -> Work {
        let number = |name: &str| {
            let given = std::env::var(name).ok();
            given.map(|text| text.parse().expect("a number"))
        };
        Work {
            url: url.to_owned(),
            queue: QUEUE.to_owned(),
            handling: Handling::Nothing,
            stop_after: Some(stop_after),
            slots: number("BENCH_SLOTS").unwrap_or(SLOTS),
            prefetch: number("BENCH_PREFETCH"),
            lease: None,
        }
    }

    /// A worker that goes on until it is told to stop.
    pub(crate) fn endless(url: &str) -> Work {
        Work { stop_after: None, ..Work::new(url, 0) }
    }

    /// The same with other handlers.
    pub(crate) fn handling(self, handling: Handling) -> Work {
        Work { handling, ..self }
    }

    /// The same with so many slots and nothing fetched ahead.
    pub(crate) fn slots(self, slots: usize) -> Work {
        Work { slots, prefetch: Some(0), ..self }
    }

    /// The same under another lease.
    pub(crate) fn lease(self, lease: Duration) -> Work {
        Work { lease: Some(lease), ..self }
    }

    /// The same on another queue.
    pub(crate) fn queue(self, queue: &str) -> Work {
        Work { queue: queue.to_owned(), ..self }
    }

    async fn run(self) -> Worked {
        let shutdown = Shutdown::new();
        shutdown.on_signals().expect("signals can be handled");
        let handled = Arc::new(AtomicUsize::new(0));
        let stamps = Arc::new(Mutex::new(Vec::new()));
        let (count, stop, kept) = (handled.clone(), shutdown.clone(), stamps.clone());
        let handling = self.handling;
        let handler = move |job: Job| {
            let start = now_micros();
            if matches!(handling, Handling::Stamp) {
                let args = job.args().expect("numbers");
                kept.lock().expect("nobody panics").push((args, start));
            }
            if Some(count.fetch_add(1, Ordering::Relaxed) + 1) == self.stop_after {
                stop.stop();
            }
            async move {
                if let Handling::Sleep(millis) = handling {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
                Ok::<_, Infallible>(Outcome::Complete)
            }
        };
        let worker = Worker::new(self.url.as_str()).queue(self.queue, self.slots);
        let worker = worker.on("noop", handler);
        // Left alone, the worker fetches ahead as its jobs' pace allows.
        let worker = match self.prefetch {
            Some(jobs) => worker.prefetch(jobs),
            None => worker,
        };
        let worker = match self.lease {
            Some(lease) => worker.lease(lease),
            None => worker,
        };
        worker.run(&shutdown).await.expect("the worker works");
        let stamps = std::mem::take(&mut *stamps.lock().expect("nobody panics"));
        Worked { handled: handled.load(Ordering::Relaxed), memory: memory("self"), stamps }
    }
}

impl Produce {
    /// Each job's args are the time at which it was to arrive and the time of the call.
    async fn run(self) -> Produced {
        let connection = connect(&self.url).await;
        let client = Client::default();
        let mut ticks = interval(Duration::from_millis(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (started, began) = (Instant::now(), now_micros());
        let (all, mut sent) = (self.jobs * self.millis, 0);
        while sent < all {
            ticks.tick().await;
            let elapsed = started.elapsed().as_millis() as usize + 1;
            let due = all.min(elapsed * self.jobs).min(sent + MOST_JOBS);
            let called = now_micros();
            let job = |n: usize| {
                let arrival = began + (n / self.jobs) as i64 * 1_000;
                NewJob::new("noop", &[arrival, called]).expect("JSON").queue(QUEUE)
            };
            let jobs: Vec<_> = (sent..due).map(job).collect();
            if !jobs.is_empty() {
                client.enqueue(&connection, &jobs).await.expect("enqueues");
            }
            sent = due;
        }
        Produced { jobs: sent, seconds: started.elapsed().as_secs_f64() }
    }
}

/// Does the task that the arguments name, and reports on standard output.
pub(crate) async fn run(task: &str) {
    let report = match serde_json::from_str(task).expect("a task") {
        Task::Work(work) => serde_json::to_string(&work.run().await),
        Task::Produce(produce) => serde_json::to_string(&produce.run().await),
        Task::Offer(offer) => serde_json::to_string(&offer.run().await),
    };
    println!("{}", report.expect("a report is JSON"));
}
