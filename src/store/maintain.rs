//! The maintenance duties, one statement a run.

use std::time::Duration;

use super::values::Interval;
use crate::db::{Connection, Error};
use crate::model::text::words;

words! {
    /// What maintenance has to do.
    Duty("duty") {
        /// Attaches children to the parents that their commit could not hold.
        Link = "link",
        /// Makes scheduled jobs ready that are due.
        Promote = "promote",
        /// Takes jobs back from workers that are lost, and ends what ran too long.
        Rescue = "rescue",
        /// Deletes what has ended long ago.
        Prune = "prune",
        /// Raises the floors of lanes, from which acquire starts.
        Floors = "floors",
    }
}

/// What one run of a duty did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DutyRun {
    /// How many rows it settled.
    pub done: u64,
    /// Whether there is more to do at once.
    pub more: bool,
    /// False if another server was at it.
    pub ran: bool,
}

/// Runs a duty once, unless another server is at it. A `recent` round looks only at what may have
/// become due in the last seconds, and never says `more` of the rest.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn try_duty(
    connection: &Connection,
    duty: Duty,
    max_rows: i32,
    recent: bool,
) -> Result<DutyRun, Error> {
    let sql = "SELECT done, more, ran FROM try_duty($1, $2, $3)";
    let row = connection.query_one(sql, &[&duty.as_str(), &max_rows, &recent]).await?;
    let done: i64 = row.try_get(0)?;
    Ok(DutyRun {
        done: u64::try_from(done).unwrap_or(0),
        more: row.try_get(1)?,
        ran: row.try_get(2)?,
    })
}

/// What the floors duty keeps in memory from one run to the next; nothing at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FloorNotes {
    mark: Option<i64>,
    holders: Vec<String>,
    server: Option<String>,
}

impl FloorNotes {
    /// Whether transactions were at work when they were taken; floors wait for those to end.
    #[must_use]
    pub fn name_someone(&self) -> bool {
        !self.holders.is_empty()
    }
}

/// Runs the floors duty once by these notes, unless another server is at it.
///
/// After an error the notes are forgotten: the server may be another one, or have lost something.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn try_floors(
    connection: &Connection,
    notes: &mut FloorNotes,
    max_rows: i32,
) -> Result<DutyRun, Error> {
    let FloorNotes { mark, holders, server } = std::mem::take(notes);
    let sql = "SELECT mark_after, holders_after, server_after, done, ran \
               FROM try_floors($1, $2, $3, $4)";
    let row = connection.query_one(sql, &[&mark, &holders, &server, &max_rows]).await?;
    let holders: Option<Vec<String>> = row.try_get(1)?;
    *notes = FloorNotes {
        mark: row.try_get(0)?,
        holders: holders.unwrap_or_default(),
        server: row.try_get(2)?,
    };
    let done: i64 = row.try_get(3)?;
    Ok(DutyRun { done: u64::try_from(done).unwrap_or(0), more: false, ran: row.try_get(4)? })
}

/// How long until the next scheduled job is due, by the database's clock; zero if one has been for
/// less than a few seconds. What is overdue for longer is held by others, or comes in a full round.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn next_due(connection: &Connection) -> Result<Option<Duration>, Error> {
    let sql = "SELECT min(run_at) - clock_timestamp() FROM scheduled \
               WHERE run_at >= (SELECT clock_timestamp() - default_of('recent'))";
    let row = connection.query_one(sql, &[]).await?;
    Ok(row.try_get::<_, Option<Interval>>(0)?.map(|interval| interval.0))
}
