//! The SQL core, against a real Postgres: each protocol as the interleaving that would break it.

mod acquire;
mod acquire_races;
mod aging;
mod args;
mod catalog;
mod fan;
mod graph;
mod ids;
mod isolation;
mod keys;
mod leases;
mod lifecycle;
mod prune;
mod refusals;
mod rescue;
mod schemas;
mod wake;
