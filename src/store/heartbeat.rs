//! Heartbeat: one call extends everything that a worker holds, and says what it must stop.

use std::time::Duration;

use uuid::Uuid;

use super::values::{Executions, Interval};
use super::word;
use crate::db::{Connection, Error};
use crate::model::{Execution, HeartbeatVerdict, UnknownWord};

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

/// The arguments of one [`heartbeat`] among several.
#[derive(Clone, Debug)]
pub struct HeartbeatCall {
    /// The worker: one incarnation of one process.
    pub worker: Uuid,
    /// Its executions; 10,000 at most.
    pub held: Vec<Execution>,
    /// How long it may be silent from now on.
    pub lease: Duration,
    /// See [`heartbeat`].
    pub seen_call: Option<i64>,
}

/// How many calls one statement may carry; `acquire_calls` in SQL.
pub const MOST_CALLS: usize = 100;

/// The same for several workers; one answer a call, in input order. `None` is for a call of which
/// nothing was done, since it needs more than an extension: call [`heartbeat`] for it.
///
/// # Errors
///
/// [`Error::Refused`] when one of the leases is not valid; nothing is done then.
pub async fn heartbeat_batch(
    connection: &Connection,
    calls: &[HeartbeatCall],
) -> Result<Vec<Option<Vec<HeartbeatVerdict>>>, Error> {
    let workers: Vec<Uuid> = calls.iter().map(|call| call.worker).collect();
    let leases: Vec<Interval> = calls.iter().map(|call| Interval(call.lease)).collect();
    let seen_calls: Vec<Option<i64>> = calls.iter().map(|call| call.seen_call).collect();
    let sizes = calls.iter().map(|call| i32::try_from(call.held.len()));
    let sizes: Vec<i32> =
        sizes.collect::<Result<_, _>>().map_err(|error| Error::Other(error.into()))?;
    let Executions { job_ids, attempts, tokens } =
        Executions::of(calls.iter().flat_map(|call| &call.held).copied());
    let sql = "SELECT beaten, verdicts FROM heartbeat_batch($1, $2, $3, $4, $5, $6, $7)";
    let row = connection
        .query_one(sql, &[&workers, &leases, &seen_calls, &sizes, &job_ids, &attempts, &tokens])
        .await?;
    let beaten: Vec<bool> = row.try_get(0)?;
    let words: Vec<Option<&str>> = row.try_get(1)?;
    let mut words = words.into_iter();
    let own = |(call, beaten): (&HeartbeatCall, bool)| {
        let own = words.by_ref().take(call.held.len());
        if !beaten {
            own.for_each(drop);
            return Ok(None);
        }
        let verdicts: Result<_, UnknownWord> = own.map(|word| word.unwrap_or("").parse()).collect();
        verdicts.map(Some).map_err(|error| Error::Other(error.into()))
    };
    calls.iter().zip(beaten).map(own).collect()
}
