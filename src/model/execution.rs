//! What a worker holds: an execution's three-part name, and the job it came with.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{RawJson, Token};

/// One run of a job, named as the finishing verbs want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Execution {
    /// The job.
    pub job_id: Uuid,
    /// The number of the run; it only grows and is never used again.
    pub attempt: i32,
    /// The right to finish it.
    pub token: Token,
}

/// A job as `acquire` hands it to a worker.
#[derive(Clone)]
pub struct AcquiredJob {
    /// The execution that began with it.
    pub execution: Execution,
    /// The queue that it was taken from.
    pub queue: String,
    /// What sort of job it is; chooses the handler.
    pub kind: String,
    /// 0 runs first, 9 last.
    pub priority: i16,
    /// The arguments, as they were enqueued.
    pub args: RawJson,
    /// How long it may run, if bounded.
    pub timeout: Option<Duration>,
    /// When it was due.
    pub run_at: OffsetDateTime,
    /// When it was enqueued.
    pub created_at: OffsetDateTime,
}

impl std::fmt::Debug for AcquiredJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AcquiredJob")
            .field("execution", &self.execution)
            .field("queue", &self.queue)
            .field("kind", &self.kind)
            .field("priority", &self.priority)
            .field("args_bytes", &self.args.get().len())
            .finish_non_exhaustive()
    }
}
