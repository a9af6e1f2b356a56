//! In which queues jobs, workflows and workers are: what a token of some queues is checked against.

use uuid::Uuid;

use crate::db::{Connection, Error};

/// The queues of those of these jobs that exist.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn queues_of_jobs(
    connection: &Connection,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, String)>, Error> {
    let sql = "SELECT j.id, j.queue FROM jobs j WHERE j.id = ANY ($1)";
    let rows = connection.query(sql, &[&ids]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The queues of the jobs of these workflows, each once.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn queues_of_workflows(
    connection: &Connection,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, String)>, Error> {
    let sql = "SELECT DISTINCT j.workflow, j.queue FROM jobs j WHERE j.workflow = ANY ($1)";
    let rows = connection.query(sql, &[&ids]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The queues that a worker asked for; none for one that is not known.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn queues_of_worker(connection: &Connection, id: Uuid) -> Result<Vec<String>, Error> {
    let sql = "SELECT w.queues FROM workers w WHERE w.id = $1";
    let row = connection.query_opt(sql, &[&id]).await?;
    row.map_or_else(|| Ok(Vec::new()), |row| Ok(row.try_get(0)?))
}
