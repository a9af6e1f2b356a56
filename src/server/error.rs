//! Why a service does not start.

use std::net::SocketAddr;

use crate::db::{self, migrate};
use crate::{doctor, embedded};

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens there.
    #[error(
        "{address} is in use: stop what listens there, choose another address with --listen, \
         or take the next free port with --port-fallback"
    )]
    PortTaken {
        /// The address.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no Postgres, and none could be started.
    #[error("no DATABASE_URL is set, and a Postgres could not be started here")]
    Embedded(#[from] embedded::Error),
    /// The schema does not fit, or could not be brought up.
    #[error(transparent)]
    Migrate(#[from] migrate::Error),
    /// Acknowledged jobs could be lost.
    #[error("refusing to serve from this database: {0}")]
    Unsafe(#[from] doctor::Unsafe),
    /// The database, apart from the schema.
    #[error(transparent)]
    Db(#[from] db::Error),
}
