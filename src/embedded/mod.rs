//! A private Postgres for people who have not brought their own.
//!
//! [`start`] takes the launch lock of a data folder, adopts the cluster that runs there, or finds
//! binaries ([`find_binaries`]), makes the cluster and starts it. It is used by `rowlock serve`, by
//! the test suite and by the benches.
//!
//! # Invariants
//! 1. Everything lives in folders of mode 0700; nothing is written to a path others can predict
//!    and write to.
//! 2. The server listens on a Unix socket in such a folder and nowhere else.
//! 3. One data folder has one postmaster: starts are serialised by a file lock, and a running
//!    cluster counts only when it answers with our own `data_directory`.
//! 4. Postgres never runs as root.
//!
//! # Not here
//! Downloading binaries (the set-up script does that), TCP, passwords, upgrades between major
//! versions.

mod adopt;
mod discover;
mod error;
mod launch;
mod layout;
mod owner;
mod temporary;

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

pub use discover::{Binaries, MIN_MAJOR, find_binaries};
pub use error::Error;
pub use temporary::{Temporary, fresh_data_dir, start_temporary};

use adopt::Found;
use layout::Layout;
use owner::Owner;

/// The database that a cluster is started with.
pub const DATABASE: &str = "rowlock";
/// The superuser of the cluster.
pub const ROLE: &str = "rowlock";

/// How much the cluster promises about data it has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Committed means on disk.
    Durable,
    /// For tests: a power cut may lose or corrupt everything.
    Throwaway,
}

/// What to start and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder that holds the cluster, its log and its socket.
    pub data_dir: PathBuf,
    /// Durability.
    pub profile: Profile,
    /// The folder with `initdb`, `postgres` and `pg_ctl`; searched for when `None`.
    pub bin_dir: Option<PathBuf>,
}

impl Options {
    /// A cluster with durable settings in `data_dir`, binaries to be discovered.
    pub fn durable(data_dir: impl Into<PathBuf>) -> Options {
        Options { data_dir: data_dir.into(), profile: Profile::Durable, bin_dir: None }
    }

    /// A cluster that forgets durability for speed, binaries to be discovered.
    pub fn throwaway(data_dir: impl Into<PathBuf>) -> Options {
        Options { data_dir: data_dir.into(), profile: Profile::Throwaway, bin_dir: None }
    }
}

/// A running cluster. Dropping it leaves the server running; see [`Cluster::stop`].
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    socket_dir: PathBuf,
    pid: i32,
    adopted: bool,
}

impl Cluster {
    /// A connection string for one database, understood by libpq and tokio-postgres.
    pub fn url(&self, database: &str) -> String {
        url(&self.socket_dir, database)
    }

    /// A line for a person to paste into a shell.
    pub fn psql_line(&self) -> String {
        format!("psql '{}'", self.url(DATABASE).replace('\'', r"'\''"))
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether the server was running before [`start`] was called.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The folder the cluster lives in.
    pub fn data_dir(&self) -> &Path {
        &self.layout.home
    }

    /// The server's log.
    pub fn log_file(&self) -> PathBuf {
        self.layout.log()
    }

    /// Fast shutdown: open transactions are rolled back, and the last checkpoint is written.
    pub async fn stop(self) -> Result<(), Error> {
        let _lock = self.layout.lock().await?;
        adopt::shut_down(&self.layout, self.pid, Signal::SIGINT).await
    }

    /// Stops the server without writing anything back, and deletes its folders.
    pub async fn destroy(self) -> Result<(), Error> {
        let _lock = self.layout.lock().await?;
        adopt::shut_down(&self.layout, self.pid, Signal::SIGQUIT).await?;
        self.layout.remove()
    }
}

/// What [`status`] found in a data folder.
#[derive(Debug)]
pub enum Status {
    /// There is no cluster in the folder.
    Absent,
    /// There is a cluster, and it is not running.
    Stopped,
    /// A server answers for this folder.
    Running(Cluster),
}

/// Starts the cluster in `options.data_dir`, or adopts the one that already runs there.
///
/// When several processes call this at once, one starts the server and the others adopt it.
pub async fn start(options: &Options) -> Result<Cluster, Error> {
    let owner = Owner::choose(&options.data_dir)?;
    let layout = Layout::create(&options.data_dir, &owner)?;
    let _lock = layout.lock().await?;
    let adopted = match adopt::look(&layout).await? {
        Found::Running { .. } => true,
        Found::Nothing => {
            let binaries = discover::choose(options.bin_dir.as_deref(), &layout)?;
            launch::launch(&layout, &owner, &binaries, options.profile).await?;
            false
        }
    };
    let Found::Running { pid, socket_dir } = adopt::look(&layout).await? else {
        return Err(Error::NotRunning { log: layout.log() });
    };
    let cluster = Cluster { layout, socket_dir, pid, adopted };
    launch::create_database(&cluster.url("postgres"), DATABASE).await?;
    Ok(cluster)
}

/// Looks at a data folder without starting or changing anything.
pub async fn status(data_dir: &Path) -> Result<Status, Error> {
    let Some(layout) = Layout::open(data_dir) else { return Ok(Status::Absent) };
    Ok(match adopt::look(&layout).await? {
        Found::Running { pid, socket_dir } => {
            Status::Running(Cluster { layout, socket_dir, pid, adopted: true })
        }
        Found::Nothing => Status::Stopped,
    })
}

/// Where a cluster lives when nobody says otherwise: `/var/lib/rowlock/dev` for root, whose own
/// folders are closed to the user Postgres runs as, else `.rowlock/pg` in the current folder.
pub fn default_data_dir() -> PathBuf {
    base_dir().join(if owner::am_root() { "dev" } else { "pg" })
}

fn base_dir() -> PathBuf {
    PathBuf::from(if owner::am_root() { "/var/lib/rowlock" } else { ".rowlock" })
}

fn url(socket_dir: &Path, database: &str) -> String {
    let host = percent_encode(&socket_dir.to_string_lossy());
    let database = percent_encode(database);
    format!("postgresql:///{database}?host={host}&port={}&user={ROLE}", layout::PORT)
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_survives_odd_folders() {
        let config: tokio_postgres::Config =
            url(Path::new("/tmp/a b&c=ü/socket"), "my db").parse().expect("parses");
        assert_eq!(config.get_dbname(), Some("my db"));
        assert_eq!(config.get_user(), Some(ROLE));
        let host = tokio_postgres::config::Host::Unix("/tmp/a b&c=ü/socket".into());
        assert_eq!(config.get_hosts(), [host]);
    }
}
