//! Integration tests: one binary, so that it links once.

mod alerts;
mod cli;
mod cli_workflows;
#[path = "../chaos/clock.rs"]
mod clock;
mod db;
mod disk;
mod doctor;
mod doubt;
mod embedded;
mod engine;
mod etl;
mod failover;
mod harness;
mod harness_works;
mod http;
mod input;
mod maintenance;
mod migrate;
mod pipeline;
mod pooler;
#[path = "../chaos/wire/mod.rs"]
mod proxy;
mod psql;
mod recovery;
mod roles;
mod security;
mod service;
mod sql;
mod tls;
mod tokens;
mod wakeups;
mod wire;
mod worker;
