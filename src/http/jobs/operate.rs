//! `POST /v1/jobs/{id}/cancel`, `/retry` and `/reprioritize`.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::{self, Path};
use crate::http::openapi;
use crate::http::problem::{Problem, no_such_job};
use crate::model::{CancelVerdict, Code, ReprioritizeVerdict, RetryVerdict};

/// What became of a cancel.
#[derive(Serialize, ToSchema)]
pub(super) struct CancelAnswer {
    job_id: Uuid,
    /// `cancelling`: it runs and was asked to stop. `finished`: it had ended before.
    #[schema(schema_with = openapi::cancel_verdict)]
    verdict: CancelVerdict,
}

/// What became of a retry.
#[derive(Serialize, ToSchema)]
pub(super) struct RetryAnswer {
    job_id: Uuid,
    /// `released`: it was held and waits no longer for the parents that held it.
    #[schema(schema_with = openapi::retry_verdict)]
    verdict: RetryVerdict,
}

/// The priority wanted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReprioritizeBody {
    /// 0 runs first, 9 last.
    #[schema(minimum = 0, maximum = 9)]
    priority: i16,
}

/// What became of a reprioritize.
#[derive(Serialize, ToSchema)]
pub(super) struct ReprioritizeAnswer {
    job_id: Uuid,
    /// `unchanged`: it had that priority. `finished`: it has ended.
    #[schema(schema_with = openapi::reprioritize_verdict)]
    verdict: ReprioritizeVerdict,
}

/// Cancel a waiting job, or ask a running one to stop
///
/// Repeating it is harmless.
#[utoipa::path(
    post, operation_id = "cancel_job",
    path = "/v1/jobs/{id}/cancel", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "What became of it", body = CancelAnswer),
        (status = 404, description = "RL404", body = Problem),
        (status = 429, description = "RL429: others hold it at this moment", body = Problem),
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    access: Access,
    Path(job_id): Path<Uuid>,
) -> Result<Json<CancelAnswer>, Problem> {
    access.job(&app.engine, job_id).await?;
    match app.engine.cancel(vec![job_id]).await?.first().copied() {
        None | Some(CancelVerdict::Unknown) => Err(no_such_job(job_id)),
        Some(verdict) => Ok(Json(CancelAnswer { job_id, verdict })),
    }
}

/// Let a discarded or cancelled job run again, or a held one go
///
/// A job that completed or has not ended stays as it is: see the verdict.
#[utoipa::path(
    post, operation_id = "retry_job",
    path = "/v1/jobs/{id}/retry", tag = "jobs",
    params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "What became of it", body = RetryAnswer),
        (status = 404, description = "RL404", body = Problem),
        (status = 409, description = "RL409: another live job has its unique key", body = Problem),
        (status = 429, description = "RL429: others hold it at this moment", body = Problem),
    )
)]
pub(super) async fn retry(
    State(app): State<App>,
    access: Access,
    Path(job_id): Path<Uuid>,
) -> Result<Json<RetryAnswer>, Problem> {
    access.job(&app.engine, job_id).await?;
    match app.engine.retry(vec![job_id]).await?.first().copied() {
        None | Some(RetryVerdict::Unknown) => Err(no_such_job(job_id)),
        Some(RetryVerdict::Conflict) => {
            Err(Problem::refused(Code::Conflict, "another live job has its unique key")
                .hint("Wait until that job has ended, or cancel it."))
        }
        Some(verdict) => Ok(Json(RetryAnswer { job_id, verdict })),
    }
}

/// Give a job another priority
///
/// A ready job goes to the end of its new lane and keeps its age; one that runs has it from its next
/// attempt on.
#[utoipa::path(
    post, operation_id = "reprioritize_job",
    path = "/v1/jobs/{id}/reprioritize", tag = "jobs", request_body = ReprioritizeBody,
    params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "What became of it", body = ReprioritizeAnswer),
        (status = 404, description = "RL404", body = Problem),
        (status = 422, description = "RL422", body = Problem),
        (status = 429, description = "RL429: others hold it at this moment", body = Problem),
    )
)]
pub(super) async fn reprioritize(
    State(app): State<App>,
    access: Access,
    Path(job_id): Path<Uuid>,
    body::Json(wanted): body::Json<ReprioritizeBody>,
) -> Result<Json<ReprioritizeAnswer>, Problem> {
    access.job(&app.engine, job_id).await?;
    match app.engine.reprioritize(vec![job_id], wanted.priority).await?.first().copied() {
        None | Some(ReprioritizeVerdict::Unknown) => Err(no_such_job(job_id)),
        Some(verdict) => Ok(Json(ReprioritizeAnswer { job_id, verdict })),
    }
}
