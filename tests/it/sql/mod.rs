//! The SQL core, against a real Postgres: each protocol as the interleaving that would break it.

mod acquire;
mod args;
mod cascade;
mod fan;
mod graph;
mod hunt;
mod ids;
mod isolation;
mod keys;
mod leases;
mod lifecycle;
mod links;
mod plans;
mod refusals;
mod retry;
