//! Acquire: ready jobs for a worker.

use std::time::Duration;

use uuid::Uuid;

use super::values::{Interval, Jsonb, JsonbText, refuse_data};
use crate::db::{Connection, Error, Row};
use crate::model::{AcquiredJob, Execution, RawJson, Token};

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
        run_at: row.try_get(8)?,
        created_at: row.try_get(9)?,
    })
}
