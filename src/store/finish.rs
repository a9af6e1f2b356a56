//! The ends of executions: complete, fail, snooze, release. One verdict an entry, in input order.

use time::OffsetDateTime;
use uuid::Uuid;

use super::values::{Executions, Jsonb, refuse_data, unless_all_null};
use super::word;
use crate::db::{Connection, Error, Row};
use crate::model::{Execution, FinishVerdict, RawJson};

/// An execution that went well, with the result that it gave, if any.
pub type Completion = (Execution, Option<RawJson>);

/// An execution that went badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub execution: Execution,
    /// What went wrong, in words; cut to 16 KiB.
    pub error: Option<String>,
    /// When to run again; after the backoff where `None`.
    pub retry_at: Option<OffsetDateTime>,
    /// Whether to give the job up at once.
    pub discard: bool,
}

/// An execution to be put off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snooze {
    /// Which.
    pub execution: Execution,
    /// Until when.
    pub until: OffsetDateTime,
}

/// Ends executions well.
///
/// # Errors
///
/// [`Error::Refused`] also for a result that no column can hold; nothing is done then.
pub async fn complete(
    connection: &Connection,
    worker: Uuid,
    entries: &[Completion],
) -> Result<Vec<FinishVerdict>, Error> {
    let Executions { job_ids, attempts, tokens } =
        Executions::of(entries.iter().map(|(execution, _)| *execution));
    let results =
        unless_all_null(entries.iter().map(|(_, result)| result.as_deref().map(Jsonb)).collect());
    let sql = "SELECT verdict FROM complete($1, $2, $3, $4, $5)";
    let rows = connection.query(sql, &[&worker, &job_ids, &attempts, &tokens, &results]).await;
    verdicts(&rows.map_err(refuse_data)?)
}

/// The same for entries of several workers.
///
/// # Errors
///
/// As [`complete`].
pub async fn complete_batch(
    connection: &Connection,
    entries: &[(Uuid, &Completion)],
) -> Result<Vec<FinishVerdict>, Error> {
    let workers: Vec<Uuid> = entries.iter().map(|(worker, _)| *worker).collect();
    let Executions { job_ids, attempts, tokens } =
        Executions::of(entries.iter().map(|(_, (execution, _))| *execution));
    let results = unless_all_null(
        entries.iter().map(|(_, (_, result))| result.as_deref().map(Jsonb)).collect(),
    );
    let sql = "SELECT verdict FROM complete_batch($1, $2, $3, $4, $5)";
    let rows = connection.query(sql, &[&workers, &job_ids, &attempts, &tokens, &results]).await;
    verdicts(&rows.map_err(refuse_data)?)
}

/// Ends executions badly: their jobs run again, or are discarded.
///
/// # Errors
///
/// [`Error::Refused`] for a time that is out of range; nothing is done then.
pub async fn fail(
    connection: &Connection,
    worker: Uuid,
    entries: &[Failure],
) -> Result<Vec<FinishVerdict>, Error> {
    let Executions { job_ids, attempts, tokens } =
        Executions::of(entries.iter().map(|entry| entry.execution));
    // Failing always succeeds, whatever the words: Postgres has no text with NUL in it.
    let errors: Vec<Option<String>> = entries
        .iter()
        .map(|entry| entry.error.as_ref().map(|text| text.replace('\0', "")))
        .collect();
    let retry_at = unless_all_null(entries.iter().map(|entry| entry.retry_at).collect());
    let discard: Vec<bool> = entries.iter().map(|entry| entry.discard).collect();
    let sql = "SELECT verdict FROM fail($1, $2, $3, $4, $5, $6, $7)";
    let rows = connection
        .query(sql, &[&worker, &job_ids, &attempts, &tokens, &errors, &retry_at, &discard])
        .await?;
    verdicts(&rows)
}

/// Puts executions off to a later time, which does not count as an attempt.
///
/// # Errors
///
/// [`Error::Refused`] for a time that is out of range; nothing is done then.
pub async fn snooze(
    connection: &Connection,
    worker: Uuid,
    entries: &[Snooze],
) -> Result<Vec<FinishVerdict>, Error> {
    let Executions { job_ids, attempts, tokens } =
        Executions::of(entries.iter().map(|entry| entry.execution));
    let until: Vec<OffsetDateTime> = entries.iter().map(|entry| entry.until).collect();
    let sql = "SELECT verdict FROM snooze($1, $2, $3, $4, $5)";
    let rows = connection.query(sql, &[&worker, &job_ids, &attempts, &tokens, &until]).await?;
    verdicts(&rows)
}

/// Gives executions back unharmed; their jobs are ready at once.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn release(
    connection: &Connection,
    worker: Uuid,
    entries: &[Execution],
) -> Result<Vec<FinishVerdict>, Error> {
    let Executions { job_ids, attempts, tokens } = Executions::of(entries.iter().copied());
    let sql = "SELECT verdict FROM release($1, $2, $3, $4)";
    verdicts(&connection.query(sql, &[&worker, &job_ids, &attempts, &tokens]).await?)
}

fn verdicts(rows: &[Row]) -> Result<Vec<FinishVerdict>, Error> {
    rows.iter().map(|row| word(row, 0)).collect()
}
