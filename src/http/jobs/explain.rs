//! `GET /v1/jobs/{id}/explain`: why is it not running?

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::Explanation;
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::Path;
use crate::http::openapi;
use crate::http::problem::{Problem, no_such_job};
use crate::model::{JobState, RawJson};

/// Where a job stands, since when, and what it waits for.
#[derive(Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct ExplanationBody {
    job_id: Uuid,
    #[schema(schema_with = openapi::job_state)]
    state: JobState,
    /// Since when it is in that state.
    #[serde(with = "time::serde::rfc3339")]
    since: OffsetDateTime,
    /// The answer in one sentence or two.
    summary: String,
    queue: String,
    kind: String,
    priority: i32,
    attempt: i32,
    /// When it becomes ready, while it is scheduled.
    #[serde(with = "time::serde::rfc3339::option")]
    due_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    queue_paused_at: Option<OffsetDateTime>,
    /// The parents that a blocked job waits for, 20 at most.
    #[schema(value_type = Option<Vec<WaitedFor>>)]
    waits_for: Option<RawJson>,
    /// The job whose end cancelled or holds this one.
    first_cause: Option<Uuid>,
    /// How many ready jobs are before it, while it is ready; 1,001 stands for more than 1,000.
    ahead: Option<i32>,
    /// Workers that ask for its queue.
    workers_on_queue: i32,
    /// Those of them that can run its kind.
    workers_for_kind: i32,
    /// Who runs it.
    worker: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339::option")]
    lease_ends_at: Option<OffsetDateTime>,
}

/// A parent that a blocked job waits for, as the database writes it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is passed on as text")]
struct WaitedFor {
    job_id: Uuid,
    #[schema(schema_with = openapi::job_state)]
    state: JobState,
    #[schema(schema_with = openapi::on_parent_failure)]
    on_parent_failure: String,
}

/// Say why a job is not running
#[utoipa::path(
    get, operation_id = "explain_job",
    path = "/v1/jobs/{id}/explain", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "Where it stands", body = ExplanationBody),
        (status = 404, description = "RL404", body = Problem),
    )
)]
pub(super) async fn explain(
    State(app): State<App>,
    access: Access,
    Path(job_id): Path<Uuid>,
) -> Result<Json<ExplanationBody>, Problem> {
    access.job(&app.engine, job_id).await?;
    let explanation = app.engine.explain(job_id).await?.ok_or_else(|| no_such_job(job_id))?;
    Ok(Json(ExplanationBody::of(job_id, explanation)))
}

impl ExplanationBody {
    fn of(job_id: Uuid, of: Explanation) -> Self {
        ExplanationBody {
            job_id,
            state: of.state,
            since: of.since,
            summary: of.summary,
            queue: of.queue,
            kind: of.kind,
            priority: of.priority,
            attempt: of.attempt,
            due_at: of.due_at,
            queue_paused_at: of.queue_paused_at,
            waits_for: of.waits_for,
            first_cause: of.first_cause,
            ahead: of.ahead,
            workers_on_queue: of.workers_on_queue,
            workers_for_kind: of.workers_for_kind,
            worker: of.worker,
            lease_ends_at: of.lease_ends_at,
        }
    }
}
