//! Heartbeat: one call extends everything that a worker holds, and says what it must stop.

use std::time::Duration;

use uuid::Uuid;

use super::values::{Executions, Interval};
use super::word;
use crate::db::{Connection, Error};
use crate::model::{Execution, HeartbeatVerdict};

/// Extends the lease; one verdict an execution, in input order.
///
/// `seen_call` n says that the worker's calls of `acquire` 1 to n were all answered or given up:
/// what they granted and `held` does not list is given back.
///
/// # Errors
///
/// [`Error::Refused`] for a lease that is too short or too long.
pub async fn heartbeat(
    connection: &Connection,
    worker: Uuid,
    held: &[Execution],
    lease: Duration,
    seen_call: Option<i64>,
) -> Result<Vec<HeartbeatVerdict>, Error> {
    let Executions { job_ids, attempts, tokens } = Executions::of(held.iter().copied());
    let sql = "SELECT verdict FROM heartbeat($1, $2, $3, $4, $5, $6)";
    let lease = Interval(lease);
    let rows =
        connection.query(sql, &[&worker, &job_ids, &attempts, &tokens, &lease, &seen_call]).await?;
    rows.iter().map(|row| word(row, 0)).collect()
}
