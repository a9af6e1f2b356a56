//! The job as a handler sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::inputs::Inputs;
use super::stop::{StopReason, StopSignal};
use crate::db::{Error, GenericClient};
use crate::engine::Engine;
use crate::model::{AcquiredJob, RawJson, SchemaName};
use crate::store::handler::complete_on;

/// One execution of a job, handed to its handler.
pub struct Job {
    acquired: AcquiredJob,
    worker: Uuid,
    engine: Engine,
    schema: Arc<SchemaName>,
    signal: StopSignal,
    /// Completed in the handler's own transaction: there is nothing left for the runtime to say.
    settled: Arc<AtomicBool>,
}

impl Job {
    pub(super) fn new(
        acquired: AcquiredJob,
        worker: Uuid,
        engine: Engine,
        schema: Arc<SchemaName>,
        signal: StopSignal,
    ) -> Self {
        Job { acquired, worker, engine, schema, signal, settled: Arc::default() }
    }

    /// The job's id.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.acquired.execution.job_id
    }

    /// The number of this execution; the first is 1.
    #[must_use]
    pub fn attempt(&self) -> i32 {
        self.acquired.execution.attempt
    }

    /// What sort of job it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.acquired.kind
    }

    /// The queue that it was taken from.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.acquired.queue
    }

    /// 0 runs first, 9 last.
    #[must_use]
    pub fn priority(&self) -> i16 {
        self.acquired.priority
    }

    /// How long this execution may run, if bounded.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.acquired.timeout
    }

    /// When it was due.
    #[must_use]
    pub fn run_at(&self) -> OffsetDateTime {
        self.acquired.run_at
    }

    /// When it was enqueued.
    #[must_use]
    pub fn created_at(&self) -> OffsetDateTime {
        self.acquired.created_at
    }

    /// The args as a type of the handler's.
    ///
    /// # Errors
    ///
    /// When the args do not fit the type; `?` in a handler makes it a failed execution.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.raw_args())
    }

    /// The args as JSON text.
    #[must_use]
    pub fn raw_args(&self) -> &str {
        self.acquired.args.get()
    }

    /// The results of the parents, read from the database; a handler on a thread of its own uses
    /// [`inputs_blocking`](Self::inputs_blocking).
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn inputs(&self) -> Result<Inputs, Error> {
        let inputs = self.engine.inputs(&[self.id()]).await?;
        Ok(Inputs(inputs.into_iter().map(|(_, input)| input).collect()))
    }

    /// The same, for a handler that was given with [`on_blocking`](super::Worker::on_blocking).
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    ///
    /// # Panics
    ///
    /// In an async handler, whose thread must not wait.
    pub fn inputs_blocking(&self) -> Result<Inputs, Error> {
        tokio::runtime::Handle::current().block_on(self.inputs())
    }

    /// Cancelled when the handler is to stop: pass it on, or look at it between steps.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        self.signal.token()
    }

    /// Why the handler is to stop, if it is.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.signal.reason()
    }

    /// Completes the job inside the handler's own transaction, so that its writes and the
    /// completion stand or fall together. The handler commits and returns
    /// [`Outcome::Complete`](super::Outcome::Complete); the runtime then says nothing more.
    ///
    /// False when somebody cancelled the job: it ends cancelled, and the handler decides whether
    /// its writes are still wanted. The transaction must be READ COMMITTED. If it is never
    /// committed although the handler succeeded, the job is given back and runs again.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `RL001` when the job is no longer this worker's, with `RL413` for a
    /// result over 256 KiB; the transaction has failed then.
    pub async fn complete_in(
        &self,
        transaction: &impl GenericClient,
        result: Option<RawJson>,
    ) -> Result<bool, Error> {
        let completion = (self.acquired.execution, result);
        let deadline = self.engine.pool().call_timeout();
        let completed =
            complete_on(transaction, &self.schema, deadline, self.worker, &completion).await?;
        self.settled.store(true, Ordering::Relaxed);
        Ok(completed)
    }

    pub(super) fn settled(&self) -> Settled {
        Settled(self.settled.clone())
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("acquired", &self.acquired).finish_non_exhaustive()
    }
}

/// Whether the handler completed the job itself; outlives the job.
#[derive(Debug)]
pub(super) struct Settled(Arc<AtomicBool>);

impl Settled {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
