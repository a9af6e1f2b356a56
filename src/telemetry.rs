//! Logs: one subscriber for the process, as text or as JSON, on standard error.
//!
//! # Invariants
//!
//! 1. Args, results and tokens are never logged. The driver writes statements' parameters at
//!    `debug`, so it is held to warnings whatever the filter says.
//! 2. A field has the same name everywhere; the names are in [`field`].
//! 3. What callers can make happen as often as they like is told by [`Seldom`].

mod seldom;

pub use seldom::Seldom;

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogSettings};

/// The names of log fields.
pub mod field {
    /// A job's id.
    pub const JOB_ID: &str = "job.id";
    /// What sort of job.
    pub const JOB_KIND: &str = "job.kind";
    /// The number of an execution.
    pub const ATTEMPT: &str = "attempt";
    /// A queue's name.
    pub const QUEUE: &str = "queue.name";
    /// A worker's incarnation.
    pub const WORKER_ID: &str = "worker.id";
    /// How many entries a call had.
    pub const BATCH_SIZE: &str = "batch.size";
    /// How long something took.
    pub const DURATION_MS: &str = "duration_ms";
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("the log filter {filter:?} cannot be read")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before.
    #[error("logging is set up already")]
    Again(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets up logging for the process, once.
///
/// # Errors
///
/// When the filter cannot be read, or another subscriber is in place.
pub fn init(settings: &LogSettings) -> Result<(), Error> {
    let filter = parse(&settings.filter)?.and(filter_fn(may_be_logged));
    let stderr = std::io::stderr;
    let layer = match settings.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(stderr)
            .with_filter(filter)
            .boxed(),
    };
    tracing_subscriber::registry().with(layer).try_init().map_err(Error::Again)
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder()
        .parse(filter)
        .map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}

fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    !metadata.target().starts_with("tokio_postgres") || *metadata.level() <= Level::WARN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_or_directives() {
        assert!(parse("info").is_ok());
        assert!(parse("info,rowlock::db=debug").is_ok());
        assert!(matches!(parse("info,=,"), Err(Error::Filter { .. })));
    }
}
