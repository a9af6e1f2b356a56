//! Rowlock: a Postgres-only job queue.
