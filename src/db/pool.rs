//! The pool: sessions that are set up, lent one at a time.
//!
//! bb8's check on every loan costs a round trip, so it is off: what has ended or was abandoned is
//! known without one.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bb8::{ErrorSink, ManageConnection, QueueStrategy, RunError};
use tokio::time::timeout;
use tokio_postgres::{Config, NoTls};
use tracing::warn;

use super::driver::Driver;
use super::{Connection, Error, Options};
use crate::config::Pooler;
use crate::model::SchemaName;
use crate::telemetry::Seldom;

/// Connects, and sets the session up.
#[derive(Debug)]
pub struct Manager {
    config: Config,
    connect_timeout: Duration,
    call_timeout: Duration,
    pooler: Pooler,
    /// Of a session; of a transaction where there is a pooler.
    setup: String,
}

impl Manager {
    /// A manager for these options.
    ///
    /// # Errors
    ///
    /// When the url cannot be used.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let settings = &options.settings;
        let setup = match settings.pooler {
            Pooler::None => options.setup(),
            Pooler::Transaction => options.transaction_setup(),
        };
        Ok(Manager {
            config: options.config()?,
            connect_timeout: settings.connect_timeout,
            call_timeout: settings.call_timeout,
            pooler: settings.pooler,
            setup,
        })
    }

    async fn open(&self) -> Result<Connection, Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        let driver = Driver::spawn(connection);
        let setup = match self.pooler {
            Pooler::None => {
                client.batch_execute(&self.setup).await?;
                None
            }
            Pooler::Transaction => Some(self.setup.as_str()),
        };
        Ok(Connection::new(client, driver, setup, self.call_timeout))
    }
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self) -> Result<Connection, Error> {
        // The driver bounds the TCP connect only, and what hangs later keeps its place in the pool.
        let opening = timeout(self.connect_timeout, self.open()).await;
        opening.unwrap_or_else(|_| Err(Error::unavailable("the connect took too long")))
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Error> {
        connection.batch("").await
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken()
    }
}

/// A pool of connections; clones share it.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: bb8::Pool<Manager>,
    schema: SchemaName,
    last_failure: LastFailure,
    size: u32,
    call_timeout: Duration,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// All connections.
    pub connections: u32,
    /// Those that nobody uses.
    pub idle: u32,
}

impl Pool {
    /// A pool without a connection yet; the first loan opens one.
    ///
    /// # Errors
    ///
    /// When the url cannot be used.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let settings = &options.settings;
        let last_failure = LastFailure::default();
        let inner = bb8::Pool::builder()
            .max_size(settings.pool_size)
            .idle_timeout(Some(settings.pool_idle))
            .connection_timeout(settings.connect_timeout)
            .reaper_rate(settings.pool_idle)
            .test_on_check_out(false)
            // The connection used last has its statements warm, and the others may rest.
            .queue_strategy(QueueStrategy::Lifo)
            .error_sink(last_failure.boxed_clone())
            .build_unchecked(Manager::new(options)?);
        let (schema, size) = (options.schema().clone(), settings.pool_size);
        Ok(Pool { inner, schema, last_failure, size, call_timeout: settings.call_timeout })
    }

    /// Lends a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when none can be opened, [`Error::PoolExhausted`] when all are in use.
    pub async fn get(&self) -> Result<Pooled, Error> {
        let began = Instant::now();
        loop {
            match self.inner.get_owned().await {
                // It died at rest; giving it back removes it.
                Ok(connection) if connection.is_broken() => drop(connection),
                Ok(connection) => return Ok(Pooled(connection)),
                Err(RunError::User(error)) => return Err(error),
                Err(RunError::TimedOut) => {
                    return Err(self.last_failure.since(began).unwrap_or(Error::PoolExhausted));
                }
            }
        }
    }

    /// The schema of its sessions.
    #[must_use]
    pub fn schema(&self) -> &SchemaName {
        &self.schema
    }

    /// How long a call may wait for its answer.
    #[must_use]
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// The most connections that it opens.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// How full it is.
    #[must_use]
    pub fn status(&self) -> PoolStatus {
        let state = self.inner.state();
        PoolStatus { connections: state.connections, idle: state.idle_connections }
    }
}

/// A connection on loan; dropping it gives it back.
pub struct Pooled(bb8::PooledConnection<'static, Manager>);

impl Deref for Pooled {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

static UNOPENED: Seldom = Seldom::new();

/// The last failure to connect, which bb8 tries again in silence until the wait is over.
#[derive(Clone, Debug, Default)]
struct LastFailure(Arc<Mutex<Option<(Instant, String)>>>);

impl LastFailure {
    fn since(&self, began: Instant) -> Option<Error> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, reason) = failure.as_ref().filter(|(at, _)| began <= *at)?;
        Some(Error::Unavailable(reason.clone().into()))
    }
}

impl ErrorSink<Error> for LastFailure {
    fn sink(&self, error: Error) {
        let reason = error.beneath();
        if let Some(left_out) = UNOPENED.pass() {
            warn!(left_out, "a connection could not be opened: {reason}");
        }
        let failure = Some((Instant::now(), reason));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<Error>> {
        Box::new(self.clone())
    }
}
