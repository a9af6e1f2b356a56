//! Workflows: jobs enqueued, cancelled and retried as one.

use std::time::Duration;

use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::enqueue::{Arrays, Enqueued, answers};
use super::values::refuse_data;
use super::word;
use crate::db::{Connection, Error, Param, Row, answered_within, typed};
use crate::model::{NewJob, NewWorkflow, SchemaName, WorkflowVerdict};

/// What became of a workflow and its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnqueuedWorkflow {
    /// The workflow: the one asked for if the call created a job, else the one that has the jobs.
    pub id: Option<Uuid>,
    /// The jobs, in input order.
    pub jobs: Vec<Enqueued>,
}

/// The parameters of an enqueue, with what makes the jobs a workflow.
const WORKFLOW_SQL: &str = "SELECT job_id, created, in_workflow FROM enqueue_batch(\
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, call_sizes => $14, edge_refs => $15, \
    wait_for_any => $16, workflow => $17, workflow_name => $18)";

/// Enqueues jobs as a workflow, all of them or none.
///
/// # Errors
///
/// [`Error::Refused`] when a job is not valid, an id or key belongs to another job, the call is too
/// large, or the workflow's id belongs to one of another name or of other jobs.
pub async fn enqueue_workflow(
    connection: &Connection,
    workflow: &NewWorkflow,
    jobs: &[NewJob],
) -> Result<EnqueuedWorkflow, Error> {
    let arrays = Arrays::of(jobs)?;
    let mut params = arrays.params().to_vec();
    params.extend([&workflow.id as &dyn Param, &workflow.name]);
    let rows = connection.query(WORKFLOW_SQL, &params).await;
    workflow_answer(workflow, &rows.map_err(refuse_data)?, jobs)
}

/// The same inside the caller's own transaction, on a connection that Rowlock did not set up.
///
/// # Errors
///
/// As [`enqueue_workflow`]; the transaction has failed then.
pub async fn enqueue_workflow_on(
    client: &impl GenericClient,
    schema: &SchemaName,
    deadline: Duration,
    workflow: &NewWorkflow,
    jobs: &[NewJob],
) -> Result<EnqueuedWorkflow, Error> {
    let arrays = Arrays::of(jobs)?;
    let mut params = arrays.params().to_vec();
    params.extend([&workflow.id as &dyn Param, &workflow.name]);
    let function = format!("{}.enqueue_batch", schema.quoted());
    let sql = WORKFLOW_SQL.replacen("enqueue_batch", &function, 1);
    let rows = answered_within(deadline, client.query_typed(&sql, &typed(&params))).await;
    workflow_answer(workflow, &rows.map_err(refuse_data)?, jobs)
}

fn workflow_answer(
    workflow: &NewWorkflow,
    rows: &[Row],
    jobs: &[NewJob],
) -> Result<EnqueuedWorkflow, Error> {
    let jobs = answers(rows, jobs)?;
    let found = rows.iter().map(|row| row.try_get(2)).collect::<Result<Vec<Option<Uuid>>, _>>()?;
    let ours = jobs.iter().any(|job| job.created) || found.contains(&Some(workflow.id));
    let id = if ours { Some(workflow.id) } else { found.into_iter().flatten().next() };
    Ok(EnqueuedWorkflow { id, jobs })
}

/// How many jobs became what.
pub type WorkflowVerdicts = Vec<(WorkflowVerdict, i64)>;

/// Cancels what waits of a workflow and asks what runs to stop; empty when there is no such one.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn cancel_workflow(connection: &Connection, id: Uuid) -> Result<WorkflowVerdicts, Error> {
    let sql = "SELECT verdict, count(*) FROM cancel_workflow($1) GROUP BY verdict ORDER BY verdict";
    connection.query(sql, &[&id]).await?.iter().map(verdict).collect()
}

/// Lets the discarded jobs of a workflow run again, those cancelled on request, and what fell with
/// them; empty when there is no such workflow.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn retry_workflow(connection: &Connection, id: Uuid) -> Result<WorkflowVerdicts, Error> {
    let sql = "SELECT verdict, count(*) FROM retry_workflow($1) GROUP BY verdict ORDER BY verdict";
    connection.query(sql, &[&id]).await?.iter().map(verdict).collect()
}

fn verdict(row: &Row) -> Result<(WorkflowVerdict, i64), Error> {
    Ok((word(row, 0)?, row.try_get(1)?))
}
