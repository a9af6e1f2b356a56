//! What tests stand on: a database of their own and ways to wait.

mod db;
mod wait;

pub(crate) use db::Db;
pub(crate) use wait::{blocked_on_lock, wait_until};
