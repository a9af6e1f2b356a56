//! Opening a session: the connection string, and what every session is told first.

use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tracing::debug;

use super::Error;
use crate::config::{DatabaseSettings, DatabaseUrl, Pooler};
use crate::model::SchemaName;

/// What is needed to open connections: where to, and how they are set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Postgres is.
    pub url: DatabaseUrl,
    /// Everything else; its own `url` is not looked at.
    pub settings: DatabaseSettings,
}

impl Options {
    /// The settings, with the url that was found for them.
    #[must_use]
    pub fn new(url: DatabaseUrl, settings: &DatabaseSettings) -> Self {
        Options { url, settings: settings.clone() }
    }

    /// The schema of every session.
    #[must_use]
    pub fn schema(&self) -> &SchemaName {
        &self.settings.schema
    }

    /// The driver's configuration for a connection of the pool.
    pub(super) fn config(&self) -> Result<Config, Error> {
        let mut config = parse(&self.url)?;
        config.application_name(&self.settings.application_name);
        config.connect_timeout(self.settings.connect_timeout);
        notice_dead_peers(&mut config);
        Ok(config)
    }

    /// The driver's configuration for the listener.
    pub(super) fn listener_config(&self) -> Result<Config, Error> {
        let url = self.settings.listen_url.as_ref().unwrap_or(&self.url);
        let mut config = parse(url)?;
        config
            .application_name(format!("{} listener", self.settings.application_name))
            .connect_timeout(self.settings.connect_timeout);
        notice_dead_peers(&mut config);
        Ok(config)
    }

    /// Whether wake-ups can be waited for: not on a session that a pooler hands to others.
    #[must_use]
    pub fn can_listen(&self) -> bool {
        self.settings.pooler == Pooler::None || self.settings.listen_url.is_some()
    }

    /// What a session is told before anything else.
    ///
    /// As statements and not as start-up `options`, which poolers refuse.
    pub(super) fn setup(&self) -> String {
        let isolation = "SET default_transaction_isolation = 'read committed'";
        format!("{isolation}; {}", self.settings_by("SET"))
    }

    /// What a transaction is told first, where sessions are a pooler's.
    pub(super) fn transaction_setup(&self) -> String {
        self.settings_by("SET LOCAL")
    }

    fn settings_by(&self, set: &str) -> String {
        let millis = |duration: Duration| duration.as_millis();
        let settings = &self.settings;
        format!(
            "{set} search_path = {schema}, pg_temp; \
             {set} statement_timeout = {statement}; \
             {set} lock_timeout = {lock}; \
             {set} idle_in_transaction_session_timeout = {idle}; \
             {set} TimeZone = 'UTC'",
            schema = settings.schema.quoted(),
            statement = millis(settings.statement_timeout),
            lock = millis(settings.lock_timeout),
            idle = millis(settings.idle_in_transaction_timeout),
        )
    }
}

/// Opens one plain connection, outside any pool and without a set-up: for migrations and tools.
///
/// # Errors
///
/// When the url cannot be used or the database is away.
pub async fn connect(url: &DatabaseUrl) -> Result<Client, Error> {
    let mut config = parse(url)?;
    let patience = *config.get_connect_timeout().unwrap_or(&Duration::from_secs(5));
    config.connect_timeout(patience);
    notice_dead_peers(&mut config);
    let connecting = tokio::time::timeout(patience, config.connect(NoTls)).await;
    let (client, connection) =
        connecting.map_err(|_| Error::unavailable("the connect took too long"))??;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "connection ended");
        }
    });
    Ok(client)
}

/// A peer that is gone without a word is noticed within 15 s.
fn notice_dead_peers(config: &mut Config) {
    config
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(3))
        .keepalives_retries(3)
        .tcp_user_timeout(Duration::from_secs(15));
}

/// Reads a connection string, and refuses what would be ignored: encryption that is not there.
fn parse(url: &DatabaseUrl) -> Result<Config, Error> {
    if let Some(mode) = ssl_mode(url.expose()).filter(|mode| !may_be_plain(mode)) {
        return Err(Error::Url(format!(
            "sslmode={mode} asks for an encrypted connection, which this build cannot make; use a \
             socket, a private network or a local TLS proxy, and sslmode=disable"
        )));
    }
    let config = Config::from_str(url.expose()).map_err(|error| Error::Url(reason(&error)))?;
    match config.get_ssl_mode() {
        SslMode::Disable | SslMode::Prefer => Ok(config),
        _ => Err(Error::Url("it asks for an encrypted connection".to_owned())),
    }
}

fn may_be_plain(mode: &str) -> bool {
    matches!(mode, "disable" | "allow" | "prefer")
}

/// The value of `sslmode`, which the driver would not understand in all its forms.
fn ssl_mode(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("sslmode")?;
    let value = rest.trim_start().strip_prefix('=')?.trim_start().trim_start_matches('\'');
    let end = value.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    Some(&value[..end.unwrap_or(value.len())])
}

/// What is wrong with the string. The driver names the option at fault, never its value.
fn reason(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn options(url: &str) -> Options {
        Options::new(url.into(), &Settings::default().database)
    }

    #[test]
    fn encryption_that_is_not_there_is_refused() {
        for mode in ["require", "verify-ca", "verify-full"] {
            for url in [
                format!("postgres://db/app?sslmode={mode}"),
                format!("postgres://db/app?sslmode={mode}&connect_timeout=3"),
                format!("host=db sslmode = '{mode}' user=ann"),
            ] {
                let error = options(&url).config().unwrap_err().to_string();
                assert!(error.contains(&format!("sslmode={mode}")), "{error}");
            }
        }
        assert!(options("postgres://db/app?sslmode=prefer").config().is_ok());
        assert!(options("postgres://db/app").listener_config().is_ok());
    }

    #[test]
    fn a_bad_url_does_not_give_its_password_away() {
        let error = options("postgres://ann:s3cret@db/app?sslrootcert=x").config().unwrap_err();
        assert!(error.to_string().contains("sslrootcert"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn a_session_is_told_its_schema_and_times() {
        let setup = options("").setup();
        assert!(setup.contains("; SET search_path = \"rowlock\", pg_temp; "));
        assert!(setup.contains("lock_timeout = 1000;"));
    }

    #[test]
    fn behind_a_pooler_nothing_is_set_beyond_a_transaction() {
        let setup = options("").transaction_setup();
        assert!(setup.split("; ").all(|statement| statement.starts_with("SET LOCAL ")), "{setup}");
    }

    #[test]
    fn a_pooler_is_heard_through_another_url_only() {
        let mut options = options("postgres://db/app");
        assert!(options.can_listen());
        options.settings.pooler = Pooler::Transaction;
        assert!(!options.can_listen());
        options.settings.listen_url = Some("postgres://direct/app".into());
        assert!(options.can_listen());
    }
}
