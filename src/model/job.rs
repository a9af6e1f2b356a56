//! A job to be enqueued.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::RawJson;
use super::text::words;

words! {
    /// What a child does when a parent ends otherwise than completed.
    OnParentFailure("policy on parent failure") {
        /// The child is cancelled too.
        Cancel = "cancel",
        /// The child runs all the same.
        Continue = "continue",
        /// The child stays blocked until someone retries the parent or releases the child.
        Hold = "hold",
    }
}

words! {
    /// Which of its parents a child waits for.
    WaitFor("wait_for") {
        /// All of them.
        All = "all",
        /// Any of them; the others run on.
        Any = "any",
    }
}

/// A job that another one waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    /// A job that exists already, or one of this call that carries its id.
    Id(Uuid),
    /// A job of the same call, by its [`NewJob::reference`].
    Ref(String),
}

impl From<Uuid> for Parent {
    fn from(id: Uuid) -> Self {
        Parent::Id(id)
    }
}

impl From<&str> for Parent {
    fn from(reference: &str) -> Self {
        Parent::Ref(reference.to_owned())
    }
}

/// What a child waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dependency {
    /// The job to wait for.
    pub parent: Parent,
    /// What to do when this one does not complete; [`NewJob::on_parent_failure`] unless given.
    pub on_parent_failure: Option<OnParentFailure>,
}

impl<P: Into<Parent>> From<P> for Dependency {
    fn from(parent: P) -> Self {
        Dependency { parent: parent.into(), on_parent_failure: None }
    }
}

/// A job to be enqueued. What stays `None` takes the queue's, the parents' or the built-in default.
///
/// ```
/// use rowlock::model::NewJob;
///
/// let extract = NewJob::new("extract", &serde_json::json!({"document": 7}))?
///     .queue("etl")
///     .priority(2)
///     .reference("extract");
/// let relate = NewJob::new("relate", &())?.queue("etl").depends_on("extract");
/// assert_eq!(relate.parents.len(), 1);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a job does nothing until it is enqueued"]
pub struct NewJob {
    /// What sort of job it is; chooses the handler.
    pub kind: String,
    /// The arguments, as JSON text.
    pub args: RawJson,
    /// The queue; `default` unless given.
    pub queue: Option<String>,
    /// 0 runs first, 9 last; a child without one takes its most urgent parent's.
    pub priority: Option<i16>,
    /// Not before this time.
    pub run_at: Option<OffsetDateTime>,
    /// The jobs that must finish first.
    pub parents: Vec<Dependency>,
    /// What to do when one of them does not complete that has no policy of its own.
    pub on_parent_failure: Option<OnParentFailure>,
    /// Whether it waits for all of them, or for the first that completes.
    pub wait_for: Option<WaitFor>,
    /// How many failures, lost leases and time-outs it may have.
    pub max_attempts: Option<i32>,
    /// How long one execution may take.
    pub timeout: Option<Duration>,
    /// While a job with this key is unfinished, enqueue answers with that one.
    pub unique_key: Option<String>,
    /// The job's id, if the caller wants to enqueue it again without harm.
    pub id: Option<Uuid>,
    /// A name for the other jobs of the same call to depend on.
    pub reference: Option<String>,
    /// How many jobs the call has, for an id that follows from a key of the whole call: a repeat of
    /// another size is then refused. An id that stands for its job alone has none.
    pub call_size: Option<i32>,
}

impl NewJob {
    /// A job with args that serde can write.
    ///
    /// # Errors
    ///
    /// When the args cannot be written as JSON.
    pub fn new<T: Serialize + ?Sized>(
        kind: impl Into<String>,
        args: &T,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self::from_raw(kind, serde_json::value::to_raw_value(args)?))
    }

    /// A job with args that are JSON text already.
    pub fn from_raw(kind: impl Into<String>, args: RawJson) -> Self {
        NewJob {
            kind: kind.into(),
            args,
            queue: None,
            priority: None,
            run_at: None,
            parents: Vec::new(),
            on_parent_failure: None,
            wait_for: None,
            max_attempts: None,
            timeout: None,
            unique_key: None,
            id: None,
            reference: None,
            call_size: None,
        }
    }

    /// Puts it into this queue.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// 0 runs first, 9 last.
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Not before this time.
    pub fn run_at(mut self, run_at: OffsetDateTime) -> Self {
        self.run_at = Some(run_at);
        self
    }

    /// One more job that must finish first.
    pub fn depends_on(mut self, parent: impl Into<Parent>) -> Self {
        self.parents.push(Dependency::from(parent));
        self
    }

    /// The same, with a policy of its own for when that job does not complete.
    pub fn depends_on_with(mut self, parent: impl Into<Parent>, policy: OnParentFailure) -> Self {
        let parent = parent.into();
        self.parents.push(Dependency { parent, on_parent_failure: Some(policy) });
        self
    }

    /// What to do when a parent does not complete that has no policy of its own.
    pub fn on_parent_failure(mut self, policy: OnParentFailure) -> Self {
        self.on_parent_failure = Some(policy);
        self
    }

    /// Whether it waits for all of its parents, or for the first that completes.
    pub fn wait_for(mut self, which: WaitFor) -> Self {
        self.wait_for = Some(which);
        self
    }

    /// How many failures, lost leases and time-outs it may have.
    pub fn max_attempts(mut self, max_attempts: i32) -> Self {
        self.max_attempts = Some(max_attempts);
        self
    }

    /// How long one execution may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// At most one unfinished job with this key.
    pub fn unique_key(mut self, key: impl Into<String>) -> Self {
        self.unique_key = Some(key.into());
        self
    }

    /// Names the job beforehand, so that a repeated call creates it once.
    pub fn id(mut self, id: Uuid) -> Self {
        self.id = Some(id);
        self
    }

    /// A name for the other jobs of the same call.
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }
}

impl std::fmt::Debug for NewJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewJob")
            .field("kind", &self.kind)
            .field("queue", &self.queue)
            .field("priority", &self.priority)
            .field("parents", &self.parents.len())
            .field("args_bytes", &self.args.get().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn args_keep_their_text_and_stay_out_of_debug() {
        let text = r#"{"b":1e3,  "secret":"x"}"#;
        let args = serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
        let job = NewJob::from_raw("mail", args).queue("etl").depends_on("first");
        assert_eq!(job.args.get(), text);
        assert_eq!(job.parents, [Dependency::from("first")]);
        assert!(!format!("{job:?}").contains("secret"));
    }

    #[test]
    fn priority_zero_is_a_priority() {
        assert_eq!(NewJob::new("mail", &()).unwrap().priority(0).priority, Some(0));
    }
}
