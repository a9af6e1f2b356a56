//! `GET /v1/jobs/{id}`: everything about one job, at once or when it has ended.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::list::SummaryBody;
use crate::engine::{ExecutionRecord, JobDetails, Relative};
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::{Params, Path};
use crate::http::interval::Interval;
use crate::http::openapi;
use crate::http::problem::{Problem, no_such_job};
use crate::model::{JobState, OnParentFailure, RawJson};

/// Load balancers cut requests at a minute.
const MOST_WAIT: u64 = 30;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowParams {
    /// Answer when the job has ended, or after so many seconds; 30 at most, more is taken as 30.
    wait: Option<u64>,
}

/// Everything about one job.
#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
pub(super) struct DetailsBody {
    #[serde(flatten)]
    summary: SummaryBody,
    /// As they were enqueued, digit for digit. Null where the database cannot read them.
    #[schema(value_type = Value)]
    args: RawJson,
    timeout: Option<Interval>,
    unique_key: Option<String>,
    /// The job whose end cancelled or holds this one.
    cause: Option<Uuid>,
    /// The workflow that it was enqueued in.
    workflow: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339::option")]
    cancel_requested_at: Option<OffsetDateTime>,
    /// How many parents it waits for.
    waits_for: i32,
    /// What the execution that completed it gave.
    #[schema(value_type = Option<Value>)]
    result: Option<RawJson>,
    /// The newest first, 100 at most.
    executions: Vec<ExecutionBody>,
    /// The jobs that it waits or waited for, 1,000 at most.
    parents: Vec<RelativeBody>,
    /// The jobs that wait or waited for it, 1,000 at most.
    children: Vec<RelativeBody>,
}

/// One run of a job.
#[derive(Serialize, ToSchema)]
#[schema(as = Execution)]
struct ExecutionBody {
    attempt: i32,
    worker: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    ready_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// completed, failed, snoozed, released, cancelled, lost or timed_out; null while it runs.
    outcome: Option<String>,
    error: Option<String>,
}

/// The other end of a dependency.
#[derive(Serialize, ToSchema)]
#[schema(as = Relative)]
struct RelativeBody {
    job_id: Uuid,
    /// Null for a parent that was pruned.
    #[schema(schema_with = openapi::job_state, required = false)]
    state: Option<JobState>,
    #[schema(schema_with = openapi::on_parent_failure)]
    on_parent_failure: OnParentFailure,
}

/// Show a job with its executions and dependencies
#[utoipa::path(
    get, operation_id = "show_job",
    path = "/v1/jobs/{id}", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job"), ShowParams),
    responses(
        (status = 200, description = "The job", body = DetailsBody),
        (status = 404, description = "RL404", body = Problem),
        (status = 422, description = "RL422", body = Problem),
    )
)]
pub(super) async fn show(
    State(app): State<App>,
    access: Access,
    Path(id): Path<Uuid>,
    Params(params): Params<ShowParams>,
) -> Result<Json<DetailsBody>, Problem> {
    access.job(&app.engine, id).await?;
    let wait = Duration::from_secs(params.wait.unwrap_or(0).min(MOST_WAIT));
    match app.engine.job_wait(id, wait, app.shutdown.token()).await? {
        Some(details) => Ok(Json(details.into())),
        None => Err(no_such_job(id)),
    }
}

impl From<JobDetails> for DetailsBody {
    fn from(job: JobDetails) -> Self {
        DetailsBody {
            summary: job.summary.into(),
            args: job.args,
            timeout: job.timeout.map(Interval),
            unique_key: job.unique_key,
            cause: job.cause,
            workflow: job.workflow,
            cancel_requested_at: job.cancel_requested_at,
            waits_for: job.waits_for,
            result: job.result,
            executions: job.executions.into_iter().map(ExecutionBody::from).collect(),
            parents: job.parents.into_iter().map(RelativeBody::from).collect(),
            children: job.children.into_iter().map(RelativeBody::from).collect(),
        }
    }
}

impl From<ExecutionRecord> for ExecutionBody {
    fn from(execution: ExecutionRecord) -> Self {
        ExecutionBody {
            attempt: execution.attempt,
            worker: execution.worker,
            ready_at: execution.ready_at,
            started_at: execution.started_at,
            finished_at: execution.finished_at,
            outcome: execution.outcome,
            error: execution.error,
        }
    }
}

impl From<Relative> for RelativeBody {
    fn from(relative: Relative) -> Self {
        RelativeBody {
            job_id: relative.job_id,
            state: relative.state,
            on_parent_failure: relative.policy,
        }
    }
}
