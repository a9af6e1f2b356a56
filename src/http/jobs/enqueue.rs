//! `POST /v1/jobs`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wire::{EnqueuedBody, JobBody, jobs_of, status_of};
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::JsonText;
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::Problem;
use crate::model::NewJob;

/// One job, or several: an array is one call, all of it or nothing.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = NewJobs)]
enum OneOrMany {
    One(JobBody),
    Many(Vec<JobBody>),
}

/// The answer in the shape of the question.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = EnqueuedJobs)]
enum Answer {
    One(EnqueuedBody),
    Many(Vec<EnqueuedBody>),
}

/// Enqueue a job, or an array of jobs
///
/// With an `Idempotency-Key`, ids follow from the key and the place in the array: a repeat finds
/// the same jobs while they are kept (200), and other content is refused (409, `RL409`). Jobs that
/// bring an `id` keep it. Args, options, dependencies and the number of jobs are compared.
#[utoipa::path(
    post, operation_id = "enqueue_jobs",
    path = "/v1/jobs", tag = "jobs", request_body = OneOrMany,
    params((
        "Idempotency-Key" = Option<String>, Header, description = "1 to 200 ASCII characters",
        pattern = "^[!-~]([ -~]*[!-~])?$", max_length = 200
    )),
    responses(
        (status = 201, description = "At least one job was created", body = Answer),
        (status = 200, description = "All of them existed", body = Answer),
        (status = "4XX", description = "RL404, RL409, RL413, RL422, RL429", body = Problem),
    )
)]
pub(super) async fn enqueue(
    State(app): State<App>,
    access: Access,
    headers: HeaderMap,
    text: JsonText,
) -> Result<Response, Problem> {
    let key = IdempotencyKey::of(&headers)?;
    let bodies = match OneOrMany::read(&text)? {
        OneOrMany::Many(bodies) => bodies,
        OneOrMany::One(body) => vec![body],
    };
    let jobs = jobs_of(bodies);
    access.enqueue(&app.engine, &jobs).await?;
    let mut answers = enqueue_all(&app, key.as_ref(), jobs).await?;
    let status = status_of(&answers);
    if text.is_array() {
        return Ok((status, Json(Answer::Many(answers))).into_response());
    }
    let one = answers.pop().ok_or_else(|| Problem::internal("an enqueue had no answer"))?;
    let location = [(LOCATION, format!("/v1/jobs/{}", one.id))];
    Ok((status, location, Json(Answer::One(one))).into_response())
}

impl OneOrMany {
    /// By its first character, since serde's own choice would not name the key at fault.
    fn read(text: &JsonText) -> Result<Self, Problem> {
        if text.is_array() {
            text.parse().map(OneOrMany::Many)
        } else {
            text.parse().map(OneOrMany::One)
        }
    }
}

async fn enqueue_all(
    app: &App,
    key: Option<&IdempotencyKey>,
    mut jobs: Vec<NewJob>,
) -> Result<Vec<EnqueuedBody>, Problem> {
    if let Some(key) = key {
        key.name(&mut jobs);
    }
    let answers = app.engine.enqueue(jobs).await?;
    Ok(answers.into_iter().map(EnqueuedBody::from).collect())
}
