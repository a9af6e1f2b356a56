//! The worker library: handlers by kind, queues with concurrency, and everything between them and
//! the database.
//!
//! ```no_run
//! use rowlock::shutdown::Shutdown;
//! use rowlock::worker::{Job, Outcome, Worker};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let shutdown = Shutdown::new();
//! shutdown.on_signals()?;
//! Worker::new("postgres://app@db/app")
//!     .queue("mail", 8)
//!     .on("welcome", |job: Job| async move {
//!         let address: String = job.args()?;
//!         println!("welcome, {address}");
//!         Ok::<_, serde_json::Error>(Outcome::Complete)
//!     })
//!     .run(&shutdown)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A `lane` acquires for one queue and has runners that take job after job; its `room` says how many
//! to ask for, at the `pace` of the last jobs; `execute` runs a handler; the `finisher` tells the
//! database in batches; the `heart` extends the lease; the `ledger` knows what is held.
//!
//! # Invariants
//!
//! 1. Never more is held than slots and prefetch, and what ended and is not answered yet.
//! 2. A kind without a handler is never acquired.
//! 3. After the lease has ended by this process's own clock, its handlers are told to stop and
//!    nothing is finished any more.
//! 4. A handler may run more than once: its process can die after its work and before its finish.
//!    [`Job::complete_in`] is for those whose writes must not happen twice.

mod batch;
mod core;
mod execute;
mod finisher;
mod handler;
mod heart;
mod inputs;
mod job;
mod lane;
mod ledger;
mod outcome;
mod pace;
mod pause;
mod room;
mod run;
mod stop;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

pub use inputs::{InputError, Inputs};
pub use job::Job;
pub use outcome::Outcome;
pub use stop::StopReason;

use crate::config::{self, DatabaseUrl};
use crate::db::{self, Options};
use crate::doctor;
use crate::model::SchemaName;
use handler::{Handler, Handlers};

/// The most that one heartbeat may name.
const HEARTBEAT_JOBS: usize = 10_000;

/// Slots and jobs fetched ahead, over all queues. What ended and is not answered yet is held too.
const MOST_HELD: usize = 8_000;

/// Why a worker could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was given no queue.
    #[error("a worker needs a queue: `.queue(name, concurrency)`")]
    NoQueue,
    /// A queue was given no slot.
    #[error("queue {0:?} has a concurrency of 0")]
    NoSlots(String),
    /// It would hold more than one heartbeat can name.
    #[error("{0} slots and jobs fetched ahead are more than {most}: start several workers", most = MOST_HELD)]
    TooManySlots(usize),
    /// It was given no handler.
    #[error("a worker needs a handler: `.on(kind, handler)`")]
    NoHandler,
    /// Acknowledged work could be lost there.
    #[error("refusing to work on this database: {0}")]
    Unsafe(#[from] doctor::Unsafe),
    /// The database refused its first call, or cannot be used at all.
    #[error(transparent)]
    Database(#[from] db::Error),
}

/// A worker to be: what it runs and how. [`Worker::run`] brings it to life.
#[must_use = "it does nothing until it runs"]
pub struct Worker {
    options: Options,
    queues: BTreeMap<String, usize>,
    handlers: Handlers,
    fallback: Option<Handler>,
    settings: core::Settings,
    wakeups: bool,
}

impl Worker {
    /// A worker on this database, with the default settings.
    pub fn new(url: impl Into<DatabaseUrl>) -> Self {
        Self::with_options(Options::new(url.into(), &config::Settings::default().database))
    }

    /// A worker with database settings of its own: schema, pool size, time-outs.
    pub fn with_options(options: Options) -> Self {
        let queue = config::Settings::default().queue;
        Worker {
            options,
            queues: BTreeMap::new(),
            handlers: Handlers::new(),
            fallback: None,
            settings: core::Settings {
                name: default_name(),
                lease: queue.lease,
                poll: queue.poll,
                drain: queue.drain,
                stop_grace: Duration::from_secs(3),
                prefetch: None,
            },
            wakeups: true,
        }
    }

    /// Works on this queue, with so many jobs at once. At most 100 queues, and 8,000 jobs in all,
    /// those fetched ahead included: a heartbeat names 10,000.
    pub fn queue(mut self, queue: impl Into<String>, concurrency: usize) -> Self {
        self.queues.insert(queue.into(), concurrency);
        self
    }

    /// Runs jobs of this kind by an async function. `Ok(())` completes; an error fails the
    /// execution with its words, and the job runs again after a while; so does a panic.
    pub fn on<F, R, O, E>(mut self, kind: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Job) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + Send + 'static,
        O: Into<Outcome>,
        E: Display,
    {
        self.handlers.insert(kind.into(), Handler::new(handler));
        self
    }

    /// Runs jobs of this kind on threads of their own, for work that computes. It cannot be
    /// stopped from outside: look at [`Job::stop_reason`] between steps.
    pub fn on_blocking<F, O, E>(mut self, kind: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Job) -> Result<O, E> + Send + Sync + 'static,
        O: Into<Outcome>,
        E: Display,
    {
        self.handlers.insert(kind.into(), Handler::blocking(handler));
        self
    }

    /// Runs jobs of every other kind by an async function: then no kind is left to others.
    pub fn on_any<F, R, O, E>(mut self, handler: F) -> Self
    where
        F: Fn(Job) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, E>> + Send + 'static,
        O: Into<Outcome>,
        E: Display,
    {
        self.fallback = Some(Handler::new(handler));
        self
    }

    /// Its name, for people; host and process id unless given.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// The schema that holds the queue.
    pub fn schema(mut self, schema: SchemaName) -> Self {
        self.options.settings.schema = schema;
        self
    }

    /// How long it may be silent before its jobs are taken back (1 s to 24 h).
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How often to look for jobs without having been woken.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.settings.poll = poll;
        self
    }

    /// How long running jobs may take to end once a stop was asked for; then they are given back.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// How long a handler may take to end once it was told to stop; then it is left alone.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.settings.stop_grace = grace;
        self
    }

    /// Jobs to fetch ahead of the free slots of each queue. Unless given, as many as start within
    /// 20 ms at the pace of the last jobs, 2,000 at most: many where jobs are short, none where
    /// they are long. What then waits for longer than a second all the same is given back, since
    /// another worker may be idle. With a number of your own it waits for as long as it takes, and
    /// the database counts a job's timeout from when it was acquired.
    pub fn prefetch(mut self, jobs: usize) -> Self {
        self.settings.prefetch = Some(jobs);
        self
    }

    /// Only polls: no connection for wake-ups.
    pub fn poll_only(mut self) -> Self {
        self.wakeups = false;
        self
    }
}

fn default_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}:{}", host.as_deref().unwrap_or("localhost"), std::process::id())
}
