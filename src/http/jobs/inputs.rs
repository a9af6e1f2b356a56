//! `GET /v1/jobs/{id}/inputs`: what the parents gave.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::Path;
use crate::http::openapi;
use crate::http::problem::{Problem, no_such_job};
use crate::model::{Input, JobState, RawJson};

/// A parent of a job, and its result.
#[derive(Serialize, ToSchema)]
#[schema(as = Input)]
pub(in crate::http) struct InputBody {
    /// What the call that enqueued the job named the parent: its ref, or its id.
    r#ref: String,
    parent: Uuid,
    #[schema(schema_with = openapi::job_state)]
    state: JobState,
    /// Null unless it completed with one.
    #[schema(value_type = Value)]
    result: Option<RawJson>,
    /// There is a result, and it was left out: all together were over 8 MiB.
    omitted: bool,
}

/// What the parents of a job gave.
#[derive(Serialize, ToSchema)]
pub(super) struct Inputs {
    /// By name.
    inputs: Vec<InputBody>,
}

/// What the parents of a job gave
#[utoipa::path(
    get, operation_id = "get_inputs",
    path = "/v1/jobs/{id}/inputs", tag = "jobs", params(("id" = Uuid, Path, description = "The job")),
    responses(
        (status = 200, description = "A parent each", body = Inputs),
        (status = "4XX", description = "RL404, RL422", body = Problem),
    )
)]
pub(super) async fn inputs(
    State(app): State<App>,
    access: Access,
    Path(id): Path<Uuid>,
) -> Result<Json<Inputs>, Problem> {
    access.job(&app.engine, id).await?;
    let inputs = app.engine.inputs(&[id]).await?;
    if inputs.is_empty() && app.engine.job(id).await?.is_none() {
        return Err(no_such_job(id));
    }
    let inputs = inputs.into_iter().map(|(_, input)| InputBody::from(input)).collect();
    Ok(Json(Inputs { inputs }))
}

impl From<Input> for InputBody {
    fn from(input: Input) -> Self {
        InputBody {
            r#ref: input.reference,
            parent: input.parent,
            state: input.state,
            result: input.result,
            omitted: input.omitted,
        }
    }
}
