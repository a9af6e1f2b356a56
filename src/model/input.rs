//! What a parent gave to the job that waited for it.

use uuid::Uuid;

use super::{JobState, RawJson};

/// A parent of a job, and its result.
#[derive(Clone, Debug)]
pub struct Input {
    /// What the call that enqueued the job named the parent: its `ref`, or its id.
    pub reference: String,
    /// The parent.
    pub parent: Uuid,
    /// The parent's state.
    pub state: JobState,
    /// Its result, if it completed with one.
    pub result: Option<RawJson>,
    /// Whether there is a result that was left out, since all together were over 8 MiB.
    pub omitted: bool,
}
