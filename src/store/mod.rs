//! The only SQL text in Rust: one free function for each SQL function, in files of the same names.
//!
//! What goes in and comes out are the types of `model` and the rows of [`inspect`]. JSON stays
//! text; a word that the database answers and `model` does not know is an error.
//!
//! # Not here
//!
//! Transactions, repeating and waiting: those belong to whoever calls.

pub mod acquire;
pub mod doctor;
pub mod enqueue;
pub mod finish;
pub mod handler;
pub mod heartbeat;
pub mod inputs;
pub mod inspect;
pub mod maintain;
pub mod operate;
pub mod tokens;
mod values;
pub mod verify;
pub mod workflow;

use crate::db::{Error, Row};

/// A word of an enum, read from a column.
fn word<T: std::str::FromStr<Err = crate::model::UnknownWord>>(
    row: &Row,
    column: usize,
) -> Result<T, Error> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error: crate::model::UnknownWord| Error::Other(error.into()))
}
