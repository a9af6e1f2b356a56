//! The database as the rest sees it: connections, transactions, LISTEN, migrations, errors.
//!
//! `connect` opens sessions and sets them up, `driver` runs their sockets, `connection` and
//! `transaction` run statements that are prepared once, `flight` is a call under way, `pool` lends
//! connections, `listen` keeps one apart for wake-ups, `migrate` brings the schema up.
//!
//! # Invariants
//!
//! 1. Every session has the schema first in its `search_path`, READ COMMITTED, UTC and time-outs;
//!    behind a transaction pooler every transaction has, and nothing is left on a session.
//! 2. A connection on which something was abandoned in mid-flight is never lent again.
//! 3. No call waits for ever, and [`Error::Unavailable`] is said only of what was not done.
//! 4. Errors are classes: what to do next is asked of [`Error::recovery`], not of SQLSTATEs.

mod connect;
mod connection;
mod driver;
mod error;
mod flight;
pub mod listen;
pub mod migrate;
mod param;
mod pool;
mod transaction;

pub use connect::{Options, connect};
pub use connection::{Connection, Params};
pub use error::{Error, Recovery, Source, chain};
pub use flight::answered_within;
pub use param::{Param, Typed, typed};
pub use pool::{Manager, Pool, PoolStatus, Pooled};
pub use tokio_postgres::{Client, GenericClient, Row};
pub use transaction::Transaction;
