//! The SQL core, against a real Postgres: each protocol as the interleaving that would break it.

mod args;
mod ids;
mod keys;
mod lifecycle;
mod refusals;
