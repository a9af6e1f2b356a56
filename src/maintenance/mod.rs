//! Maintenance: one loop for each duty, each run a transaction of its own.
//!
//! Any number of servers may run it; a duty that another one is at is left to it. A run that says
//! `more` is followed by the next at once, one that failed by a longer pause. Promotion looks
//! ahead, and runs when the next scheduled job is due. The invariants are checked by a loop of
//! their own, rarely.
//!
//! # Not here
//!
//! What a duty does: that is SQL, and `maintain()` does the same where no server runs.

mod pace;
mod verify;

use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::db::{Error, Pool};
use crate::shutdown::Shutdown;
use crate::store::maintain::{self, Duty, DutyRun, FloorNotes};
use pace::Pace;
pub use verify::start_verify;

/// How many rows one run settles at most.
const MAX_ROWS: i32 = 1_000;

/// How often promotion looks for the next scheduled job: a probe of an index.
const LOOK_AHEAD: Duration = Duration::from_millis(50);

/// Past the time a job is due: the clocks of the pause and of the database may differ by a bit.
const DUE_MARGIN: Duration = Duration::from_millis(2);

/// Between two runs of the floors duty while jobs move: the dead rows of so long are walked over.
const FLOORS_PAUSE: Duration = Duration::from_millis(100);

/// Between two rounds in which link, promote and rescue look at all that there is.
const FULL_ROUND: Duration = Duration::from_secs(5);

/// What may grow (floors with the queues, full rounds with dead rows under an old snapshot) rests so
/// many times as long as it ran.
const REST: u32 = 20;

/// But floors rest no longer than this: a run may have been slow for a cause that has gone.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// A job that is due and held by others stays due.
const LEAST_DUE: Duration = Duration::from_millis(10);

/// Starts the loops; they end when a stop is asked for, each after the run that it is at.
///
/// Counts `rowlock_maintenance_runs_total` by duty and outcome, `rowlock_maintenance_rows_total`.
pub fn start(pool: &Pool, interval: Duration, shutdown: &Shutdown) {
    for duty in Duty::ALL {
        let turn = Loop {
            duty: *duty,
            pool: pool.clone(),
            pace: Pace::new(interval),
            notes: FloorNotes::default(),
            full_due: Instant::now(),
            shutdown: shutdown.clone(),
        };
        shutdown.spawn(turn.run());
    }
}

/// One duty, over and over.
struct Loop {
    duty: Duty,
    pool: Pool,
    pace: Pace,
    /// Of the floors duty alone.
    notes: FloorNotes,
    /// When to look at everything again; until then, at what is recent.
    full_due: Instant,
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
        let duty = self.duty.as_str();
        let word = if outcome.is_ok() { "ok" } else { "failed" };
        counter!("rowlock_maintenance_runs_total", "duty" => duty, "outcome" => word).increment(1);
        match outcome {
            Ok(run) => {
                counter!("rowlock_maintenance_rows_total", "duty" => duty).increment(run.done);
                if run.done > 0 {
                    let duration_ms = began.elapsed().as_millis();
                    debug!(duty, done = run.done, duration_ms, "{duty}: {} row(s)", run.done);
                }
                if self.pace.failures() > 0 {
                    info!(duty, "{duty} works again");
                }
                let pause = self.pace.after(run);
                match self.duty {
                    Duty::Floors => self.floors_pause(run, began.elapsed(), pause),
                    _ => pause,
                }
            }
            Err(error) => {
                // Once: a database that is away for an hour is one piece of news.
                if self.pace.failures() == 0 {
                    warn!(duty, "{duty} failed and is tried again: {}", error.chain());
                }
                self.pace.after_failure(&error)
            }
        }
    }

    async fn work(&mut self) -> Result<DutyRun, Error> {
        let connection = match self.pool.get().await {
            Ok(connection) => connection,
            Err(error) => {
                self.notes = FloorNotes::default();
                return Err(error);
            }
        };
        match self.duty {
            Duty::Floors => maintain::try_floors(&connection, &mut self.notes, MAX_ROWS).await,
            Duty::Prune => maintain::try_duty(&connection, Duty::Prune, MAX_ROWS, false).await,
            Duty::Link | Duty::Promote | Duty::Rescue => {
                let began = Instant::now();
                let recent = began < self.full_due;
                let run = maintain::try_duty(&connection, self.duty, MAX_ROWS, recent).await?;
                if !recent && run.ran && !run.more {
                    self.full_due = Instant::now() + FULL_ROUND.max(began.elapsed() * REST);
                }
                Ok(run)
            }
        }
    }

    /// Floors are raised often while jobs move, and seldom otherwise.
    fn floors_pause(&self, run: DutyRun, took: Duration, usual: Duration) -> Duration {
        let busy = run.done > 0 || self.notes.name_someone();
        let pause = if busy { usual.min(FLOORS_PAUSE) } else { usual };
        pause.max(LONGEST_REST.min(took * REST))
    }

    async fn rest(&self, pause: Duration) {
        match self.duty {
            Duty::Promote => self.until_due(pause).await,
            Duty::Link | Duty::Rescue | Duty::Prune | Duty::Floors => sleep(pause).await,
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
