//! Integration tests: one binary, so that it links once.

mod embedded;
mod harness;
mod harness_works;
mod sql;
mod worker;
