//! What the worker library says beyond the plain verbs: by the database's clock, and in a
//! handler's own transaction.

use std::time::Duration;

use uuid::Uuid;

use super::finish::Completion;
use super::values::{Executions, Interval, Jsonb, refuse_data};
use super::word;
use crate::db::{Connection, Error, GenericClient, Params, answered_within, typed};
use crate::model::{Execution, FinishVerdict, SchemaName};

/// Puts executions off by a length of time, counted by the database's clock.
///
/// # Errors
///
/// [`Error::Refused`] for a time that is out of range; nothing is done then.
pub async fn snooze_for(
    connection: &Connection,
    worker: Uuid,
    entries: &[(Execution, Duration)],
) -> Result<Vec<FinishVerdict>, Error> {
    let Executions { job_ids, attempts, tokens } =
        Executions::of(entries.iter().map(|(execution, _)| *execution));
    let pauses: Vec<Interval> = entries.iter().map(|(_, pause)| Interval(*pause)).collect();
    let sql = "SELECT verdict FROM snooze($1, $2, $3, $4, ARRAY(\
               SELECT clock_timestamp() + p.pause \
               FROM unnest($5::interval[]) WITH ORDINALITY p (pause, n) ORDER BY p.n))";
    let rows = connection.query(sql, &[&worker, &job_ids, &attempts, &tokens, &pauses]).await?;
    rows.iter().map(|row| word(row, 0)).collect()
}

/// Ends one execution well inside the caller's own transaction, on a connection that Rowlock did
/// not set up. False when the job was asked to stop and is cancelled.
///
/// # Errors
///
/// [`Error::Refused`] with `RL001` when the token is stale or the execution has been completed
/// already, `RL413` for a result too large; the transaction has failed then.
pub async fn complete_on(
    client: &impl GenericClient,
    schema: &SchemaName,
    deadline: Duration,
    worker: Uuid,
    (execution, result): &Completion,
) -> Result<bool, Error> {
    let Execution { job_id, attempt, token } = execution;
    let result = result.as_deref().map(Jsonb);
    let sql = format!("SELECT {}.complete_or_raise($1, $2, $3, $4, $5)", schema.quoted());
    let params: Params<'_> = &[&worker, job_id, attempt, &token.expose(), &result];
    let row = answered_within(deadline, client.query_typed_one(&sql, &typed(params))).await;
    Ok(row.map_err(refuse_data)?.try_get(0)?)
}
