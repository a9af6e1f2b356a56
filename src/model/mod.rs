//! Pure types: the words of the queue, without I/O, clock or SQL.
//!
//! Everything above speaks these types. What comes in from outside is parsed once, here or by the
//! database; an unknown word is an error, never a default.
//!
//! # Not here
//!
//! Limits on sizes and names: they are constants of one SQL file and are checked by the database,
//! so that a caller from psql meets the same ones.

mod api_token;
mod code;
mod execution;
mod graph;
mod input;
mod job;
mod schema;
mod state;
pub(crate) mod text;
mod token;
mod verdict;
mod workflow;

pub(crate) use api_token::hex;
pub use api_token::{Action, ApiToken, Scope};
pub use code::Code;
pub use execution::{AcquiredJob, Execution};
pub use graph::{Graph, GraphEdge, GraphJob, GraphNode, MOST_EDGES, MOST_NODES};
pub use input::Input;
pub use job::{Dependency, NewJob, OnParentFailure, Parent, WaitFor};
pub use schema::{BadSchemaName, SchemaName};
pub use state::JobState;
pub use text::UnknownWord;
pub use token::Token;
pub use verdict::{
    CancelVerdict, FinishVerdict, HeartbeatVerdict, ReprioritizeVerdict, RetryVerdict,
};
pub use workflow::{NewWorkflow, WorkflowState, WorkflowVerdict};

/// Args, results and metadata: JSON text, checked once and never parsed into a tree.
pub type RawJson = Box<serde_json::value::RawValue>;
