//! Verify: every invariant of the model, checked over all that is stored.

use std::time::Duration;

use crate::db::{Connection, Error, Transaction};

/// One invariant, and how it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What must be true, in words.
    pub invariant: String,
    /// In how many cases it is not; zero in a healthy database.
    pub violations: i64,
    /// The id or key of one such case.
    pub sample: Option<String>,
}

/// Checks every invariant, one finding each.
///
/// # Errors
///
/// By class; see [`Error`]. It reads everything, which the statement timeout may cut short.
pub async fn verify(connection: &Connection) -> Result<Vec<Finding>, Error> {
    let sql = "SELECT invariant, violations, sample FROM verify()";
    let rows = connection.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Finding {
                invariant: row.try_get(0)?,
                violations: row.try_get(1)?,
                sample: row.try_get(2)?,
            })
        })
        .collect()
}

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// The same without a statement timeout, unless another server is at it: `None` then.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn try_verify(transaction: &Transaction<'_>) -> Result<Option<Vec<Finding>>, Error> {
    let sql = "SELECT pg_try_advisory_xact_lock(duty_key('verify'))";
    if !transaction.query_one(sql, &[]).await?.try_get::<_, bool>(0)? {
        return Ok(None);
    }
    transaction.allow(PATIENCE);
    transaction.batch("SET LOCAL statement_timeout = 0").await?;
    verify(transaction).await.map(Some)
}
