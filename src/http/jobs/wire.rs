//! A job to be enqueued, as JSON: the argument names of the SQL function.

use std::collections::HashSet;

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::Enqueued;
use crate::http::interval::Interval;
use crate::http::openapi;
use crate::http::strict::Strict;
use crate::model::{Dependency, NewJob, OnParentFailure, Parent, RawJson, WaitFor};

/// A job to be enqueued. What is left out, or null, takes the queue's, the parents' or the built-in
/// default.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewJob)]
pub(in crate::http) struct JobBody {
    /// What is to be done; handlers go by it.
    #[schema(max_length = 128, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    kind: String,
    /// Any JSON, kept digit for digit; 256 KiB at most.
    #[serde(default = "no_args")]
    #[schema(value_type = Value, required = false)]
    args: RawJson,
    /// `default` when left out.
    #[schema(example = "etl", pattern = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length = 128)]
    queue: Option<String>,
    /// 0 runs first, 9 last; when left out the most urgent parent's, or 5.
    #[schema(minimum = 0, maximum = 9)]
    priority: Option<i16>,
    /// Not before this time.
    #[serde(default, with = "time::serde::rfc3339::option")]
    run_at: Option<OffsetDateTime>,
    /// Jobs to wait for: ids, or refs of this call.
    #[serde(default)]
    depends_on: Option<Vec<DependencyBody>>,
    /// What to do when one of them does not complete that has no policy of its own; `cancel` when
    /// left out.
    #[schema(schema_with = openapi::on_parent_failure)]
    on_parent_failure: Option<OnParentFailure>,
    /// Whether it waits for all of its parents, or for the first that completes; `all` when left out.
    #[schema(schema_with = openapi::wait_for)]
    wait_for: Option<WaitFor>,
    /// How many failures, lost leases and time-outs it may have; 25 when left out.
    #[schema(minimum = 1, maximum = 1000)]
    max_attempts: Option<i32>,
    /// How long one execution may take.
    timeout: Option<Interval>,
    /// While a job with this key is unfinished, that one is the answer.
    #[schema(min_length = 1, max_length = 128)]
    unique_key: Option<String>,
    /// Chosen by the caller, so that the call can be repeated.
    id: Option<Uuid>,
    /// A name inside this call, for `depends_on`.
    #[serde(rename = "ref")]
    #[schema(min_length = 1, max_length = 128)]
    reference: Option<String>,
}

/// A job to wait for: its id or ref, alone or with a policy of its own.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected an id, a ref, or an object of job and on_parent_failure")]
#[schema(as = Dependency)]
enum DependencyBody {
    Name(String),
    Edge(EdgeBody),
}

/// A job to wait for, with a policy of its own.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
#[schema(as = Edge)]
struct EdgeBody {
    /// Its id or ref.
    job: String,
    /// What to do when this one does not complete.
    #[schema(schema_with = openapi::on_parent_failure)]
    on_parent_failure: Option<OnParentFailure>,
}

/// An object, where what stands around it has lost the care of the body's own deserializer.
impl<'de> Deserialize<'de> for EdgeBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Strict(deserializer))
    }
}

/// What became of one job of a call.
#[derive(Serialize, ToSchema)]
#[schema(as = EnqueuedJob)]
pub(in crate::http) struct EnqueuedBody {
    /// As it was given.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub(in crate::http) reference: Option<String>,
    /// The job: a fresh one, or the one that has the id or the unique key.
    pub(in crate::http) id: Uuid,
    /// Whether this call made it.
    pub(in crate::http) created: bool,
}

impl From<Enqueued> for EnqueuedBody {
    fn from(Enqueued { reference, job_id, created }: Enqueued) -> Self {
        EnqueuedBody { reference, id: job_id, created }
    }
}

/// 201 if a job was created.
pub(in crate::http) fn status_of(answers: &[EnqueuedBody]) -> StatusCode {
    let created = answers.iter().any(|answer| answer.created);
    if created { StatusCode::CREATED } else { StatusCode::OK }
}

fn no_args() -> RawJson {
    RawValue::from_string("{}".to_owned()).expect("an empty object is JSON")
}

/// The jobs of one call, whose refs may stand in `depends_on`.
pub(in crate::http) fn jobs_of(bodies: Vec<JobBody>) -> Vec<NewJob> {
    let refs: HashSet<String> = bodies.iter().filter_map(|body| body.reference.clone()).collect();
    bodies.into_iter().map(|body| body.into_job(&refs)).collect()
}

impl JobBody {
    fn into_job(self, refs: &HashSet<String>) -> NewJob {
        let mut job = NewJob::from_raw(self.kind, self.args);
        // A ref wins over an id of the same form, as in enqueue_many.
        let parent = |name: String| match name.parse() {
            Ok(id) if !refs.contains(&name) => Parent::Id(id),
            _ => Parent::Ref(name),
        };
        let dependency = |body| match body {
            DependencyBody::Name(name) => Dependency::from(parent(name)),
            DependencyBody::Edge(EdgeBody { job, on_parent_failure }) => {
                Dependency { parent: parent(job), on_parent_failure }
            }
        };
        job.parents = self.depends_on.unwrap_or_default().into_iter().map(dependency).collect();
        job.queue = self.queue;
        job.priority = self.priority;
        job.run_at = self.run_at;
        job.on_parent_failure = self.on_parent_failure;
        job.wait_for = self.wait_for;
        job.max_attempts = self.max_attempts;
        job.timeout = self.timeout.map(|timeout| timeout.0);
        job.unique_key = self.unique_key;
        job.id = self.id;
        job.reference = self.reference;
        job
    }
}
