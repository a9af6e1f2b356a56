//! `POST /v1/workflows`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body;
use crate::http::idempotency::IdempotencyKey;
use crate::http::jobs::{EnqueuedBody, JobBody, jobs_of, status_of};
use crate::http::problem::Problem;
use crate::http::strict::Strict;
use crate::model::NewWorkflow;

/// Jobs enqueued as one graph.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWorkflow)]
pub(super) struct WorkflowBody {
    /// What it is called, and its id if the caller chooses it.
    workflow: Option<NameOrMore>,
    /// The jobs; `depends_on` names refs of this list, or ids of jobs that exist.
    jobs: Vec<JobBody>,
}

/// The name of a workflow, alone or with an id.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a name, or an object of name and id")]
#[schema(as = WorkflowName)]
enum NameOrMore {
    Name(String),
    More(NameAndId),
}

/// The name and the id of a workflow.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
#[schema(as = WorkflowNameAndId)]
struct NameAndId {
    /// Need not be unique.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// Chosen by the caller; repeats find it where the jobs have ids or there is a key.
    id: Option<Uuid>,
}

/// An object, where what stands around it has lost the care of the body's own deserializer.
impl<'de> Deserialize<'de> for NameAndId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(Strict(deserializer))
    }
}

/// The jobs of a workflow, in the order of the question.
#[derive(Serialize, ToSchema)]
#[schema(as = EnqueuedWorkflow)]
struct WorkflowAnswer {
    /// Its id; null when all jobs existed, and in no workflow.
    workflow: Option<Uuid>,
    jobs: Vec<EnqueuedBody>,
}

/// Enqueue a graph of jobs
///
/// All of it or nothing. Takes an `Idempotency-Key` as `POST /v1/jobs` does. A job that exists keeps
/// the workflow that it has.
#[utoipa::path(
    post, operation_id = "enqueue_workflow",
    path = "/v1/workflows", tag = "workflows", request_body = WorkflowBody,
    params((
        "Idempotency-Key" = Option<String>, Header, description = "1 to 200 ASCII characters",
        pattern = "^[!-~]([ -~]*[!-~])?$", max_length = 200
    )),
    responses(
        (status = 201, description = "At least one job was created", body = WorkflowAnswer),
        (status = 200, description = "All of them existed", body = WorkflowAnswer),
        (status = "4XX", description = "RL404, RL409, RL413, RL422, RL429", body = Problem),
    )
)]
pub(super) async fn enqueue(
    State(app): State<App>,
    access: Access,
    headers: HeaderMap,
    body::Json(asked): body::Json<WorkflowBody>,
) -> Result<Response, Problem> {
    let key = IdempotencyKey::of(&headers)?;
    let mut jobs = jobs_of(asked.jobs);
    access.enqueue(&app.engine, &jobs).await?;
    if let Some(key) = key {
        key.name(&mut jobs);
    }
    let NameAndId { name, id } = match asked.workflow {
        None => NameAndId::default(),
        Some(NameOrMore::Name(name)) => NameAndId { name: Some(name), id: None },
        Some(NameOrMore::More(both)) => both,
    };
    let fresh = NewWorkflow::unnamed();
    let workflow = NewWorkflow { id: id.unwrap_or(fresh.id), name };
    let answer = app.engine.enqueue_workflow(&workflow, jobs).await?;
    let jobs: Vec<_> = answer.jobs.into_iter().map(EnqueuedBody::from).collect();
    let location = answer.id.map(|id| [(LOCATION, format!("/v1/workflows/{id}"))]);
    let status = status_of(&jobs);
    Ok((status, location, Json(WorkflowAnswer { workflow: answer.id, jobs })).into_response())
}
