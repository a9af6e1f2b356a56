//! Maintenance: one loop for each duty, each run a transaction of its own.
//!
//! Any number of servers may run it; a duty that another one is at is left to it. A run that says
//! `more` is followed by the next at once, one that failed by a longer pause. Promotion looks
//! ahead, and runs when the next scheduled job is due.
//!
//! # Not here
//!
//! What a duty does: that is SQL, and `maintain()` does the same where no server runs.

mod pace;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::db::{Error, Pool};
use crate::shutdown::Shutdown;
use crate::store::maintain::{self, Duty, DutyRun};
use pace::Pace;

/// How many rows one run settles at most.
const MAX_ROWS: i32 = 1_000;

/// How often promotion looks for the next scheduled job: a probe of an index.
const LOOK_AHEAD: Duration = Duration::from_millis(50);

/// Past the time a job is due: the clocks of the pause and of the database may differ by a bit.
const DUE_MARGIN: Duration = Duration::from_millis(2);

/// A job that is due and held by others stays due.
const LEAST_DUE: Duration = Duration::from_millis(10);

/// What one duty has done since the process began.
#[derive(Debug, Default)]
struct Counts {
    runs: AtomicU64,
    done: AtomicU64,
    failures: AtomicU64,
}

/// What one duty has done since the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DutyFigures {
    /// Which.
    pub duty: Duty,
    /// Its runs in this process.
    pub runs: u64,
    /// The rows that they settled.
    pub done: u64,
    /// The runs that failed.
    pub failures: u64,
}

/// The duties of a server. Clones share the figures.
#[derive(Clone, Debug, Default)]
pub struct Maintenance {
    counts: Arc<[Counts; Duty::ALL.len()]>,
}

impl Maintenance {
    /// Starts the loops; they end when a stop is asked for, each after the run that it is at.
    #[must_use]
    pub fn start(pool: &Pool, interval: Duration, shutdown: &Shutdown) -> Self {
        let maintenance = Maintenance::default();
        for (place, duty) in Duty::ALL.iter().enumerate() {
            let turn = Loop {
                duty: *duty,
                place,
                pool: pool.clone(),
                counts: maintenance.counts.clone(),
                pace: Pace::new(interval),
                shutdown: shutdown.clone(),
            };
            shutdown.spawn(turn.run());
        }
        maintenance
    }

    /// What each duty has done.
    #[must_use]
    pub fn figures(&self) -> Vec<DutyFigures> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let figures = |(duty, counts): (&Duty, &Counts)| DutyFigures {
            duty: *duty,
            runs: read(&counts.runs),
            done: read(&counts.done),
            failures: read(&counts.failures),
        };
        Duty::ALL.iter().zip(self.counts.iter()).map(figures).collect()
    }
}

/// One duty, over and over.
struct Loop {
    duty: Duty,
    place: usize,
    pool: Pool,
    counts: Arc<[Counts; Duty::ALL.len()]>,
    pace: Pace,
    shutdown: Shutdown,
}

impl Loop {
    async fn run(mut self) {
        while !self.shutdown.is_stopping() {
            let pause = self.once().await;
            tokio::select! {
                () = self.shutdown.stopping() => return,
                () = self.rest(pause) => {}
            }
        }
    }

    /// Runs the duty, and says how long to rest.
    async fn once(&mut self) -> Duration {
        let began = Instant::now();
        let outcome = self.work().await;
        let counts = &self.counts[self.place];
        counts.runs.fetch_add(1, Ordering::Relaxed);
        let duty = self.duty.as_str();
        match outcome {
            Ok(run) => {
                counts.done.fetch_add(run.done, Ordering::Relaxed);
                if run.done > 0 {
                    let duration_ms = began.elapsed().as_millis();
                    debug!(duty, done = run.done, duration_ms, "{duty}: {} row(s)", run.done);
                }
                if self.pace.failures() > 0 {
                    info!(duty, "{duty} works again");
                }
                self.pace.after(run)
            }
            Err(error) => {
                counts.failures.fetch_add(1, Ordering::Relaxed);
                // Once: a database that is away for an hour is one piece of news.
                if self.pace.failures() == 0 {
                    warn!(duty, "{duty} failed and is tried again: {}", error.chain());
                }
                self.pace.after_failure()
            }
        }
    }

    async fn work(&self) -> Result<DutyRun, Error> {
        let connection = self.pool.get().await?;
        maintain::try_duty(&connection, self.duty, MAX_ROWS).await
    }

    async fn rest(&self, pause: Duration) {
        match self.duty {
            Duty::Promote => self.until_due(pause).await,
            Duty::Link | Duty::Rescue | Duty::Prune => sleep(pause).await,
        }
    }

    /// Rests, but not past the time of the next scheduled job, which may be enqueued meanwhile.
    async fn until_due(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            let due = match self.next_due().await {
                Ok(due) => due.unwrap_or(Duration::MAX),
                // The run will fail too, and say so.
                Err(_) => return sleep_until(end).await,
            };
            if due <= LOOK_AHEAD {
                return sleep(LEAST_DUE.max(due + DUE_MARGIN)).await;
            }
            sleep_until(end.min(Instant::now() + LOOK_AHEAD)).await;
        }
    }

    async fn next_due(&self) -> Result<Option<Duration>, Error> {
        maintain::next_due(&*self.pool.get().await?).await
    }
}
