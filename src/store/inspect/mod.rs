//! Reading: jobs, queues, workers and figures. Nothing here changes anything.
//!
//! Every read has a bound, and none grows with the history: see [`WALK`].

mod explain;
mod figures;
mod job;
mod jobs;
mod whose;
mod workflows;

pub use explain::{Explanation, explain};
pub use figures::{
    Depth, LatencyFigures, OutcomeFigures, QueueFigures, Stats, WaitFigures, WorkerFigures, queues,
    stats, workers,
};
pub use job::{
    ExecutionRecord, JobDetails, MOST_EXECUTIONS, MOST_RELATIVES, Relative, is_finished, job,
};
pub use jobs::{JobFilter, JobPage, JobSummary, WALK, jobs};
pub use whose::{queues_of_jobs, queues_of_worker, queues_of_workflows};
pub use workflows::{WorkflowPage, WorkflowSummary, workflow, workflow_jobs, workflows};
