//! Rowlock: a Postgres-only job queue.

pub mod embedded;
