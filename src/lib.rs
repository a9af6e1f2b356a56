//! Rowlock: a Postgres-only job queue.
//!
//! Postgres is the only truth. Every state change is one SQL function in `schema/`; this crate
//! calls them for programs, for HTTP and for workers.
//!
//! In reading order, which is also the order of the floors. A module uses those above it in this
//! list and none below; `tests/tidy.rs` holds that.
//!
//! - [`model`]: pure types, the words of the queue
//! - [`config`], [`telemetry`], [`shutdown`]: how a process is set up and comes down
//! - [`db`]: connections, transactions, LISTEN, migrations, classes of errors
//! - [`store`]: the SQL, one function a verb
//! - [`doctor`]: an audit of the database, with what to do
//! - [`engine`]: the verbs as a program calls them, and wake-ups
//! - [`worker`]: handlers by kind, and everything between them and the database
//! - [`client`]: enqueueing in a program's own transaction
//! - [`http`]: the API, JSON over the engine's verbs
//! - [`maintenance`]: the duties of a server
//! - [`embedded`]: a private Postgres, for when there is none
//! - [`server`]: all of it as one service

pub mod model;

pub mod config;
pub mod shutdown;
pub mod telemetry;

pub mod db;

pub mod store;

pub mod doctor;

pub mod engine;

pub mod http;

pub mod maintenance;

pub mod embedded;

pub mod client;
pub mod server;
pub mod worker;

pub use client::Client;
pub use model::{NewJob, NewWorkflow};
pub use worker::{Job, Outcome, Worker};
