//! The cluster that is struck, and connections to it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rowlock::embedded::{self, Cluster, Options, Profile, Temporary};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls};

use crate::clock;

/// Small enough to be used up, large enough for everybody.
const MAX_CONNECTIONS: u32 = 120;
const ACCEPT_DEADLINE: Duration = Duration::from_secs(60);

/// A durable cluster of the run's own; whoever strikes the server holds the lock.
pub(crate) struct Database {
    pub(crate) folder: PathBuf,
    pub(crate) url: String,
    pub(crate) log: PathBuf,
    pub(crate) cluster: Mutex<Cluster>,
    /// Where this process is killed, the next one to start a temporary cluster deletes this one.
    temporary: Temporary,
}

impl Database {
    /// Makes it, with the schema and what the run keeps beside it.
    pub(crate) async fn new() -> Result<Database> {
        let temporary = embedded::start_temporary(Profile::Durable).await?;
        let cluster = temporary.cluster();
        let folder = cluster.data_dir().to_owned();
        let (url, log) = (cluster.url(embedded::DATABASE), cluster.log_file());
        let mut client = connect(&url, "chaos").await?;
        client
            .batch_execute(&format!("alter system set max_connections = {MAX_CONNECTIONS}"))
            .await?;
        // What a transaction wrote is there for others when it commits, not when it writes.
        client.batch_execute("alter system set track_commit_timestamp = on").await?;
        rowlock::db::migrate::run(&mut client, &"rowlock".parse().expect("a name")).await?;
        clock::replace(&client).await;
        client.batch_execute(include_str!("schema.sql")).await?;
        drop(client);
        let options = Options::durable(&folder);
        embedded::start(&options).await?.stop().await?;
        let cluster = Mutex::new(embedded::start(&options).await?);
        Ok(Database { folder, url, log, cluster, temporary })
    }

    /// What `pg_ctl restart -m immediate` does: nothing is written back, and recovery follows.
    pub(crate) async fn restart(&self) -> Result<()> {
        let mut cluster = self.cluster.lock().await;
        let pid = nix::unistd::Pid::from_raw(cluster.pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGQUIT)?;
        let ended = Instant::now() + ACCEPT_DEADLINE;
        while nix::sys::signal::kill(pid, None).is_ok() && Instant::now() < ended {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Whatever meets its start: it has been struck, and has to come back.
        loop {
            match embedded::start(&Options::durable(&self.folder)).await {
                Ok(started) => break *cluster = started,
                Err(error) if ended + ACCEPT_DEADLINE < Instant::now() => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        Ok(())
    }

    /// Waits until it accepts connections.
    pub(crate) async fn accepts(&self) -> Result<Client> {
        let end = Instant::now() + ACCEPT_DEADLINE;
        loop {
            match connect(&self.url, "chaos").await {
                Ok(client) => return Ok(client),
                Err(error) if end < Instant::now() => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Lets it run on.
    pub(crate) fn keep(self) -> Result<()> {
        self.temporary.keep()?;
        Ok(())
    }

    /// Deletes it.
    pub(crate) async fn end(self) -> Result<()> {
        self.cluster.into_inner().destroy().await?;
        let _ = std::fs::remove_dir_all(&self.folder);
        Ok(())
    }
}

/// One plain connection under a name for `pg_stat_activity`.
pub(crate) async fn connect(url: &str, name: &str) -> Result<Client> {
    let mut config: Config = url.parse()?;
    config.application_name(name).connect_timeout(Duration::from_secs(3));
    let connecting = tokio::time::timeout(Duration::from_secs(5), config.connect(NoTls));
    let (client, connection) = connecting.await.context("no connection in time")??;
    tokio::spawn(connection);
    Ok(client)
}
