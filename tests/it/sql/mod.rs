//! The SQL core, against a real Postgres: each protocol as the interleaving that would break it.

mod acquire;
mod acquire_races;
mod aging;
mod args;
mod cascade;
mod catalog;
mod crash;
mod fan;
mod finish;
mod graph;
mod hunt;
mod ids;
mod isolation;
mod keys;
mod leases;
mod lifecycle;
mod links;
mod operators;
mod plans;
mod prune;
mod refusals;
mod rescue;
mod retry;
mod schemas;
mod views;
mod wake;
