//! Integration tests: one binary, so that it links once.

mod embedded;
mod engine;
mod harness;
mod harness_works;
mod maintenance;
mod migrate;
mod service;
mod sql;
mod wakeups;
