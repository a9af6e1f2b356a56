//! How an execution ends: what a handler says, and what the runtime makes of it.

use std::time::Duration;

use serde::Serialize;

use crate::model::{Execution, RawJson};

/// What a handler that did not fail wants to happen.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The job is done.
    Complete,
    /// The job is done, and this is its result (at most 256 KiB as text).
    CompleteWith(RawJson),
    /// Run it again after this time; counts as no failure.
    Snooze(Duration),
    /// Give it back: ready at once for whoever comes; counts as no failure.
    Release,
    /// It will never work: discard it for this reason, whatever attempts are left.
    Discard(String),
}

impl Outcome {
    /// Done, with a result that serde can write.
    ///
    /// # Errors
    ///
    /// When the result cannot be written as JSON.
    pub fn complete_with<T: Serialize + ?Sized>(result: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(result).map(Outcome::CompleteWith)
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Outcome::Complete
    }
}

/// How one execution ended, as it is told to the database.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    Complete(Option<RawJson>),
    Fail { error: String, discard: bool },
    Snooze(Duration),
    Release,
}

impl Ending {
    pub(super) fn failed(error: impl Into<String>) -> Self {
        Ending::Fail { error: error.into(), discard: false }
    }
}

/// An execution that has ended.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) execution: Execution,
    pub(super) ending: Ending,
}

impl From<Result<Outcome, String>> for Ending {
    fn from(answer: Result<Outcome, String>) -> Self {
        match answer {
            Ok(Outcome::Complete) => Ending::Complete(None),
            Ok(Outcome::CompleteWith(result)) => Ending::Complete(Some(result)),
            Ok(Outcome::Snooze(pause)) => Ending::Snooze(pause),
            Ok(Outcome::Release) => Ending::Release,
            Ok(Outcome::Discard(reason)) => Ending::Fail { error: reason, discard: true },
            Err(error) => Ending::failed(error),
        }
    }
}
