//! Opening a session: the connection string, and what every session is told first.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::{Client, Config, Connection, Socket};
use tracing::{debug, warn};

use super::Error;
use super::tls::{Params, Stream, Tls};
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

    /// Where a connection of the pool leads.
    pub(super) fn endpoint(&self) -> Result<Endpoint, Error> {
        let mut endpoint = Endpoint::new(&self.url)?;
        endpoint.config.application_name(&self.settings.application_name);
        endpoint.config.connect_timeout(self.settings.connect_timeout);
        Ok(endpoint)
    }

    /// Where the listener's leads.
    pub(super) fn listener_endpoint(&self) -> Result<Endpoint, Error> {
        let url = self.settings.listen_url.as_ref().unwrap_or(&self.url);
        let mut endpoint = Endpoint::new(url)?;
        endpoint
            .config
            .application_name(format!("{} listener", self.settings.application_name))
            .connect_timeout(self.settings.connect_timeout);
        Ok(endpoint)
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
    let (client, connection) = Endpoint::new(url)?.open().await?;
    tokio::spawn(drive(connection));
    Ok(client)
}

/// Moves a connection's bytes until it ends.
pub(super) async fn drive(connection: Wire) {
    if let Err(error) = connection.await {
        debug!(%error, "connection ended");
    }
}

/// The half of a connection that moves its bytes.
pub(super) type Wire = Connection<Socket, Stream>;

/// How long a connection may take to be opened, where the string says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether it was said that connections go over a network in the clear.
static TOLD_OF_PLAIN: AtomicBool = AtomicBool::new(false);

/// Where a connection leads, and how it is encrypted.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    config: Config,
    tls: Tls,
}

impl Endpoint {
    /// Reads a connection string, and the files that it names.
    fn new(url: &DatabaseUrl) -> Result<Self, Error> {
        let (params, rest) = Params::take(url.expose());
        let mut tls = Tls::new(params).map_err(Error::Url)?;
        let mut config = Config::from_str(&rest).map_err(|error| Error::Url(reason(&error)))?;
        if config.get_hosts().is_empty() {
            // The driver takes the name to be verified from here.
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        let hosts = config.get_hosts();
        if !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_))) {
            // As in libpq: a socket has no TLS, whatever is asked for.
            tls.mode = SslMode::Disable;
        }
        config.ssl_mode(tls.mode);
        notice_dead_peers(&mut config);
        if config.get_ssl_negotiation() == SslNegotiation::Direct && tls.mode == SslMode::Prefer {
            return Err(Error::Url("sslnegotiation=direct takes sslmode=require or more".into()));
        }
        tls.connector().map_err(Error::Url)?;
        Ok(Endpoint { config, tls })
    }

    /// Opens a connection. The driver bounds only the way to the host; a server that then says
    /// nothing is given up as well.
    pub(super) async fn open(&self) -> Result<(Client, Wire), Error> {
        let connector = self.tls.connector().map_err(Error::Url)?;
        let encrypted = connector.used();
        let timeout = self.config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT);
        let mut config = self.config.clone();
        config.connect_timeout(timeout);
        // A name may lead to two addresses.
        let tries = u32::try_from(2 * config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
        let opened = tokio::time::timeout(timeout * tries, config.connect(connector)).await;
        let opened =
            opened.map_err(|_| Error::unavailable("the server took too long to answer"))??;
        let plain = !encrypted.load(Ordering::Relaxed) && self.tls.mode != SslMode::Disable;
        if plain && self.leaves_the_host() && !TOLD_OF_PLAIN.swap(true, Ordering::Relaxed) {
            warn!(
                "the connection to Postgres leaves this host unencrypted; turn TLS on there and \
                 set sslmode=verify-full, or sslmode=disable where the network is trusted"
            );
        }
        Ok(opened)
    }

    /// How a request to cancel is encrypted: as its connection is.
    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    fn leaves_the_host(&self) -> bool {
        let is_other = |host: &Host| match host {
            Host::Unix(_) => false,
            Host::Tcp(name) => {
                name != "localhost" && !name.parse().is_ok_and(|it: IpAddr| it.is_loopback())
            }
        };
        // Whichever of the two says so: a name may stand for a tunnel, an address may not.
        self.config.get_hosts().iter().any(is_other)
            || self.config.get_hostaddrs().iter().any(|address| !address.is_loopback())
    }
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
    fn a_bad_url_does_not_give_its_password_away() {
        let error = options("postgres://ann:s3cret@db/app?sslcrl=x").endpoint().unwrap_err();
        assert!(error.to_string().contains("sslcrl"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[test]
    fn a_socket_is_never_encrypted() {
        for (url, mode) in [
            ("postgres:///app?host=/run/x&sslmode=verify-full", SslMode::Disable),
            ("host=/run/x sslmode=require", SslMode::Disable),
            ("host=/run/x,db sslmode=require", SslMode::Require),
            ("hostaddr=10.0.0.1 sslmode=require", SslMode::Require),
            ("postgres://db/app", SslMode::Prefer),
        ] {
            let endpoint = options(url).listener_endpoint().unwrap();
            assert_eq!(endpoint.config.get_ssl_mode(), mode, "{url}");
        }
    }

    #[test]
    fn only_what_stays_on_the_host_may_be_plain_in_silence() {
        for (url, leaves) in [
            ("host=/run/x", false),
            ("host=localhost", false),
            ("postgres://[::1]/app", false),
            ("hostaddr=127.0.0.1", false),
            ("host=localhost,db", true),
            ("host=localhost hostaddr=10.0.0.1", true),
            ("host=db hostaddr=127.0.0.1", true),
            ("hostaddr=10.0.0.1", true),
        ] {
            assert_eq!(options(url).endpoint().unwrap().leaves_the_host(), leaves, "{url}");
        }
        let weak = options("host=db sslnegotiation=direct").endpoint().unwrap_err();
        assert!(weak.to_string().contains("sslmode=require"), "{weak}");
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
