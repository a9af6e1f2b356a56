//! Pages of jobs, newest first.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::{Connection, Error, Row};
use crate::model::JobState;
use crate::store::values::{Moment, refuse_data};
use crate::store::word;

/// How many jobs a page looks at, so that a filter that few jobs pass cannot walk the history.
pub const WALK: i64 = 50_000;

/// The columns of a [`JobSummary`], in the order of [`JobSummary::read`].
macro_rules! summary_columns {
    () => {
        "j.id, j.state, j.queue, j.kind, j.priority, j.attempt, j.failures, j.max_attempts, \
         j.args_bytes, j.created_at, j.run_at, j.finished_at, j.reason"
    };
}
pub(super) use summary_columns;

/// A page's statement: what a filter chooses from the jobs of one source.
macro_rules! page_sql {
    ($source:literal) => {
        concat!(
            "SELECT ",
            summary_columns!(),
            " FROM ",
            $source,
            " WHERE ($2::text IS NULL OR j.state = $2) AND ($3::text IS NULL OR j.queue = $3) \
             AND ($4::text IS NULL OR j.kind = $4) AND ($1::uuid IS NULL OR j.id < $1) \
             ORDER BY j.id DESC LIMIT $5"
        )
    };
}

/// Which jobs; `None` is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Jobs in this state.
    pub state: Option<JobState>,
    /// Jobs of this queue.
    pub queue: Option<String>,
    /// Jobs of this kind.
    pub kind: Option<String>,
    /// Jobs whose ids are lower: the last page's [`JobPage::next`].
    pub before: Option<Uuid>,
}

/// Jobs, by id from the highest, and where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobPage {
    /// The jobs; fewer than asked for, or none, does not mean that the end was reached.
    pub jobs: Vec<JobSummary>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Uuid>,
}

/// A job without its args.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSummary {
    /// The job.
    pub id: Uuid,
    /// Where it stands.
    pub state: JobState,
    /// Its queue.
    pub queue: String,
    /// What sort of job it is.
    pub kind: String,
    /// 0 runs first, 9 last.
    pub priority: i16,
    /// The number of its newest execution; 0 before the first.
    pub attempt: i32,
    /// What counts against `max_attempts`.
    pub failures: i32,
    /// So many failures discard it.
    pub max_attempts: i32,
    /// The length of its args as text.
    pub args_bytes: i32,
    /// When it was enqueued.
    pub created_at: OffsetDateTime,
    /// Not before this.
    pub run_at: OffsetDateTime,
    /// When it ended.
    pub finished_at: Option<OffsetDateTime>,
    /// Why it was cancelled, discarded or held, in words.
    pub reason: Option<String>,
}

impl JobSummary {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        Ok(JobSummary {
            id: row.try_get(0)?,
            state: word(row, 1)?,
            queue: row.try_get(2)?,
            kind: row.try_get(3)?,
            priority: row.try_get(4)?,
            attempt: row.try_get(5)?,
            failures: row.try_get(6)?,
            max_attempts: row.try_get(7)?,
            args_bytes: row.try_get(8)?,
            created_at: row.try_get::<_, Moment>(9)?.0,
            run_at: row.try_get::<_, Moment>(10)?.0,
            finished_at: row.try_get::<_, Option<Moment>>(11)?.map(|moment| moment.0),
            reason: row.try_get(12)?,
        })
    }
}

/// A page of at most `limit` jobs.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn jobs(
    connection: &Connection,
    filter: &JobFilter,
    limit: i64,
) -> Result<JobPage, Error> {
    let sql = match filter.state {
        Some(JobState::Scheduled) => page_sql!("scheduled w JOIN jobs j ON j.id = w.job_id"),
        Some(JobState::Blocked) => page_sql!("blocked w JOIN jobs j ON j.id = w.job_id"),
        Some(JobState::Ready) => page_sql!("ready w JOIN jobs j ON j.id = w.job_id"),
        Some(JobState::Running) => page_sql!("running w JOIN jobs j ON j.id = w.job_id"),
        // The literal is WALK.
        _ => page_sql!(
            "(SELECT * FROM jobs x WHERE $1::uuid IS NULL OR x.id < $1 \
             ORDER BY x.id DESC LIMIT 50000) j"
        ),
    };
    let state = filter.state.map(JobState::as_str);
    let rows = connection
        .query(sql, &[&filter.before, &state, &filter.queue, &filter.kind, &limit])
        .await
        .map_err(refuse_data)?;
    let jobs = rows.iter().map(JobSummary::read).collect::<Result<Vec<_>, _>>()?;
    let is_full = usize::try_from(limit).is_ok_and(|limit| limit <= jobs.len());
    let walked = filter.state.is_none_or(JobState::is_finished);
    let next = match jobs.last() {
        Some(last) if is_full => Some(last.id),
        _ if walked => walk_end(connection, filter.before).await?,
        _ => None,
    };
    Ok(JobPage { jobs, next })
}

/// Where a walk that found too little has stopped; `None` if that was the end.
async fn walk_end(connection: &Connection, before: Option<Uuid>) -> Result<Option<Uuid>, Error> {
    let sql = "SELECT x.id FROM jobs x WHERE $1::uuid IS NULL OR x.id < $1 \
               ORDER BY x.id DESC OFFSET $2 LIMIT 1";
    let row = connection.query_opt(sql, &[&before, &(WALK - 1)]).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}
