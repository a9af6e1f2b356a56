//! Acquire: ready jobs for a worker.

use std::time::Duration;

use uuid::Uuid;

use super::values::{Interval, Jsonb, JsonbText, Moment, refuse_data, unless_all_null};
use crate::db::{Connection, Error, Row};
use crate::model::{AcquiredJob, Execution, RawJson, Token};

/// How many calls one statement may carry; `acquire_calls` in SQL.
pub const MOST_CALLS: usize = 100;

/// How many bytes of args one reply carries, if it has more than one job; `acquire_bytes` in SQL.
pub const MOST_BYTES: usize = 8 << 20;

/// How many bytes one job's args have at most; `args_bytes` in SQL.
pub const MOST_ARGS_BYTES: usize = 256 << 10;

/// What a worker asks for, and what it says of itself.
#[derive(Clone)]
pub struct AcquireCall {
    /// The worker: one incarnation of one process.
    pub worker: Uuid,
    /// The queues to take from, 100 at most.
    pub queues: Vec<String>,
    /// How many jobs at most, 1 to 1,000.
    pub max_jobs: i32,
    /// How long the worker may be silent before its jobs are taken back.
    pub lease: Duration,
    /// The kinds that it can run; all where `None`.
    pub kinds: Option<Vec<String>>,
    /// Its name, for people.
    pub name: Option<String>,
    /// How many jobs it runs at once.
    pub capacity: Option<i32>,
    /// Whatever it says of itself.
    pub metadata: Option<RawJson>,
    /// The worker's own number of this call; see `heartbeat`.
    pub call_number: Option<i64>,
}

impl AcquireCall {
    /// One job from these queues, under the default lease of the SQL function.
    #[must_use]
    pub fn new(worker: Uuid, queues: Vec<String>) -> Self {
        AcquireCall {
            worker,
            queues,
            max_jobs: 1,
            lease: Duration::from_secs(30),
            kinds: None,
            name: None,
            capacity: None,
            metadata: None,
            call_number: None,
        }
    }
}

/// Takes ready jobs, most urgent first.
///
/// # Errors
///
/// [`Error::Refused`] for arguments that are not valid.
pub async fn acquire(
    connection: &Connection,
    call: &AcquireCall,
) -> Result<Vec<AcquiredJob>, Error> {
    let sql = "SELECT job_id, attempt, token, queue, kind, priority, args, timeout, run_at, \
               created_at FROM acquire($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let metadata = call.metadata.as_deref().map(Jsonb);
    let lease = Interval(call.lease);
    let rows = connection
        .query(
            sql,
            &[
                &call.worker,
                &call.queues,
                &call.max_jobs,
                &lease,
                &call.kinds,
                &call.name,
                &call.capacity,
                &metadata,
                &call.call_number,
            ],
        )
        .await
        .map_err(refuse_data)?;
    rows.iter().map(acquired).collect()
}

/// The same for several workers that ask for the same queues and kinds under the same lease, those
/// of the first call; one answer a call, in input order. 100 calls and 1,000 jobs at most; metadata
/// is not looked at.
///
/// # Errors
///
/// [`Error::Refused`] when the arguments of one of them are not valid; nothing is done then.
pub async fn acquire_batch(
    connection: &Connection,
    calls: &[AcquireCall],
) -> Result<Vec<Vec<AcquiredJob>>, Error> {
    let mut answers = vec![Vec::new(); calls.len()];
    let Some(first) = calls.first() else { return Ok(answers) };
    let workers: Vec<Uuid> = calls.iter().map(|call| call.worker).collect();
    let max_jobs: Vec<i32> = calls.iter().map(|call| call.max_jobs).collect();
    let names = unless_all_null(calls.iter().map(|call| call.name.as_deref()).collect());
    let capacities = unless_all_null(calls.iter().map(|call| call.capacity).collect());
    let call_numbers = unless_all_null(calls.iter().map(|call| call.call_number).collect());
    let sql = "SELECT job_id, attempt, token, queue, kind, priority, args, timeout, run_at, \
               created_at, place FROM acquire_batch($1, $2, $3, $4, $5, $6, $7, $8)";
    let rows = connection
        .query(
            sql,
            &[
                &workers,
                &max_jobs,
                &first.queues,
                &Interval(first.lease),
                &first.kinds,
                &names,
                &capacities,
                &call_numbers,
            ],
        )
        .await
        .map_err(refuse_data)?;
    for row in &rows {
        let place: i32 = row.try_get(10)?;
        let place = usize::try_from(place).ok().and_then(|place| place.checked_sub(1));
        let answer = place.and_then(|place| answers.get_mut(place));
        answer.ok_or_else(|| Error::Other("a job came for nobody".into()))?.push(acquired(row)?);
    }
    Ok(answers)
}

fn acquired(row: &Row) -> Result<AcquiredJob, Error> {
    let priority: i32 = row.try_get(5)?;
    Ok(AcquiredJob {
        execution: Execution {
            job_id: row.try_get(0)?,
            attempt: row.try_get(1)?,
            token: Token::new(row.try_get(2)?),
        },
        queue: row.try_get(3)?,
        kind: row.try_get(4)?,
        priority: i16::try_from(priority).map_err(|error| Error::Other(error.into()))?,
        args: row.try_get::<_, JsonbText>(6)?.0,
        timeout: row.try_get::<_, Option<Interval>>(7)?.map(|interval| interval.0),
        run_at: row.try_get::<_, Moment>(8)?.0,
        created_at: row.try_get::<_, Moment>(9)?.0,
    })
}
