//! The verbs of operators: cancel, retry, reprioritize, pause, resume.

use uuid::Uuid;

use super::values::refuse_data;
use super::word;
use crate::db::{Connection, Error};
use crate::model::{CancelVerdict, ReprioritizeVerdict, RetryVerdict};

/// Cancels waiting jobs and asks running ones to stop; one verdict a job, in input order.
///
/// # Errors
///
/// [`Error::Refused`] with `RL429` when others hold one of the jobs; nothing is done then.
pub async fn cancel(
    connection: &Connection,
    job_ids: &[Uuid],
) -> Result<Vec<CancelVerdict>, Error> {
    let rows = connection.query("SELECT verdict FROM cancel($1)", &[&job_ids]).await?;
    rows.iter().map(|row| word(row, 0)).collect()
}

/// Lets discarded and cancelled jobs run again, and held ones go; one verdict a job.
///
/// # Errors
///
/// [`Error::Refused`] with `RL429` when others hold one of the jobs; nothing is done then.
pub async fn retry(connection: &Connection, job_ids: &[Uuid]) -> Result<Vec<RetryVerdict>, Error> {
    let rows = connection.query("SELECT verdict FROM retry($1)", &[&job_ids]).await?;
    rows.iter().map(|row| word(row, 0)).collect()
}

/// Gives jobs another priority; one verdict a job.
///
/// # Errors
///
/// [`Error::Refused`] for a priority that is not 0 to 9, and with `RL429` when others hold one of
/// the jobs; nothing is done then.
pub async fn reprioritize(
    connection: &Connection,
    job_ids: &[Uuid],
    priority: i16,
) -> Result<Vec<ReprioritizeVerdict>, Error> {
    let sql = "SELECT verdict FROM reprioritize($1, $2)";
    let rows = connection.query(sql, &[&job_ids, &i32::from(priority)]).await?;
    rows.iter().map(|row| word(row, 0)).collect()
}

/// Stops acquires from a queue. False if it was paused.
///
/// # Errors
///
/// [`Error::Refused`] for a name that is not one.
pub async fn pause_queue(connection: &Connection, queue: &str) -> Result<bool, Error> {
    let row = connection.query_one("SELECT pause_queue($1)", &[&queue]).await;
    Ok(row.map_err(refuse_data)?.try_get(0)?)
}

/// Lets acquires from a queue go on. False if it was not paused.
///
/// # Errors
///
/// [`Error::Refused`] for a name that is not one.
pub async fn resume_queue(connection: &Connection, queue: &str) -> Result<bool, Error> {
    let row = connection.query_one("SELECT resume_queue($1)", &[&queue]).await;
    Ok(row.map_err(refuse_data)?.try_get(0)?)
}

/// Which of these queues, 256 at most, are paused.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn paused(connection: &Connection, queues: &[String]) -> Result<Vec<String>, Error> {
    let row = connection.query_one("SELECT paused($1)", &[&queues]).await;
    Ok(row.map_err(refuse_data)?.try_get(0)?)
}
