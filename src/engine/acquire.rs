//! Acquire, once or waiting: look, sleep on the wake-ups of the queues, look again.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Engine, Error, Next, measure};
use crate::model::AcquiredJob;
use crate::store::acquire::{self, AcquireCall};

impl Engine {
    /// Takes ready jobs for a worker, most urgent first; none is an answer too.
    ///
    /// A caller who goes away before the answer loses nothing: the jobs are given back.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for arguments that are not valid.
    pub async fn acquire(&self, call: AcquireCall) -> Result<Vec<AcquiredJob>, Error> {
        let (answer, answered) = oneshot::channel();
        let engine = self.clone();
        // A task of its own: a future dropped after its statement was sent would strand the jobs.
        tokio::spawn(async move {
            let worker = call.worker;
            let outcome = engine.acquire_once(&call).await;
            if let Err(Ok(jobs)) = answer.send(outcome) {
                engine.give_back(worker, jobs).await;
            }
        });
        answered.await.unwrap_or_else(|_| Err(Error::unavailable("the process is stopping")))
    }

    /// The same, waiting until there is something, at most for `wait` or until `stop`.
    ///
    /// # Errors
    ///
    /// As [`Engine::acquire`].
    pub async fn acquire_wait(
        &self,
        call: AcquireCall,
        wait: Duration,
        stop: &CancellationToken,
    ) -> Result<Vec<AcquiredJob>, Error> {
        let end = Instant::now() + wait;
        let mut sleeper = self.wakeups().sleeper(&call.queues, call.kinds.as_deref());
        loop {
            let jobs = self.acquire(call.clone()).await?;
            if !jobs.is_empty() {
                sleeper.found(usize::try_from(call.max_jobs).is_ok_and(|most| most <= jobs.len()));
                return Ok(jobs);
            }
            tokio::select! {
                () = sleep_until(end) => return Ok(jobs),
                next = sleeper.wait(self.settings().poll, stop) => match next {
                    Next::Look => {}
                    Next::Stop => return Ok(jobs),
                }
            }
        }
    }

    async fn acquire_once(&self, call: &AcquireCall) -> Result<Vec<AcquiredJob>, Error> {
        let began = Instant::now();
        let connection = self.connection().await?;
        let answer = acquire::acquire(&connection, call).await;
        measure::acquire(began, answer.as_ref().map_or(0, Vec::len));
        answer
    }

    async fn give_back(&self, worker: uuid::Uuid, jobs: Vec<AcquiredJob>) {
        if jobs.is_empty() {
            return;
        }
        let executions = jobs.iter().map(|job| job.execution).collect();
        if let Err(error) = self.release(worker, executions).await {
            // The lease ends, and rescue does it.
            warn!("jobs of a caller who went away could not be given back: {}", error.chain());
        }
    }
}
