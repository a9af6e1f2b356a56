//! What tests stand on: a database of their own, the SQL functions, the API, and ways to wait.

mod db;
mod http;
mod pgbouncer;
mod service;
pub(crate) mod sql;
mod wait;

pub(crate) use db::{Db, cluster_url};
pub(crate) use http::{Answer, Api};
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use service::{Service, example, rowlock};
pub(crate) use wait::{blocked_on_lock, wait_until};
