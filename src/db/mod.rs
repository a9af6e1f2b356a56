//! The database as the rest sees it: connections, transactions, LISTEN, migrations, errors.
//!
//! `connect` opens sessions and sets them up, `connection` runs statements that are prepared once,
//! `pool` lends connections, `listen` keeps one apart for wake-ups, `migrate` brings the schema up.
//!
//! # Invariants
//!
//! 1. Every session has the schema first in its `search_path`, READ COMMITTED, UTC and time-outs;
//!    behind a transaction pooler every transaction has, and nothing is left on a session.
//! 2. A connection on which something was abandoned in mid-flight is never lent again.
//! 3. Errors are classes: what to do next is asked of [`Error::recovery`], not of SQLSTATEs.

mod connect;
mod connection;
mod error;
pub mod listen;
pub mod migrate;
mod param;
mod pool;

pub use connect::{Options, connect};
pub use connection::{Connection, Params, Transaction};
pub use error::{Error, Recovery, Source, chain};
pub use param::{Param, Typed, typed};
pub use pool::{Manager, Pool, PoolStatus, Pooled};
pub use tokio_postgres::{Client, GenericClient, Row};
