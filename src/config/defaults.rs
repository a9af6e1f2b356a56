//! The one list of defaults, as a person would write them.

/// The schema, and with it the NOTIFY channel and the names of the roles.
pub const SCHEMA: &str = "rowlock";
/// What stands between a process and Postgres.
pub const POOLER: &str = "none";
/// How the connections name themselves in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "rowlock";
/// Connections that the pool holds at most.
pub const POOL_SIZE: &str = "20";
/// How long a connection of the pool may rest before it is closed.
pub const POOL_IDLE: &str = "30s";
/// How long to wait for a connection, new or from the pool.
pub const CONNECT_TIMEOUT: &str = "5s";
/// How long one statement may run.
pub const STATEMENT_TIMEOUT: &str = "30s";
/// How long a call waits for its answer, whatever the server does.
pub const CALL_TIMEOUT: &str = "35s";
/// How long one statement may wait for a lock.
pub const LOCK_TIMEOUT: &str = "1s";
/// How long a transaction may rest before Postgres ends it.
pub const IDLE_IN_TRANSACTION_TIMEOUT: &str = "30s";
/// The address that the HTTP API listens on.
pub const LISTEN: &str = "127.0.0.1:7878";
/// The largest request body.
pub const BODY_LIMIT: &str = "64MiB";
/// How long a client may take to send its headers.
pub const HEADER_TIMEOUT: &str = "10s";
/// How long a client may keep a body or an answer waiting.
pub const TRANSFER_TIMEOUT: &str = "30s";
/// The most connections served at once.
pub const MAX_CONNECTIONS: &str = "10000";
/// How long a worker may be silent before its jobs are taken back.
pub const LEASE: &str = "30s";
/// How often to look for jobs without having been woken.
pub const POLL: &str = "2s";
/// How long running work may take to end after a stop was asked for.
pub const DRAIN: &str = "30s";
/// How often the maintenance duties run.
pub const MAINTENANCE_INTERVAL: &str = "1s";
/// How often every invariant is checked.
pub const VERIFY_INTERVAL: &str = "1h";
/// What is logged.
pub const LOG: &str = "info";
/// How it is logged.
pub const LOG_FORMAT: &str = "text";
