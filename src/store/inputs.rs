//! What the parents of jobs gave.

use uuid::Uuid;

use super::values::JsonbText;
use super::word;
use crate::db::{Connection, Error};
use crate::model::Input;

/// The inputs of these jobs, each with the job that they are for, in the order of the jobs; 10,000
/// at most.
///
/// # Errors
///
/// [`Error::Refused`] for more jobs than that.
pub async fn inputs_of(
    connection: &Connection,
    jobs: &[Uuid],
) -> Result<Vec<(Uuid, Input)>, Error> {
    let sql = "SELECT job_id, ref, parent, state, result, omitted FROM inputs_of($1)";
    let rows = connection.query(sql, &[&jobs]).await?;
    rows.iter()
        .map(|row| {
            let input = Input {
                reference: row.try_get(1)?,
                parent: row.try_get(2)?,
                state: word(row, 3)?,
                result: row.try_get::<_, Option<JsonbText>>(4)?.map(|json| json.0),
                omitted: row.try_get(5)?,
            };
            Ok((row.try_get(0)?, input))
        })
        .collect()
}
