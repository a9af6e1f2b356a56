//! The SQL core, against a real Postgres: each protocol as the interleaving that would break it.

mod acquire;
mod args;
mod fan;
mod graph;
mod ids;
mod isolation;
mod keys;
mod leases;
mod lifecycle;
mod refusals;
