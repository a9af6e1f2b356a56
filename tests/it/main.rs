//! Integration tests: one binary, so that it links once.

mod alerts;
mod cli;
mod cli_workflows;
mod db;
mod embedded;
mod engine;
mod etl;
mod harness;
mod harness_works;
mod http;
mod input;
mod maintenance;
mod migrate;
mod pipeline;
mod pooler;
mod psql;
mod roles;
mod service;
mod sql;
mod wakeups;
mod worker;
