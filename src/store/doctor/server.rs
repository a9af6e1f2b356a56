//! The server and how the session stands to it.

use std::time::Duration;

use crate::db::{Connection, Error};

/// One look at the server.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// What the server calls itself.
    pub version: String,
    /// The same as a number: 150016 is 15.16.
    pub version_number: i32,
    /// Settings on which durability rests, that are off: their names.
    pub not_durable: Vec<String>,
    /// Whether somebody has said that data may be lost here.
    pub may_lose_data: bool,
    /// Whether dead rows are removed at all.
    pub autovacuum: bool,
    /// How often autovacuum looks.
    pub autovacuum_pause: Duration,
    /// Whether pages carry checksums.
    pub checksums: bool,
    /// The database's encoding.
    pub encoding: String,
    /// How passwords are stored.
    pub password_encryption: String,
    /// Whether this is a standby.
    pub in_recovery: bool,
    /// Whether sessions begin read only.
    pub read_only: bool,
    /// How many connections this role may have here.
    pub connections: i64,
    /// How full the queue of notifications is, from 0 to 1.
    pub notifications: f64,
    /// The share of transaction ids used up since the oldest row was frozen, from 0 to 1.
    pub ids_used: f64,
    /// Whether statements, and so args, are written to the server's log.
    pub logs_statements: bool,
    /// Whether the connection comes from another machine, in the clear.
    pub is_exposed: bool,
    /// Who is connected.
    pub role: String,
    /// Whether that is a superuser.
    pub is_superuser: bool,
    /// The server's clock, in seconds since 1970.
    pub clock: f64,
}

/// Looks at the server.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn server_facts(connection: &Connection) -> Result<ServerFacts, Error> {
    let row = connection.query_one(SERVER_SQL, &[]).await?;
    Ok(ServerFacts {
        version: row.try_get("version")?,
        version_number: row.try_get("version_number")?,
        not_durable: row.try_get("not_durable")?,
        may_lose_data: row.try_get("may_lose_data")?,
        autovacuum: row.try_get("autovacuum")?,
        autovacuum_pause: Duration::try_from_secs_f64(row.try_get("autovacuum_pause")?)
            .unwrap_or_default(),
        checksums: row.try_get("checksums")?,
        encoding: row.try_get("encoding")?,
        password_encryption: row.try_get("password_encryption")?,
        in_recovery: row.try_get("in_recovery")?,
        read_only: row.try_get("read_only")?,
        connections: row.try_get("connections")?,
        notifications: row.try_get("notifications")?,
        ids_used: row.try_get("ids_used")?,
        logs_statements: row.try_get("logs_statements")?,
        is_exposed: row.try_get("is_exposed")?,
        role: row.try_get("role")?,
        is_superuser: row.try_get("is_superuser")?,
        clock: row.try_get("clock")?,
    })
}

/// A setting that an older server does not have counts as if it were not set.
const SERVER_SQL: &str = "\
    SELECT current_setting('server_version') AS version, \
      current_setting('server_version_num')::int AS version_number, \
      ARRAY(SELECT s.name FROM pg_settings s \
        WHERE s.name IN ('fsync', 'full_page_writes', 'synchronous_commit') \
          AND s.setting = 'off' ORDER BY s.name) AS not_durable, \
      coalesce(current_setting('rowlock.allow_data_loss', true) \
        IN ('on', 'true', 'yes', '1'), false) AS may_lose_data, \
      current_setting('autovacuum')::bool AND current_setting('track_counts')::bool \
        AS autovacuum, \
      extract(epoch FROM current_setting('autovacuum_naptime')::interval)::float8 \
        AS autovacuum_pause, \
      current_setting('data_checksums')::bool AS checksums, \
      current_setting('server_encoding') AS encoding, \
      current_setting('password_encryption') AS password_encryption, \
      pg_is_in_recovery() AS in_recovery, \
      current_setting('default_transaction_read_only')::bool AS read_only, \
      least(current_setting('max_connections')::bigint \
          - current_setting('superuser_reserved_connections')::bigint \
          - coalesce(current_setting('reserved_connections', true)::bigint, 0), \
        nullif(d.datconnlimit, -1), nullif(r.rolconnlimit, -1)) AS connections, \
      pg_notification_queue_usage() AS notifications, \
      greatest(age(d.datfrozenxid), mxid_age(d.datminmxid)) / 2147483648.0::float8 AS ids_used, \
      current_setting('log_statement') IN ('mod', 'all') \
        OR current_setting('log_min_duration_statement') <> '-1' \
        OR current_setting('log_parameter_max_length_on_error') <> '0' AS logs_statements, \
      coalesce(NOT s.ssl AND NOT inet_client_addr() <<= ANY ('{127.0.0.0/8,::1}'::inet[]) \
        AND inet_client_addr() <> inet_server_addr(), false) AS is_exposed, \
      current_user::text AS role, r.rolsuper AS is_superuser, \
      extract(epoch FROM clock_timestamp())::float8 AS clock \
    FROM pg_database d JOIN pg_roles r ON r.rolname = current_user \
    LEFT JOIN pg_stat_ssl s ON s.pid = pg_backend_pid() \
    WHERE d.datname = current_database()";
