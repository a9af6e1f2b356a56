//! Workflows: pages of them, and the jobs of one.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Connection, Error, Row};
use crate::model::{GraphJob, JobState, WorkflowState};
use crate::store::word;

/// A workflow as its jobs say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowSummary {
    /// The workflow.
    pub id: Uuid,
    /// What people call it.
    pub name: Option<String>,
    /// Where it stands.
    pub state: WorkflowState,
    /// When it was enqueued.
    pub created_at: OffsetDateTime,
    /// When the last of its jobs ended; `None` while one has not.
    pub finished_at: Option<OffsetDateTime>,
    /// How many jobs it was enqueued with.
    pub jobs: i32,
    /// How many of them have ended, however they did.
    pub done: i32,
    /// How many stand where, those that were pruned left out.
    pub counts: Vec<(JobState, i32)>,
    /// How many of the blocked ones are held until a person acts.
    pub held: i32,
    /// How many were pruned.
    pub pruned: i32,
}

/// Workflows, by id from the highest, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowPage {
    /// The workflows.
    pub workflows: Vec<WorkflowSummary>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Uuid>,
}

/// The columns of a [`WorkflowSummary`], in the order of [`WorkflowSummary::read`].
macro_rules! workflow_sql {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, state, created_at, finished_at, jobs, done, held, pruned, blocked, \
             scheduled, ready, running, completed, cancelled, discarded FROM workflow_details ",
            $rest
        )
    };
}

impl WorkflowSummary {
    fn read(row: &Row) -> Result<Self, Error> {
        let counts = (9..).zip(JobState::ALL);
        Ok(WorkflowSummary {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            state: word(row, 2)?,
            created_at: row.try_get(3)?,
            finished_at: row.try_get(4)?,
            jobs: row.try_get(5)?,
            done: row.try_get(6)?,
            held: row.try_get(7)?,
            pruned: row.try_get(8)?,
            counts: counts
                .map(|(column, state)| Ok((*state, row.try_get(column)?)))
                .collect::<Result<_, Error>>()?,
        })
    }
}

/// A page of at most `limit` workflows. Reads all jobs of each.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn workflows(
    connection: &Connection,
    before: Option<Uuid>,
    limit: i64,
) -> Result<WorkflowPage, Error> {
    let sql = workflow_sql!("WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2");
    let rows = connection.query(sql, &[&before, &limit]).await?;
    let workflows = rows.iter().map(WorkflowSummary::read).collect::<Result<Vec<_>, _>>()?;
    let is_full = usize::try_from(limit).is_ok_and(|limit| limit <= workflows.len());
    let next = workflows.last().filter(|_| is_full).map(|last| last.id);
    Ok(WorkflowPage { workflows, next })
}

/// A workflow, if there is one with this id.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn workflow(connection: &Connection, id: Uuid) -> Result<Option<WorkflowSummary>, Error> {
    let row = connection.query_opt(workflow_sql!("WHERE id = $1"), &[&id]).await?;
    row.as_ref().map(WorkflowSummary::read).transpose()
}

/// The jobs of a workflow with what each waits for, 10,000 at most.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn workflow_jobs(connection: &Connection, id: Uuid) -> Result<Vec<GraphJob>, Error> {
    let sql = "SELECT job_id, kind, queue, state, is_held, parents FROM workflow_jobs($1)";
    let job = |row: &Row| {
        Ok(GraphJob {
            id: row.try_get(0)?,
            kind: row.try_get(1)?,
            queue: row.try_get(2)?,
            state: word(row, 3)?,
            is_held: row.try_get(4)?,
            parents: row.try_get(5)?,
        })
    };
    connection.query(sql, &[&id]).await?.iter().map(job).collect()
}
