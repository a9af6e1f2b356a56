//! What can go wrong between a folder and a running server.

use std::io;
use std::path::PathBuf;

/// A failure to find, start, adopt or stop a cluster.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum Error {
    #[error(
        "no usable Postgres (initdb, postgres and pg_ctl, version {min} or newer); tried {tried}; \
         run `make setup`, install a postgresql server package, point ROWLOCK_PG_BIN at its bin \
         folder, or set DATABASE_URL to use a server of your own"
    )]
    NoBinaries { min: u32, tried: String },

    #[error("{} is not usable: {reason}", bin_dir.display())]
    BadBinaries { bin_dir: PathBuf, reason: String },

    #[error(
        "the cluster in {} was made by Postgres {wanted}, and no such binaries were found; set \
         ROWLOCK_PG_BIN to those of {wanted}, or choose another --data-dir; tried {tried}",
        data_dir.display()
    )]
    OtherMajor { data_dir: PathBuf, wanted: u32, tried: String },

    #[error(
        "user id {uid} has no passwd entry, and Postgres refuses to run without one; add an entry \
         for it (nss_wrapper in a container), or set DATABASE_URL to use a server of your own"
    )]
    NoPasswdEntry { uid: u32 },

    #[error("Postgres refuses to run as root, and there is no user `postgres` or `nobody` here")]
    NoUnprivilegedUser,

    #[error(
        "user {user} cannot reach {}; as root Postgres runs as that user, so choose a --data-dir \
         outside of private folders",
        path.display()
    )]
    Unreachable { user: String, path: PathBuf },

    #[error("{} holds files that are not Rowlock's; choose an empty folder", path.display())]
    NotOurs { path: PathBuf },

    #[error(
        "{} belongs to user id {found}, not to {wanted}; choose another --data-dir",
        path.display()
    )]
    WrongOwner { path: PathBuf, found: u32, wanted: u32 },

    #[error("waited {seconds} s for another process that is starting the cluster in {}", path.display())]
    LockTimeout { path: PathBuf, seconds: u64 },

    #[error("{program} failed: {output}; see {}", log.display())]
    Program { program: &'static str, output: String, log: PathBuf },

    #[error("the server (process {pid}) is there but did not answer within {seconds} s; see {}", log.display())]
    Unresponsive { pid: i32, seconds: u64, log: PathBuf },

    #[error("the server (process {pid}) did not stop within {seconds} s; see {}", log.display())]
    NotStopping { pid: i32, seconds: u64, log: PathBuf },

    #[error("the server started and is gone again; see {}", log.display())]
    NotRunning { log: PathBuf },

    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{action}")]
    Database {
        action: &'static str,
        #[source]
        source: tokio_postgres::Error,
    },
}

impl Error {
    /// Adds what was being done, and to which path, to an I/O error.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}
