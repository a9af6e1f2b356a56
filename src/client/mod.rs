//! Enqueueing from a program, on its own connection and in its own transaction.
//!
//! ```no_run
//! use rowlock::{Client, NewJob};
//!
//! # async fn run(connection: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let rowlock = Client::default();
//! let transaction = connection.transaction().await?;
//! // ... the program's own writes, and with them:
//! let job = NewJob::new("welcome", "ann@example.org")?.queue("mail");
//! rowlock.enqueue_one(&transaction, job).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The job is there when the transaction commits, and never was when it rolls back. A program that
//! has no writes of its own beside it uses `Engine::enqueue_one`, whose calls
//! share commits.

use std::time::Duration;

use crate::config::{defaults, units};
use crate::db::{Error, GenericClient};
use crate::model::{NewJob, NewWorkflow, SchemaName};
use crate::store;

pub use crate::store::enqueue::Enqueued;
pub use crate::store::workflow::EnqueuedWorkflow;

/// Enqueues jobs into one Rowlock. It holds no connection: each call is given one.
#[derive(Clone, Debug)]
pub struct Client {
    schema: SchemaName,
    call_timeout: Duration,
}

impl Default for Client {
    /// A client of the schema `rowlock`.
    fn default() -> Self {
        Client::new(defaults::SCHEMA.parse().expect("the default is a schema name"))
    }
}

impl Client {
    /// A client of the Rowlock in this schema.
    #[must_use]
    pub fn new(schema: SchemaName) -> Self {
        let call_timeout = units::duration(defaults::CALL_TIMEOUT);
        Client { schema, call_timeout: call_timeout.expect("the default is a time") }
    }

    /// How long a call may wait for its answer, 35 s where nothing is said.
    #[must_use]
    pub fn call_timeout(mut self, deadline: Duration) -> Self {
        self.call_timeout = deadline;
        self
    }

    /// Enqueues jobs, all of them or none: 10,000 at most, with one answer a job in input order.
    /// They may depend on one another by [`NewJob::reference`].
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when a job is not valid, an id or key belongs to another job, or the
    /// call is too large. Nothing is stored then, and the caller's transaction has failed.
    /// [`Error::InDoubt`] when no answer came: drop the connection. Inside a transaction nothing is
    /// stored then; outside of one, and where the answer to the COMMIT does not come, it is not
    /// known, and jobs with ids may be enqueued again.
    pub async fn enqueue(
        &self,
        client: &impl GenericClient,
        jobs: &[NewJob],
    ) -> Result<Vec<Enqueued>, Error> {
        store::enqueue::enqueue_on(client, &self.schema, self.call_timeout, jobs).await
    }

    /// Enqueues one job.
    ///
    /// # Errors
    ///
    /// As [`Client::enqueue`].
    pub async fn enqueue_one(
        &self,
        client: &impl GenericClient,
        job: NewJob,
    ) -> Result<Enqueued, Error> {
        let mut answers = self.enqueue(client, std::slice::from_ref(&job)).await?;
        let missing = || Error::Other("the job that was enqueued was not answered".into());
        answers.pop().ok_or_else(missing)
    }

    /// Enqueues jobs as a workflow, all of them or none: what [`Client::enqueue`] does, and a
    /// name and an id to look at, cancel and retry them as one.
    ///
    /// # Errors
    ///
    /// As [`Client::enqueue`], and when the id belongs to a workflow of another name or of other
    /// jobs.
    pub async fn enqueue_workflow(
        &self,
        client: &impl GenericClient,
        workflow: &NewWorkflow,
        jobs: &[NewJob],
    ) -> Result<EnqueuedWorkflow, Error> {
        let deadline = self.call_timeout;
        store::workflow::enqueue_workflow_on(client, &self.schema, deadline, workflow, jobs).await
    }
}
