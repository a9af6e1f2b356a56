//! Integration tests: one binary, so that it links once.

mod embedded;
mod engine;
mod harness;
mod harness_works;
mod http;
mod sql;
