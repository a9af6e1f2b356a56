//! `POST /v1/workflows/{id}/cancel` and `/retry`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::WorkflowVerdicts;
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::Path;
use crate::http::problem::{Problem, no_such_workflow};

/// What became of the jobs of a workflow.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkflowVerdicts)]
pub(super) struct Answer {
    workflow: Uuid,
    /// How many jobs, by what became of them; a verdict without jobs is left out. `busy`: others
    /// hold them, so ask again.
    verdicts: BTreeMap<&'static str, i64>,
}

/// Cancel what waits of a workflow, and ask what runs to stop
///
/// Repeating it is harmless. `cancelling`: it runs and was asked to stop. `finished`: it had ended
/// before.
#[utoipa::path(
    post, operation_id = "cancel_workflow",
    path = "/v1/workflows/{id}/cancel", tag = "workflows",
    params(("id" = Uuid, Path, description = "The workflow")),
    responses(
        (status = 200, description = "What became of its jobs", body = Answer),
        (status = 404, description = "RL404", body = Problem),
    )
)]
pub(super) async fn cancel(
    State(app): State<App>,
    access: Access,
    Path(id): Path<Uuid>,
) -> Result<Json<Answer>, Problem> {
    access.workflow(&app.engine, id).await?;
    Answer::of(id, app.engine.cancel_workflow(id).await?)
}

/// Let the discarded and cancelled jobs of a workflow run again
///
/// With those that fell with them and never ran. `unchanged`: it fell with a job that was not
/// retried. `conflict`: another live job has its unique key.
#[utoipa::path(
    post, operation_id = "retry_workflow",
    path = "/v1/workflows/{id}/retry", tag = "workflows",
    params(("id" = Uuid, Path, description = "The workflow")),
    responses(
        (status = 200, description = "What became of its jobs", body = Answer),
        (status = 404, description = "RL404", body = Problem),
    )
)]
pub(super) async fn retry(
    State(app): State<App>,
    access: Access,
    Path(id): Path<Uuid>,
) -> Result<Json<Answer>, Problem> {
    access.workflow(&app.engine, id).await?;
    Answer::of(id, app.engine.retry_workflow(id).await?)
}

impl Answer {
    fn of(workflow: Uuid, verdicts: WorkflowVerdicts) -> Result<Json<Self>, Problem> {
        if verdicts.is_empty() {
            return Err(no_such_workflow(workflow));
        }
        let verdicts = verdicts.into_iter().map(|(verdict, jobs)| (verdict.as_str(), jobs));
        Ok(Json(Answer { workflow, verdicts: verdicts.collect() }))
    }
}
