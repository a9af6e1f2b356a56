//! Reading through the engine, and waiting for a job to end.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Engine, Error, rest};
use crate::model::Input;
use crate::store::inputs::inputs_of;
use crate::store::inspect::{
    self, Explanation, JobDetails, JobFilter, JobPage, QueueFigures, Stats, WorkerFigures,
};
use crate::store::verify::{Finding, verify};

/// The first pause between two looks at a job that has not ended; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);

impl Engine {
    /// A page of at most `limit` jobs, newest first.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn jobs(&self, filter: &JobFilter, limit: i64) -> Result<JobPage, Error> {
        inspect::jobs(&*self.connection().await?, filter, limit).await
    }

    /// A job, if there is one with this id.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn job(&self, id: Uuid) -> Result<Option<JobDetails>, Error> {
        inspect::job(&*self.connection().await?, id).await
    }

    /// The same, when the job has ended, after `wait` or at `stop`, whichever comes first.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn job_wait(
        &self,
        id: Uuid,
        wait: Duration,
        stop: &CancellationToken,
    ) -> Result<Option<JobDetails>, Error> {
        let end = Instant::now() + wait;
        let mut pause = FIRST_PAUSE;
        loop {
            let finished = inspect::is_finished(&*self.connection().await?, id).await?;
            let left = end.saturating_duration_since(Instant::now());
            if finished != Some(false) || left.is_zero() || !rest(pause.min(left), stop).await {
                return self.job(id).await;
            }
            pause = LAST_PAUSE.min(pause * 2);
        }
    }

    /// Why a job does not run, if there is one with this id.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn explain(&self, id: Uuid) -> Result<Option<Explanation>, Error> {
        inspect::explain(&*self.connection().await?, id).await
    }

    /// What the parents of these jobs gave, each with the job that it is for; 10,000 at most.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn inputs(&self, jobs: &[Uuid]) -> Result<Vec<(Uuid, Input)>, Error> {
        inputs_of(&*self.connection().await?, jobs).await
    }

    /// The queues that have settings, or in which something waits or runs.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn queues(&self) -> Result<Vec<QueueFigures>, Error> {
        inspect::queues(&*self.connection().await?).await
    }

    /// The workers, those last seen first.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn workers(&self) -> Result<Vec<WorkerFigures>, Error> {
        inspect::workers(&*self.connection().await?).await
    }

    /// Latencies and outcomes of the last hour.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        inspect::stats(&*self.connection().await?).await
    }

    /// Checks every invariant of the model, one finding each. Reads everything.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn verify(&self) -> Result<Vec<Finding>, Error> {
        verify(&*self.connection().await?).await
    }
}
