//! Why a job does not run.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Connection, Error};
use crate::model::{JobState, RawJson};
use crate::store::values::JsonbText;
use crate::store::word;

/// Where a job stands, since when, and what it waits for.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Its state.
    pub state: JobState,
    /// Since when it is in that state.
    pub since: OffsetDateTime,
    /// The answer in one sentence or two.
    pub summary: String,
    /// Its queue.
    pub queue: String,
    /// Its kind.
    pub kind: String,
    /// 0 runs first, 9 last.
    pub priority: i32,
    /// The number of its newest execution; 0 before the first.
    pub attempt: i32,
    /// When it becomes ready, while it is scheduled.
    pub due_at: Option<OffsetDateTime>,
    /// Since when its queue is paused.
    pub queue_paused_at: Option<OffsetDateTime>,
    /// The parents that a blocked job waits for, 20 at most: objects of `job_id`, `state` and
    /// `on_parent_failure`.
    pub waits_for: Option<RawJson>,
    /// The job whose end cancelled or holds this one.
    pub first_cause: Option<Uuid>,
    /// How many ready jobs are before it, while it is ready; 1,001 stands for more than 1,000.
    pub ahead: Option<i32>,
    /// Workers that ask for its queue.
    pub workers_on_queue: i32,
    /// Those of them that can run its kind.
    pub workers_for_kind: i32,
    /// Who runs it.
    pub worker: Option<Uuid>,
    /// Until when that worker holds it.
    pub lease_ends_at: Option<OffsetDateTime>,
}

/// What keeps a job from running, if there is one with this id.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn explain(connection: &Connection, id: Uuid) -> Result<Option<Explanation>, Error> {
    let sql = "SELECT state, since, summary, queue, kind, priority, attempt, due_at, \
               queue_paused_at, waits_for, first_cause, ahead, workers_on_queue, \
               workers_for_kind, worker, lease_ends_at FROM explain($1)";
    let Some(row) = connection.query_opt(sql, &[&id]).await? else { return Ok(None) };
    Ok(Some(Explanation {
        state: word(&row, 0)?,
        since: row.try_get(1)?,
        summary: row.try_get(2)?,
        queue: row.try_get(3)?,
        kind: row.try_get(4)?,
        priority: row.try_get(5)?,
        attempt: row.try_get(6)?,
        due_at: row.try_get(7)?,
        queue_paused_at: row.try_get(8)?,
        waits_for: row.try_get::<_, Option<JsonbText>>(9)?.map(|json| json.0),
        first_cause: row.try_get(10)?,
        ahead: row.try_get(11)?,
        workers_on_queue: row.try_get(12)?,
        workers_for_kind: row.try_get(13)?,
        worker: row.try_get(14)?,
        lease_ends_at: row.try_get(15)?,
    }))
}
