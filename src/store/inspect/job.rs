//! One job, with its executions and its relatives.

use time::OffsetDateTime;
use uuid::Uuid;

use super::jobs::{JobSummary, summary_columns};
use crate::db::{Connection, Error, Row};
use crate::model::{JobState, OnParentFailure, RawJson};
use crate::store::values::{Interval, JsonbText};
use crate::store::word;

/// How many executions a job is shown with, the newest first.
pub const MOST_EXECUTIONS: i64 = 100;

/// How many parents, and how many children, a job is shown with.
pub const MOST_RELATIVES: i64 = 1_000;

/// A job with everything that is known of it.
#[derive(Clone)]
pub struct JobDetails {
    /// What a list shows.
    pub summary: JobSummary,
    /// The arguments; null where they cannot be read.
    pub args: RawJson,
    /// How long one execution may take.
    pub timeout: Option<std::time::Duration>,
    /// Its unique key.
    pub unique_key: Option<String>,
    /// The job whose end cancelled or holds this one.
    pub cause: Option<Uuid>,
    /// The workflow that it was enqueued in.
    pub workflow: Option<Uuid>,
    /// When it was asked to stop.
    pub cancel_requested_at: Option<OffsetDateTime>,
    /// How many parents it waits for.
    pub waits_for: i32,
    /// The result of the execution that completed it.
    pub result: Option<RawJson>,
    /// Its newest executions, the newest first; [`MOST_EXECUTIONS`] at most.
    pub executions: Vec<ExecutionRecord>,
    /// The jobs that it waits or waited for; [`MOST_RELATIVES`] at most.
    pub parents: Vec<Relative>,
    /// The jobs that wait or waited for it; [`MOST_RELATIVES`] at most.
    pub children: Vec<Relative>,
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionRecord {
    /// Its number.
    pub attempt: i32,
    /// Who runs or ran it.
    pub worker: Uuid,
    /// Since when the job had been ready.
    pub ready_at: OffsetDateTime,
    /// When it was acquired.
    pub started_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// `completed`, `failed`, `snoozed`, `released`, `cancelled`, `lost` or `timed_out`.
    pub outcome: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// The other end of a dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relative {
    /// The job.
    pub job_id: Uuid,
    /// Where it stands; `None` for a parent that has completed and was pruned.
    pub state: Option<JobState>,
    /// What the child does when the parent does not complete.
    pub policy: OnParentFailure,
}

/// A job, if there is one with this id.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn job(connection: &Connection, id: Uuid) -> Result<Option<JobDetails>, Error> {
    let sql = concat!(
        "SELECT ",
        summary_columns!(),
        ", coalesce(readable(j.args), 'null'), j.timeout, j.unique_key, j.cause, \
         j.cancel_requested_at, coalesce(b.remaining, 0), readable(e.result), j.workflow \
         FROM jobs j LEFT JOIN blocked b ON b.job_id = j.id \
         LEFT JOIN executions e ON e.job_id = j.id AND e.attempt = j.attempt WHERE j.id = $1"
    );
    let Some(row) = connection.query_opt(sql, &[&id]).await? else { return Ok(None) };
    Ok(Some(JobDetails {
        summary: JobSummary::read(&row)?,
        args: row.try_get::<_, JsonbText>(13)?.0,
        timeout: row.try_get::<_, Option<Interval>>(14)?.map(|interval| interval.0),
        unique_key: row.try_get(15)?,
        cause: row.try_get(16)?,
        workflow: row.try_get(20)?,
        cancel_requested_at: row.try_get(17)?,
        waits_for: row.try_get(18)?,
        result: row.try_get::<_, Option<JsonbText>>(19)?.map(|json| json.0),
        executions: executions(connection, id).await?,
        parents: relatives(connection, PARENTS, id).await?,
        children: relatives(connection, CHILDREN, id).await?,
    }))
}

/// Whether a job has ended; `None` if there is none. Costs one probe.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn is_finished(connection: &Connection, id: Uuid) -> Result<Option<bool>, Error> {
    let sql = "SELECT j.finished_at IS NOT NULL FROM jobs j WHERE j.id = $1";
    let row = connection.query_opt(sql, &[&id]).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

async fn executions(connection: &Connection, id: Uuid) -> Result<Vec<ExecutionRecord>, Error> {
    let sql = "SELECT e.attempt, e.worker, e.ready_at, e.started_at, e.finished_at, e.outcome, \
               e.error FROM executions e WHERE e.job_id = $1 ORDER BY e.attempt DESC LIMIT $2";
    let rows = connection.query(sql, &[&id, &MOST_EXECUTIONS]).await?;
    let read = |row: &Row| {
        Ok(ExecutionRecord {
            attempt: row.try_get(0)?,
            worker: row.try_get(1)?,
            ready_at: row.try_get(2)?,
            started_at: row.try_get(3)?,
            finished_at: row.try_get(4)?,
            outcome: row.try_get(5)?,
            error: row.try_get(6)?,
        })
    };
    rows.iter().map(read).collect()
}

/// A link is a dependency that is not attached yet.
const PARENTS: &str = "SELECT d.parent, j.state, d.policy FROM (\
    SELECT x.parent, x.policy FROM dependencies x WHERE x.child = $1 \
    UNION SELECT x.parent, x.policy FROM links x WHERE x.child = $1) d \
    LEFT JOIN jobs j ON j.id = d.parent ORDER BY d.parent LIMIT $2";

const CHILDREN: &str = "SELECT d.child, j.state, d.policy FROM (\
    (SELECT x.child, x.policy FROM dependencies x WHERE x.parent = $1 ORDER BY x.child LIMIT $2) \
    UNION (SELECT x.child, x.policy FROM links x WHERE x.parent = $1 ORDER BY x.child LIMIT $2)) d \
    LEFT JOIN jobs j ON j.id = d.child ORDER BY d.child LIMIT $2";

async fn relatives(
    connection: &Connection,
    sql: &'static str,
    id: Uuid,
) -> Result<Vec<Relative>, Error> {
    let rows = connection.query(sql, &[&id, &MOST_RELATIVES]).await?;
    let read = |row: &Row| {
        let state: Option<&str> = row.try_get(1)?;
        let state = state.is_some().then(|| word(row, 1)).transpose()?;
        Ok(Relative { job_id: row.try_get(0)?, state, policy: word(row, 2)? })
    };
    rows.iter().map(read).collect()
}
