//! Logs: one subscriber for the process, as text or as JSON, on standard error.
//!
//! # Invariants
//!
//! 1. Args, results and tokens are never logged. The driver writes statements' parameters at
//!    `debug`, so it is held to warnings whatever the filter says.
//! 2. An event is a line: line breaks and control characters of whatever is logged are escaped.
//! 3. A field has the same name everywhere; the names are in [`field`].
//! 4. What callers can make happen as often as they like is told by [`Seldom`].

mod seldom;

pub use seldom::Seldom;

use std::io::{self, IsTerminal, Stderr, Write};

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
    let is_terminal = io::stderr().is_terminal();
    let stderr = move || OneLine { inner: io::stderr(), has_colours: is_terminal };
    let layer = match settings.format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(stderr)
            .with_ansi(is_terminal)
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

/// Standard error, for events that come whole: no more than the last character breaks the line.
struct OneLine<W = Stderr> {
    inner: W,
    /// Then the escape characters are the formatter's own, which masks those of others.
    has_colours: bool,
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let (line, end) = match event.strip_suffix(b"\n") {
            Some(line) => (line, &b"\n"[..]),
            None => (event, &b""[..]),
        };
        let mut escaped = Vec::with_capacity(event.len());
        for &byte in line {
            // In the notation of JSON, which lets DEL through.
            match byte {
                b'\n' => escaped.extend(b"\\n"),
                b'\r' => escaped.extend(b"\\r"),
                0x1b if self.has_colours => escaped.push(byte),
                0..0x20 | 0x7f => write!(escaped, "\\u{byte:04x}")?,
                _ => escaped.push(byte),
            }
        }
        escaped.extend(end);
        self.inner.write_all(&escaped)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
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
    fn an_event_is_a_line() {
        let written = |event: &str, has_colours| {
            let mut line = OneLine { inner: Vec::new(), has_colours };
            line.write_all(event.as_bytes()).unwrap();
            String::from_utf8(line.inner).unwrap()
        };
        let event = "one\r\n2026 ERROR two\t\u{1b}[2J\u{7f} \u{fc}\n";
        assert_eq!(
            written(event, false),
            "one\\r\\n2026 ERROR two\\u0009\\u001b[2J\\u007f \u{fc}\n"
        );
        assert_eq!(written("\u{1b}[31mred\u{1b}[0m\nx\n", true), "\u{1b}[31mred\u{1b}[0m\\nx\n");
    }

    #[test]
    fn filters_are_levels_or_directives() {
        assert!(parse("info").is_ok());
        assert!(parse("info,rowlock::db=debug").is_ok());
        assert!(matches!(parse("info,=,"), Err(Error::Filter { .. })));
    }
}
