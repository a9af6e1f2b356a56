//! The verbs as a program calls them: each takes a batch and answers with one entry for each of it.
//!
//! HTTP, the worker library and the command line stand on this. A verb borrows a connection of the
//! pool, runs one function of `store` and gives it back; what is harmless to repeat is repeated
//! where that helps.
//!
//! # Invariants
//!
//! 1. Every answer was committed before it is given.
//! 2. One entry that others hold, or that no column can hold, keeps no other entry of its batch
//!    from being finished.
//! 3. Jobs that were acquired for a caller who went away are given back.
//! 4. What names what it is about is said again where no answer came; of the rest it is said that
//!    the outcome is unknown.
//! 5. No more calls wait than a bound says; one beyond is refused at once.

mod acquire;
mod alone;
mod coalesce;
mod complete;
mod enqueue;
mod finish;
mod heartbeat;
mod known;
mod measure;
mod parts;
mod read;
mod wakeups;
mod workflow;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

pub use coalesce::MOST_WAITING;

pub use crate::db::{Error, PoolStatus, Recovery, listen::Mode};
pub use crate::store::acquire::AcquireCall;
pub use crate::store::enqueue::Enqueued;
pub use crate::store::finish::{Completion, Failure, Snooze};
pub use crate::store::inspect::{
    Depth, ExecutionRecord, Explanation, JobDetails, JobFilter, JobPage, JobSummary,
    LatencyFigures, OutcomeFigures, QueueFigures, Relative, Stats, WaitFigures, WorkerFigures,
    WorkflowPage, WorkflowSummary,
};
pub use crate::store::verify::Finding;
pub use crate::store::workflow::{EnqueuedWorkflow, WorkflowVerdicts};
pub use wakeups::{Next, Sleeper, Wakeups};

use alone::Alone;
use coalesce::Coalescer;
use finish::Finisher;
use known::known;

use crate::config::QueueSettings;
use crate::db::{Options, Pool, Pooled, listen, migrate};
use crate::model::{CancelVerdict, ReprioritizeVerdict, RetryVerdict};
use crate::shutdown::Shutdown;
use crate::store;

/// How often a call that collided with another transaction is tried again.
const CONFLICT_TRIES: u32 = 5;

/// The verbs of one Rowlock. Clones share the pool.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    settings: QueueSettings,
    wakeups: Wakeups,
    alone: Alone,
    finisher: Finisher,
    enqueue: Coalescer<enqueue::Enqueue>,
    acquire: Coalescer<acquire::Acquire>,
    complete: Coalescer<complete::Complete>,
    heartbeat: Coalescer<heartbeat::Heartbeat>,
}

impl Engine {
    /// An engine over a pool, with the wake-ups of a listener or [`Wakeups::polling`].
    #[must_use]
    pub fn new(pool: Pool, settings: &QueueSettings, wakeups: Wakeups) -> Self {
        let alone = Alone::new(&pool, settings.lease);
        let finisher = Finisher::new(pool.clone(), alone.clone(), settings.lease);
        let acquire = acquire::Acquire { pool: pool.clone(), finisher: finisher.clone() };
        let inner = Inner {
            settings: settings.clone(),
            wakeups,
            alone,
            finisher,
            enqueue: Coalescer::new(enqueue::Enqueue(pool.clone())),
            acquire: Coalescer::new(acquire),
            complete: Coalescer::new(complete::Complete(pool.clone())),
            heartbeat: Coalescer::new(heartbeat::Heartbeat(pool.clone())),
            pool,
        };
        Engine { inner: Arc::new(inner) }
    }

    /// An engine with a pool and a listener of its own, whose tasks end with `shutdown`. It polls
    /// where a transaction pooler is all there is to listen through.
    ///
    /// # Errors
    ///
    /// [`Error::Url`]; a database that is away is no error until a verb needs it.
    pub fn open(
        options: &Options,
        settings: &QueueSettings,
        shutdown: &Shutdown,
    ) -> Result<Self, Error> {
        let pool = Pool::new(options)?;
        if !options.can_listen() {
            info!("polling: no wake-ups through a pooler, and no ROWLOCK_LISTEN_URL beside it");
            return Ok(Engine::new(pool, settings, Wakeups::polling()));
        }
        let stop = shutdown.token().clone();
        let (listener, events, listening) = listen::listener(options, stop.clone())?;
        let (wakeups, waking) = Wakeups::new(listener, events, pool.clone(), stop);
        shutdown.spawn(listening);
        shutdown.spawn(waking);
        Ok(Engine::new(pool, settings, wakeups))
    }

    /// Lease, poll interval and the like.
    #[must_use]
    pub fn settings(&self) -> &QueueSettings {
        &self.inner.settings
    }

    /// The wake-ups, for who acquires in a loop of its own.
    #[must_use]
    pub fn wakeups(&self) -> &Wakeups {
        &self.inner.wakeups
    }

    /// The pool, for floors that call `store` themselves.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// How full the pool is.
    #[must_use]
    pub fn pool_status(&self) -> PoolStatus {
        self.inner.pool.status()
    }

    /// By verb, the calls that wait for a shared statement or are under way.
    #[must_use]
    pub fn calls_waiting(&self) -> Vec<(&'static str, usize)> {
        let inner = &self.inner;
        vec![
            inner.enqueue.waiting(),
            inner.acquire.waiting(),
            inner.complete.waiting(),
            inner.heartbeat.waiting(),
        ]
    }

    /// Whether wake-ups can be relied on at this moment.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.inner.wakeups.mode()
    }

    /// Whether the database answers.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.connection().await?.batch("").await
    }

    /// Whether the schema is the one that this binary needs.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn schema_is_current(&self) -> Result<bool, Error> {
        match self.connection().await?.check_schema(self.inner.pool.schema()).await {
            Ok(()) => Ok(true),
            Err(migrate::Error::Db(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Cancels waiting jobs and asks running ones to stop; one verdict a job, in input order.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `RL429` when others hold one of the jobs; nothing is done then.
    pub async fn cancel(&self, job_ids: Vec<Uuid>) -> Result<Vec<CancelVerdict>, Error> {
        known(async || store::operate::cancel(&*self.connection().await?, &job_ids).await).await
    }

    /// Lets discarded and cancelled jobs run again, and held ones go; one verdict a job.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `RL429` when others hold one of the jobs; nothing is done then.
    pub async fn retry(&self, job_ids: Vec<Uuid>) -> Result<Vec<RetryVerdict>, Error> {
        store::operate::retry(&*self.connection().await?, &job_ids).await
    }

    /// Gives jobs another priority, 0 to 9; one verdict a job. What runs has it from its next
    /// attempt on.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for another priority, and with `RL429` when others hold one of the jobs;
    /// nothing is done then.
    pub async fn reprioritize(
        &self,
        job_ids: Vec<Uuid>,
        priority: i16,
    ) -> Result<Vec<ReprioritizeVerdict>, Error> {
        store::operate::reprioritize(&*self.connection().await?, &job_ids, priority).await
    }

    /// Stops acquires from a queue. False if it was paused.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a name that is not one.
    pub async fn pause_queue(&self, queue: &str) -> Result<bool, Error> {
        store::operate::pause_queue(&*self.connection().await?, queue).await
    }

    /// Lets acquires from a queue go on. False if it was not paused.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for a name that is not one.
    pub async fn resume_queue(&self, queue: &str) -> Result<bool, Error> {
        let resumed = store::operate::resume_queue(&*self.connection().await?, queue).await?;
        self.inner.wakeups.resumed(queue);
        Ok(resumed)
    }

    async fn connection(&self) -> Result<Pooled, Error> {
        self.inner.pool.get().await
    }
}

/// Sleeps unless told to stop. Whether the sleep was whole.
async fn rest(pause: std::time::Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(pause) => true,
    }
}
