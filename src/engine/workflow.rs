//! Workflows as a program calls them.

use tokio::time::Instant;
use uuid::Uuid;

use super::coalesce::Verb;
use super::enqueue::{Enqueue, bytes_of};
use super::known::known;
use super::{CONFLICT_TRIES, Engine, Error, measure};
use crate::model::{GraphJob, NewJob, NewWorkflow};
use crate::store::inspect::{self, WorkflowPage, WorkflowSummary};
use crate::store::workflow::{self, EnqueuedWorkflow, WorkflowVerdicts};

impl Engine {
    /// Enqueues jobs as a workflow, all of them or none; one answer a job, in input order.
    ///
    /// A job that exists already, by its id or unique key, keeps the workflow that it has, and a
    /// call that creates no job creates no workflow.
    ///
    /// # Errors
    ///
    /// As [`Engine::enqueue`], and [`Error::Refused`] when the id belongs to a workflow of another
    /// name or of other jobs.
    pub async fn enqueue_workflow(
        &self,
        workflow: &NewWorkflow,
        jobs: Vec<NewJob>,
    ) -> Result<EnqueuedWorkflow, Error> {
        let began = Instant::now();
        let answer = self.enqueue_as_one(workflow, &jobs).await;
        measure::enqueue(began, answer.as_ref().ok().map(|answer| answer.jobs.as_slice()));
        answer
    }

    async fn enqueue_as_one(
        &self,
        workflow: &NewWorkflow,
        jobs: &[NewJob],
    ) -> Result<EnqueuedWorkflow, Error> {
        let _place = self.inner.alone.enqueues.enter(Enqueue::NAME, bytes_of(jobs))?;
        let _turn = self.inner.alone.enqueues.turn().await?;
        if jobs.iter().all(|job| job.id.is_some()) {
            known(|| self.in_tries(workflow, jobs)).await
        } else {
            self.in_tries(workflow, jobs).await
        }
    }

    async fn in_tries(
        &self,
        workflow: &NewWorkflow,
        jobs: &[NewJob],
    ) -> Result<EnqueuedWorkflow, Error> {
        let mut tries = 1;
        loop {
            let connection = self.connection().await?;
            match workflow::enqueue_workflow(&connection, workflow, jobs).await {
                Err(Error::Conflict(_)) if tries < CONFLICT_TRIES => tries += 1,
                answer => return answer,
            }
        }
    }

    /// A page of at most `limit` workflows, newest first. Reads all jobs of each.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn workflows(&self, before: Option<Uuid>, limit: i64) -> Result<WorkflowPage, Error> {
        inspect::workflows(&*self.connection().await?, before, limit).await
    }

    /// A workflow, if there is one with this id.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn workflow(&self, id: Uuid) -> Result<Option<WorkflowSummary>, Error> {
        inspect::workflow(&*self.connection().await?, id).await
    }

    /// The jobs of a workflow with what each waits for, 10,000 at most.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn workflow_jobs(&self, id: Uuid) -> Result<Vec<GraphJob>, Error> {
        inspect::workflow_jobs(&*self.connection().await?, id).await
    }

    /// Cancels what waits of a workflow and asks what runs to stop; how many jobs became what,
    /// and nothing when there is no such workflow.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn cancel_workflow(&self, id: Uuid) -> Result<WorkflowVerdicts, Error> {
        known(async || workflow::cancel_workflow(&*self.connection().await?, id).await).await
    }

    /// Lets the discarded jobs of a workflow run again, those cancelled on request, and what fell
    /// with them; how many jobs became what, and nothing when there is no such workflow.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn retry_workflow(&self, id: Uuid) -> Result<WorkflowVerdicts, Error> {
        workflow::retry_workflow(&*self.connection().await?, id).await
    }
}
