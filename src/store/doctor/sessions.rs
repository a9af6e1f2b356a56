//! Who keeps old snapshots, and whose sessions they are.

use std::time::Duration;

use crate::db::{Client, Connection, Error};

/// Somebody for whose sake dead rows are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it is and what it is called.
    pub name: String,
    /// Since when.
    pub age: Duration,
    /// Whether it has written, and so keeps the lanes' floors down.
    pub writes: bool,
}

/// Sessions, prepared transactions and replication slots that have kept dead rows from being
/// removed for longer than `bound`; the oldest first, fifty at most.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn holders(connection: &Connection, bound: Duration) -> Result<Vec<Holder>, Error> {
    let sql = "\
        SELECT h.name, h.age::float8, h.writes FROM ( \
          SELECT format('session %s of %s (%s, %s)', a.pid, coalesce(a.usename, a.backend_type), \
              coalesce(nullif(a.application_name, ''), 'no application_name'), \
              coalesce(a.state, a.backend_type)) AS name, \
            extract(epoch FROM clock_timestamp() \
              - coalesce(a.xact_start, a.backend_start)) AS age, \
            a.backend_xid IS NOT NULL AND a.datname = current_database() AS writes \
          FROM pg_stat_activity a \
          WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) \
            AND a.pid <> pg_backend_pid() \
            AND a.backend_type NOT IN ('autovacuum worker', 'autovacuum launcher', 'walsender') \
          UNION ALL \
          SELECT format('prepared transaction %L of %s in %s', p.gid, p.owner, p.database), \
            extract(epoch FROM clock_timestamp() - p.prepared), \
            p.database = current_database() \
          FROM pg_prepared_xacts p \
          UNION ALL \
          SELECT format('replication slot %s (%s)', s.slot_name, \
              CASE WHEN s.active THEN 'active' ELSE 'nobody reads it' END), \
            CASE WHEN s.active THEN 0 ELSE 1e9 END, false \
          FROM pg_replication_slots s \
          WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL) h \
        WHERE h.age >= $1::float8 ORDER BY h.age DESC, h.name LIMIT 50";
    let rows = connection.query(sql, &[&bound.as_secs_f64()]).await?;
    rows.iter()
        .map(|row| {
            let age: f64 = row.try_get(1)?;
            Ok(Holder {
                name: row.try_get(0)?,
                age: Duration::try_from_secs_f64(age).unwrap_or_default(),
                writes: row.try_get(2)?,
            })
        })
        .collect()
}

/// How many sessions of others this role may not look into.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn hidden_sessions(connection: &Connection) -> Result<i64, Error> {
    let sql = "SELECT count(*) FROM pg_stat_activity a \
               WHERE a.usesysid IS NOT NULL AND NOT pg_has_role(a.usesysid, 'USAGE') \
                 AND NOT pg_has_role('pg_read_all_stats', 'USAGE')";
    connection.query_one(sql, &[]).await?.try_get(0).map_err(Error::from)
}

/// The process that serves this client at this moment, unprepared: behind a transaction pooler
/// the next statement may have another.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn backend_of(client: &Client) -> Result<i32, Error> {
    let row = client.query_typed_one("SELECT pg_backend_pid()", &[]).await?;
    Ok(row.try_get(0)?)
}

/// Begins a transaction that lasts as long as the client: until then nobody else has its session.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn hold_session(client: &Client) -> Result<(), Error> {
    Ok(client.batch_execute("BEGIN READ ONLY").await?)
}
