//! The service: a database, the engine, maintenance and the API, put together and taken apart.
//!
//! [`Server::start`] binds the port (which fails soonest), finds or starts Postgres, brings the
//! schema up and starts everything else; [`Server::run`] serves until a stop is asked for and then
//! comes down: nothing new is accepted, long polls return, requests and duties end, and a Postgres
//! that this process started is stopped.
//!
//! # Not here
//!
//! Signals and logs, which belong to the process: `cli`.

mod error;
mod listen;
mod pace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::{DatabaseUrl, Settings};
use crate::db::{self, migrate};
use crate::doctor::{self, Duty};
use crate::embedded::{self, Cluster};
use crate::engine::Engine;
use crate::shutdown::Shutdown;
use crate::{http, maintenance};

pub use error::Error;
pub use listen::{Port, bind, serve};

/// For how many times the connect timeout a database may be away at start.
const CONNECT_TRIES: u32 = 3;

/// Between two tries.
const CONNECT_PAUSE: Duration = Duration::from_millis(250);

/// What to do about the schema at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Bring it up.
    Migrate,
    /// Only see that it is the one that this binary needs.
    Check,
}

/// What a service is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// All settings, valid.
    pub settings: Settings,
    /// Where a Postgres of its own lives, if the settings name none.
    pub data_dir: PathBuf,
    /// What to do about the schema.
    pub schema: Schema,
    /// What to do when the port is taken.
    pub port: Port,
}

/// A service that has started and does not accept yet.
pub struct Server {
    settings: Settings,
    shutdown: Shutdown,
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    url: DatabaseUrl,
    cluster: Option<Cluster>,
    engine: Engine,
}

impl Server {
    /// Starts everything but the API. When that fails, whatever was started is stopped.
    ///
    /// # Errors
    ///
    /// [`Error::PortTaken`], no Postgres, or a schema that does not fit.
    pub async fn start(options: Options, shutdown: Shutdown) -> Result<Self, Error> {
        let Options { settings, data_dir, schema, port } = options;
        let (listener, address) = bind(settings.http.listen, port).await?;
        let (url, cluster) = match &settings.database.url {
            Some(url) => (url.clone(), None),
            None => {
                let cluster = start_cluster(data_dir).await?;
                (DatabaseUrl::from(cluster.url(embedded::DATABASE).as_str()), Some(cluster))
            }
        };
        match open(&settings, &url, schema, &shutdown).await {
            Ok(engine) => {
                Ok(Server { settings, shutdown, listener, address, url, cluster, engine })
            }
            Err(error) => {
                stop_cluster(cluster).await;
                Err(error)
            }
        }
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its Postgres is.
    #[must_use]
    pub fn database_url(&self) -> &DatabaseUrl {
        &self.url
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Serves until a stop is asked for, and comes down. Whether all ended within the grace.
    pub async fn run(self) -> bool {
        let Server { settings, shutdown, listener, cluster, engine, .. } = self;
        let router = http::router(engine.clone(), &settings.http, shutdown.clone());
        maintenance::start(engine.pool(), settings.queue.maintenance_interval, &shutdown);
        maintenance::start_verify(engine.pool(), settings.queue.verify_interval, &shutdown);
        let stop = shutdown.clone();
        let http = settings.http;
        shutdown.spawn(async move { serve(listener, router, &http, stop).await });
        shutdown.stopping().await;
        let drained = shutdown.drain(settings.queue.drain).await;
        drop(engine);
        stop_cluster(cluster).await;
        drained
    }
}

async fn open(
    settings: &Settings,
    url: &DatabaseUrl,
    schema: Schema,
    shutdown: &Shutdown,
) -> Result<Engine, Error> {
    let name = &settings.database.schema;
    let mut client = connect(url, settings.database.connect_timeout, shutdown).await?;
    match schema {
        Schema::Migrate => drop(migrate::run(&mut client, name).await?),
        Schema::Check => migrate::check(&client, name).await?,
    }
    let options = db::Options::new(url.clone(), &settings.database);
    let engine = Engine::open(&options, &settings.queue, shutdown)?;
    // A private Postgres is as this program has set it up.
    if settings.database.url.is_some() {
        tokio::select! {
            looked = doctor::at_start(engine.pool(), &options, Duty::Service) => looked?,
            () = shutdown.stopping() => {}
        }
    }
    Ok(engine)
}

/// Connects to a database that may be starting too: service and database often start together.
async fn connect(
    url: &DatabaseUrl,
    connect_timeout: Duration,
    shutdown: &Shutdown,
) -> Result<db::Client, db::Error> {
    let patience = connect_timeout * CONNECT_TRIES;
    let end = Instant::now() + patience;
    let mut told = false;
    loop {
        let error = match db::connect(url).await {
            Ok(client) => return Ok(client),
            Err(error) if error.is_encryption() => return Err(error),
            Err(error @ db::Error::Unavailable(_)) if Instant::now() < end => error,
            Err(error) => return Err(error),
        };
        if !told {
            let seconds = patience.as_secs_f64();
            warn!("waiting up to {seconds} s for the database: {}", error.chain());
            told = true;
        }
        tokio::select! {
            () = shutdown.stopping() => return Err(error),
            () = tokio::time::sleep(CONNECT_PAUSE) => {}
        }
    }
}

async fn start_cluster(data_dir: PathBuf) -> Result<Cluster, Error> {
    let cluster = embedded::start(&embedded::Options::durable(data_dir)).await?;
    let how = if cluster.adopted() { "found" } else { "started" };
    info!(
        folder = %cluster.data_dir().display(),
        pid = cluster.pid(),
        "no DATABASE_URL: {how} a Postgres in {}; {}",
        cluster.data_dir().display(),
        cluster.psql_line()
    );
    Ok(cluster)
}

/// Stops what this process started; a cluster that ran before is somebody else's.
async fn stop_cluster(cluster: Option<Cluster>) {
    let Some(cluster) = cluster.filter(|cluster| !cluster.adopted()) else { return };
    let folder = cluster.data_dir().to_owned();
    match cluster.stop().await {
        Ok(()) => info!("the Postgres in {} is stopped", folder.display()),
        Err(error) => warn!("the Postgres in {} was not stopped: {error}", folder.display()),
    }
}
