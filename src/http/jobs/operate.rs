//! `POST /v1/jobs/{id}/cancel` and `/retry`.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::show::no_such_job;
use crate::http::app::App;
use crate::http::body::Path;
use crate::http::openapi;
use crate::http::problem::Problem;
use crate::model::{CancelVerdict, Code, RetryVerdict};

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
    Path(job_id): Path<Uuid>,
) -> Result<Json<CancelAnswer>, Problem> {
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
    Path(job_id): Path<Uuid>,
) -> Result<Json<RetryAnswer>, Problem> {
    match app.engine.retry(vec![job_id]).await?.first().copied() {
        None | Some(RetryVerdict::Unknown) => Err(no_such_job(job_id)),
        Some(RetryVerdict::Conflict) => {
            Err(Problem::refused(Code::Conflict, "another live job has its unique key")
                .hint("Wait until that job has ended, or cancel it."))
        }
        Some(verdict) => Ok(Json(RetryAnswer { job_id, verdict })),
    }
}
