//! Jobs that were enqueued as one graph, and are looked at, cancelled and retried as one.

use uuid::Uuid;

use super::text::words;

/// What makes the jobs of a call a workflow.
///
/// ```
/// use rowlock::model::NewWorkflow;
///
/// let nightly = NewWorkflow::new("nightly");
/// assert_eq!(nightly.name.as_deref(), Some("nightly"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorkflow {
    /// Its id, known before it is enqueued.
    pub id: Uuid,
    /// What people call it: 1 to 128 characters, and not unique.
    pub name: Option<String>,
}

impl NewWorkflow {
    /// A workflow of this name with a fresh id.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        NewWorkflow { id: Uuid::now_v7(), name: Some(name.into()) }
    }

    /// A workflow without a name.
    #[must_use]
    pub fn unnamed() -> Self {
        NewWorkflow { id: Uuid::now_v7(), name: None }
    }

    /// With this id. A repeat of the call finds the same workflow where its jobs have ids too.
    #[must_use]
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = id;
        self
    }
}

words! {
    /// Where a workflow stands: what is known of its jobs, in one word.
    WorkflowState("workflow state") {
        /// A job has not ended.
        Running = "running",
        /// All jobs ended well.
        Completed = "completed",
        /// All have ended, and one was discarded or fell with one that was.
        Failed = "failed",
        /// All have ended, and one was cancelled on request.
        Cancelled = "cancelled",
    }
}

words! {
    /// What became of one job of a workflow that somebody wanted cancelled or retried.
    WorkflowVerdict("workflow verdict") {
        /// Cancel: it waited and is cancelled, or had been cancelled before.
        Cancelled = "cancelled",
        /// Cancel: it runs, and was asked to stop.
        Cancelling = "cancelling",
        /// Cancel: it had ended otherwise before.
        Finished = "finished",
        /// Retry: it waits to run again.
        Retried = "retried",
        /// Retry: another live job has its unique key.
        Conflict = "conflict",
        /// Retry: it had ended well.
        Completed = "completed",
        /// Retry: it had not ended.
        Unfinished = "unfinished",
        /// Retry: it fell with a job that was not retried.
        Unchanged = "unchanged",
        /// Others hold it, or a job that it waits for; try again.
        Busy = "busy",
        /// It was pruned meanwhile.
        Unknown = "unknown",
    }
}
