//! Acquire, once or waiting: look, sleep on the wake-ups of the queues, look again. Looks of
//! several workers for the same jobs share statements.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::coalesce::{Verb, Weight};
use super::finish::Finisher;
use super::{Engine, Error, Next, measure};
use crate::db::Pool;
use crate::model::{AcquiredJob, Execution};
use crate::store::acquire::{self, AcquireCall};

/// A call for so many jobs is as well off with a statement of its own.
const MANY_JOBS: i32 = 50;

/// What a call weighs beside its texts.
const BYTES_A_CALL: usize = 500;

/// With more bytes of args than this, a shared reply may have had no room for another job.
const FULL: usize = acquire::MOST_BYTES - acquire::MOST_ARGS_BYTES;

impl Engine {
    /// Takes ready jobs for a worker, most urgent first; none is an answer too.
    ///
    /// Small calls for the same queues and kinds that are made at the same time share a statement.
    /// A caller who goes away before the answer loses nothing: the jobs are given back.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for arguments that are not valid; [`Error::Overloaded`] at once when too
    /// many calls wait.
    pub async fn acquire(&self, call: AcquireCall) -> Result<Vec<AcquiredJob>, Error> {
        let began = Instant::now();
        let small = (1..MANY_JOBS).contains(&call.max_jobs) && call.metadata.is_none();
        let answer = if small {
            let key = Wanted {
                queues: call.queues.clone(),
                kinds: call.kinds.clone(),
                lease: call.lease,
            };
            self.inner.acquire.call(key, call).await
        } else {
            self.acquire_alone(call).await
        };
        measure::acquire(began, answer.as_ref().map_or(0, Vec::len));
        answer
    }

    async fn acquire_alone(&self, call: AcquireCall) -> Result<Vec<AcquiredJob>, Error> {
        let place = self.inner.alone.work.enter(Acquire::NAME, Acquire::weigh(&call).bytes)?;
        let (answer, answered) = oneshot::channel();
        let inner = self.inner.clone();
        // A task of its own: a future dropped after its statement was sent would strand the jobs.
        tokio::spawn(async move {
            let _place = place;
            let acquire = inner.acquire.verb();
            let acquired = match inner.alone.work.turn().await {
                Ok(_turn) => acquire.alone(&call).await,
                Err(error) => Err(error),
            };
            if let Err(Ok(jobs)) = answer.send(acquired) {
                acquire.undo(call, jobs).await;
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
}

/// What calls that share a statement have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    queues: Vec<String>,
    kinds: Option<Vec<String>>,
    lease: Duration,
}

/// Acquire as a verb that many call at a time.
pub(super) struct Acquire {
    pub(super) pool: Pool,
    /// Gives back what was acquired for nobody.
    pub(super) finisher: Finisher,
}

impl Verb for Acquire {
    const NAME: &'static str = "acquire";
    const MOST_CALLS: usize = acquire::MOST_CALLS;

    type Key = Wanted;
    type Call = AcquireCall;
    type Answer = Vec<AcquiredJob>;

    fn weigh(call: &AcquireCall) -> Weight {
        let names = call.queues.iter().chain(call.kinds.iter().flatten());
        let metadata = call.metadata.as_ref().map_or(0, |metadata| metadata.get().len());
        Weight {
            entries: usize::try_from(call.max_jobs).unwrap_or(0),
            bytes: BYTES_A_CALL + metadata + names.map(String::len).sum::<usize>(),
        }
    }

    async fn together(&self, calls: &[AcquireCall]) -> Result<Vec<Option<Self::Answer>>, Error> {
        let answers = acquire::acquire_batch(&*self.pool.get().await?, calls).await?;
        let bytes: usize = answers.iter().flatten().map(|job| job.args.get().len()).sum();
        // Whether the next job might have been too large, and not the queue empty.
        let full = FULL < bytes;
        Ok(answers.into_iter().map(|jobs| (!full || !jobs.is_empty()).then_some(jobs)).collect())
    }

    async fn alone(&self, call: &AcquireCall) -> Result<Self::Answer, Error> {
        acquire::acquire(&*self.pool.get().await?, call).await
    }

    fn is_of_some(_: &Wanted, error: &Error) -> bool {
        // A worker that returns may have much to lose first, which takes its time.
        let of_some = matches!(error, Error::Locked(_) | Error::Conflict(_) | Error::Timeout(_));
        of_some || error.is_of_content()
    }

    async fn undo(&self, call: AcquireCall, jobs: Vec<AcquiredJob>) {
        if jobs.is_empty() {
            return;
        }
        let executions: Vec<Execution> = jobs.iter().map(|job| job.execution).collect();
        if let Err(error) = self.finisher.finish(call.worker, &executions).await {
            // The lease ends, and rescue does it.
            warn!("jobs of a caller who went away could not be given back: {}", error.chain());
        }
    }
}
