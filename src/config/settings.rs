//! The settings themselves.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches, ValueEnum};

use super::{DatabaseUrl, Secret, defaults, units};
use crate::model::SchemaName;

/// Everything that can be set, in groups. Each field is a flag and a variable.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// The database and the connections to it.
    #[command(flatten)]
    pub database: DatabaseSettings,
    /// The HTTP API.
    #[command(flatten)]
    pub http: HttpSettings,
    /// Leases, polling and maintenance.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// Logging.
    #[command(flatten)]
    pub log: LogSettings,
}

/// The database and the connections to it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseSettings {
    /// Where Postgres is; without it, `serve` starts one of its own
    #[arg(id = "database_url", long = "database-url", env = "DATABASE_URL")]
    #[arg(hide_env_values = true, value_name = "URL")]
    pub url: Option<DatabaseUrl>,

    /// A direct connection for LISTEN, where the database URL leads through a transaction pooler
    #[arg(long, env = "ROWLOCK_LISTEN_URL", hide_env_values = true, value_name = "URL")]
    pub listen_url: Option<DatabaseUrl>,

    /// What stands between here and Postgres; with a transaction pooler nothing is kept on a session
    #[arg(long, env = "ROWLOCK_POOLER", default_value = defaults::POOLER)]
    pub pooler: Pooler,

    /// The schema that holds the queue
    #[arg(long, env = "ROWLOCK_SCHEMA", default_value = defaults::SCHEMA)]
    pub schema: SchemaName,

    /// The name of the connections in `pg_stat_activity`
    #[arg(long, env = "ROWLOCK_APPLICATION_NAME", default_value = defaults::APPLICATION_NAME)]
    pub application_name: String,

    /// The most connections held at once (2 to 1000)
    #[arg(long, env = "ROWLOCK_POOL_SIZE", default_value = defaults::POOL_SIZE)]
    pub pool_size: u32,

    /// How long a connection may rest before it is closed
    #[arg(long, env = "ROWLOCK_POOL_IDLE", default_value = defaults::POOL_IDLE)]
    #[arg(value_parser = units::duration)]
    pub pool_idle: Duration,

    /// How long to wait for a connection
    #[arg(long, env = "ROWLOCK_CONNECT_TIMEOUT", default_value = defaults::CONNECT_TIMEOUT)]
    #[arg(value_parser = units::duration)]
    pub connect_timeout: Duration,

    /// How long one statement may run; 0s for no bound but that of the call
    #[arg(long, env = "ROWLOCK_STATEMENT_TIMEOUT", default_value = defaults::STATEMENT_TIMEOUT)]
    #[arg(value_parser = units::duration)]
    pub statement_timeout: Duration,

    /// How long a call waits for its answer; after that its outcome is unknown
    #[arg(long, env = "ROWLOCK_CALL_TIMEOUT", default_value = defaults::CALL_TIMEOUT)]
    #[arg(value_parser = units::duration)]
    pub call_timeout: Duration,

    /// How long one statement may wait for a lock
    #[arg(long, env = "ROWLOCK_LOCK_TIMEOUT", default_value = defaults::LOCK_TIMEOUT)]
    #[arg(value_parser = units::duration)]
    pub lock_timeout: Duration,

    /// How long a transaction may rest before Postgres ends it
    #[arg(long, env = "ROWLOCK_IDLE_IN_TRANSACTION_TIMEOUT")]
    #[arg(default_value = defaults::IDLE_IN_TRANSACTION_TIMEOUT, value_parser = units::duration)]
    pub idle_in_transaction_timeout: Duration,
}

/// The HTTP API.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// The address to listen on; off loopback, a token is required
    #[arg(long, env = "ROWLOCK_LISTEN", default_value = defaults::LISTEN, value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// A token that allows everything; with it, every request must carry one
    #[arg(long, env = "ROWLOCK_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// Want a token from everybody, one of `rowlock token` or that of ROWLOCK_TOKEN
    #[arg(long, env = "ROWLOCK_TOKENS")]
    pub tokens: bool,

    /// The largest request body (1KiB to 1GiB)
    #[arg(long, env = "ROWLOCK_BODY_LIMIT", default_value = defaults::BODY_LIMIT)]
    #[arg(value_parser = units::size)]
    pub body_limit: usize,

    /// How long a client may take to send its headers
    #[arg(long, env = "ROWLOCK_HEADER_TIMEOUT", default_value = defaults::HEADER_TIMEOUT)]
    #[arg(value_parser = units::duration)]
    pub header_timeout: Duration,

    /// How long a client may keep a body or an answer waiting; each 64 KiB buy a second more
    #[arg(long, env = "ROWLOCK_TRANSFER_TIMEOUT", default_value = defaults::TRANSFER_TIMEOUT)]
    #[arg(value_parser = units::duration)]
    pub transfer_timeout: Duration,

    /// The most connections served at once (16 to 1000000); more wait to be accepted
    #[arg(long, env = "ROWLOCK_MAX_CONNECTIONS", default_value = defaults::MAX_CONNECTIONS)]
    pub max_connections: usize,
}

impl HttpSettings {
    /// The slowest transfer that lasts.
    const BYTES_A_SECOND: f64 = 65_536.0;

    /// How much longer a transfer may take for having moved so many bytes.
    #[must_use]
    pub fn earned(bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / Self::BYTES_A_SECOND)
    }
}

/// Leases, polling and maintenance.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Queue")]
pub struct QueueSettings {
    /// How long a worker may be silent before its jobs are taken back (1s to 1d)
    #[arg(long, env = "ROWLOCK_LEASE", default_value = defaults::LEASE)]
    #[arg(value_parser = units::duration)]
    pub lease: Duration,

    /// How often to look for jobs without having been woken (10ms to 1h)
    #[arg(long, env = "ROWLOCK_POLL", default_value = defaults::POLL)]
    #[arg(value_parser = units::duration)]
    pub poll: Duration,

    /// How long running work may take to end after a stop was asked for
    #[arg(long, env = "ROWLOCK_DRAIN", default_value = defaults::DRAIN)]
    #[arg(value_parser = units::duration)]
    pub drain: Duration,

    /// How often the maintenance duties run (10ms to 1h)
    #[arg(long, env = "ROWLOCK_MAINTENANCE_INTERVAL")]
    #[arg(default_value = defaults::MAINTENANCE_INTERVAL, value_parser = units::duration)]
    pub maintenance_interval: Duration,

    /// How often every invariant is checked, which reads everything (100ms to 7d); 0s for never
    #[arg(long, env = "ROWLOCK_VERIFY_INTERVAL", default_value = defaults::VERIFY_INTERVAL)]
    #[arg(value_parser = units::duration)]
    pub verify_interval: Duration,
}

/// Logging.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LogSettings {
    /// What is logged: a level, or directives such as `info,rowlock::db=debug`
    #[arg(id = "log", long = "log", env = "ROWLOCK_LOG", default_value = defaults::LOG)]
    pub filter: String,

    /// How it is logged
    #[arg(id = "log_format", long = "log-format", env = "ROWLOCK_LOG_FORMAT")]
    #[arg(default_value = defaults::LOG_FORMAT)]
    pub format: LogFormat,
}

/// What stands between a process and Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pooler {
    /// Nothing, or a pooler that gives each connection a session of its own.
    None,
    /// A pooler that gives each transaction any session: `PgBouncer` in transaction mode and its like.
    Transaction,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    /// The defaults alone, whatever the environment says.
    fn default() -> Self {
        let command = Settings::command().mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from(["rowlock"]);
        Settings::from_arg_matches(&matches).expect("the defaults are valid")
    }
}

impl Settings {
    /// The flags and variables of the settings, as one clap command.
    pub(super) fn command() -> Command {
        Settings::augment_args(Command::new("rowlock"))
    }

    /// The settings in force, one `VARIABLE=value` a line, with secrets hidden.
    #[must_use]
    pub fn redacted(&self) -> String {
        let (database, http, queue) = (&self.database, &self.http, &self.queue);
        let time = units::show_duration;
        let format = self.log.format.to_possible_value().expect("no format is hidden");
        let pooler = database.pooler.to_possible_value().expect("no pooler is hidden");
        [
            ("DATABASE_URL", shown(database.url.as_ref())),
            ("ROWLOCK_LISTEN_URL", shown(database.listen_url.as_ref())),
            ("ROWLOCK_POOLER", pooler.get_name().to_owned()),
            ("ROWLOCK_SCHEMA", database.schema.to_string()),
            ("ROWLOCK_APPLICATION_NAME", database.application_name.clone()),
            ("ROWLOCK_POOL_SIZE", database.pool_size.to_string()),
            ("ROWLOCK_POOL_IDLE", time(database.pool_idle)),
            ("ROWLOCK_CONNECT_TIMEOUT", time(database.connect_timeout)),
            ("ROWLOCK_STATEMENT_TIMEOUT", time(database.statement_timeout)),
            ("ROWLOCK_CALL_TIMEOUT", time(database.call_timeout)),
            ("ROWLOCK_LOCK_TIMEOUT", time(database.lock_timeout)),
            ("ROWLOCK_IDLE_IN_TRANSACTION_TIMEOUT", time(database.idle_in_transaction_timeout)),
            ("ROWLOCK_LISTEN", http.listen.to_string()),
            ("ROWLOCK_TOKEN", shown(http.token.as_ref())),
            ("ROWLOCK_TOKENS", http.tokens.to_string()),
            ("ROWLOCK_BODY_LIMIT", units::show_size(http.body_limit)),
            ("ROWLOCK_HEADER_TIMEOUT", time(http.header_timeout)),
            ("ROWLOCK_TRANSFER_TIMEOUT", time(http.transfer_timeout)),
            ("ROWLOCK_MAX_CONNECTIONS", http.max_connections.to_string()),
            ("ROWLOCK_LEASE", time(queue.lease)),
            ("ROWLOCK_POLL", time(queue.poll)),
            ("ROWLOCK_DRAIN", time(queue.drain)),
            ("ROWLOCK_MAINTENANCE_INTERVAL", time(queue.maintenance_interval)),
            ("ROWLOCK_VERIFY_INTERVAL", time(queue.verify_interval)),
            ("ROWLOCK_LOG", self.log.filter.clone()),
            ("ROWLOCK_LOG_FORMAT", format.get_name().to_owned()),
        ]
        .map(|(name, value)| format!("{name}={value}"))
        .join("\n")
    }
}

fn shown(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "(none)".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_list() {
        let settings = Settings::default();
        assert_eq!(settings.database.schema.as_str(), "rowlock");
        assert_eq!(settings.database.pool_size, 20);
        assert_eq!(settings.queue.lease, Duration::from_secs(30));
        assert_eq!(settings.http.listen.to_string(), "127.0.0.1:7878");
        assert!(settings.database.url.is_none());
    }

    #[test]
    fn every_setting_has_a_variable_and_is_printed() {
        let printed = Settings::default().redacted();
        let command = Settings::command();
        for arg in command.get_arguments() {
            let variable = arg.get_env().expect("every flag has a variable").to_string_lossy();
            assert!(printed.lines().any(|line| line.starts_with(&format!("{variable}="))));
        }
        assert_eq!(printed.lines().count(), command.get_arguments().count());
    }

    #[test]
    fn secrets_are_neither_printed_nor_debugged() {
        let mut settings = Settings::default();
        settings.database.url = Some("postgres://ann:s3cret@db/app".into());
        settings.database.listen_url = settings.database.url.clone();
        settings.http.token = Some("s3cret".parse().unwrap());
        assert!(!settings.redacted().contains("s3cret"));
        assert!(!format!("{settings:?}").contains("s3cret"));
        assert!(settings.redacted().contains("ROWLOCK_TOKEN=***"));
    }
}
