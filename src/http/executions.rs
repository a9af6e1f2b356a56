//! `POST /v1/executions/{complete,fail,snooze,release}`: a worker ends what it holds.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::auth::Access;
use super::body;
use super::openapi;
use super::problem::Problem;
use crate::engine::{Completion, Failure, Snooze};
use crate::model::{Execution, FinishVerdict, RawJson, Token};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(complete))
        .routes(routes!(fail))
        .routes(routes!(snooze))
        .routes(routes!(release))
}

/// Executions that went well.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CompleteRequest)]
struct CompleteBody {
    /// Who acquired them.
    worker: Uuid,
    /// 10,000 at most.
    #[schema(max_items = 10000)]
    executions: Vec<CompletionBody>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Completion)]
struct CompletionBody {
    job_id: Uuid,
    attempt: i32,
    #[schema(value_type = Uuid)]
    token: Token,
    /// Any JSON; 256 KiB at most.
    #[schema(value_type = Option<Value>)]
    result: Option<RawJson>,
}

/// Executions that went badly.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FailRequest)]
struct FailBody {
    /// Who acquired them.
    worker: Uuid,
    /// 10,000 at most.
    #[schema(max_items = 10000)]
    executions: Vec<FailureBody>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Failure)]
struct FailureBody {
    job_id: Uuid,
    attempt: i32,
    #[schema(value_type = Uuid)]
    token: Token,
    /// What went wrong, in words; cut to 16 KiB, without what no text can hold.
    #[serde(default, deserialize_with = "body::any_text")]
    error: Option<String>,
    /// When to run again; after the backoff when left out.
    #[serde(default, with = "time::serde::rfc3339::option")]
    retry_at: Option<OffsetDateTime>,
    /// Give the job up at once.
    discard: Option<bool>,
}

/// Executions to be put off.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SnoozeRequest)]
struct SnoozeBody {
    /// Who acquired them.
    worker: Uuid,
    /// 10,000 at most.
    #[schema(max_items = 10000)]
    executions: Vec<SnoozedBody>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Snooze)]
struct SnoozedBody {
    job_id: Uuid,
    attempt: i32,
    #[schema(value_type = Uuid)]
    token: Token,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    until: OffsetDateTime,
}

/// Executions to be given back unharmed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReleaseRequest)]
struct ReleaseBody {
    /// Who acquired them.
    worker: Uuid,
    /// 10,000 at most.
    #[schema(max_items = 10000)]
    executions: Vec<HeldBody>,
}

/// An execution that a worker holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HeldExecution)]
pub(super) struct HeldBody {
    job_id: Uuid,
    attempt: i32,
    #[schema(value_type = Uuid)]
    token: Token,
}

/// One verdict an execution, in the order of the question.
#[derive(Serialize, ToSchema)]
struct FinishAnswer {
    executions: Vec<FinishedBody>,
}

/// What became of one execution.
#[derive(Serialize, ToSchema)]
#[schema(as = FinishedExecution)]
struct FinishedBody {
    job_id: Uuid,
    attempt: i32,
    /// `repeated`: had ended the same way before. `stale`: no longer this worker's to end.
    /// `result_too_large`: nothing changed, send a smaller one.
    #[schema(schema_with = openapi::finish_verdict)]
    verdict: FinishVerdict,
}

/// Complete executions
///
/// Verdicts: completed, repeated, cancelled (the job was asked to stop), stale, result_too_large.
#[utoipa::path(
    post, operation_id = "complete_executions",
    path = "/v1/executions/complete", tag = "work", request_body = CompleteBody,
    responses(
        (status = 200, description = "A verdict each", body = FinishAnswer),
        (status = "4XX", description = "RL413, RL422", body = Problem),
    )
)]
async fn complete(
    State(app): State<App>,
    access: Access,
    body::Json(asked): body::Json<CompleteBody>,
) -> Result<Json<FinishAnswer>, Problem> {
    access.worker(&app.engine, asked.worker).await?;
    let named = asked.executions.iter().map(|entry| (entry.job_id, entry.attempt)).collect();
    let entry = |body: CompletionBody| -> Completion {
        let CompletionBody { job_id, attempt, token, result } = body;
        (Execution { job_id, attempt, token }, result)
    };
    let entries = asked.executions.into_iter().map(entry).collect();
    Ok(answer(named, app.engine.complete(asked.worker, entries).await?))
}

/// Fail executions
///
/// Verdicts: retrying, discarded, repeated, cancelled, stale.
#[utoipa::path(
    post, operation_id = "fail_executions",
    path = "/v1/executions/fail", tag = "work", request_body = FailBody,
    responses(
        (status = 200, description = "A verdict each", body = FinishAnswer),
        (status = "4XX", description = "RL413, RL422", body = Problem),
    )
)]
async fn fail(
    State(app): State<App>,
    access: Access,
    body::AnyJson(asked): body::AnyJson<FailBody>,
) -> Result<Json<FinishAnswer>, Problem> {
    access.worker(&app.engine, asked.worker).await?;
    let named = asked.executions.iter().map(|entry| (entry.job_id, entry.attempt)).collect();
    let entry = |body: FailureBody| {
        let FailureBody { job_id, attempt, token, error, retry_at, discard } = body;
        let execution = Execution { job_id, attempt, token };
        Failure { execution, error, retry_at, discard: discard.unwrap_or(false) }
    };
    let entries = asked.executions.into_iter().map(entry).collect();
    Ok(answer(named, app.engine.fail(asked.worker, entries).await?))
}

/// Put executions off to a later time
///
/// Does not count against `max_attempts`. Verdicts: snoozed, repeated, cancelled, stale.
#[utoipa::path(
    post, operation_id = "snooze_executions",
    path = "/v1/executions/snooze", tag = "work", request_body = SnoozeBody,
    responses(
        (status = 200, description = "A verdict each", body = FinishAnswer),
        (status = "4XX", description = "RL413, RL422", body = Problem),
    )
)]
async fn snooze(
    State(app): State<App>,
    access: Access,
    body::Json(asked): body::Json<SnoozeBody>,
) -> Result<Json<FinishAnswer>, Problem> {
    access.worker(&app.engine, asked.worker).await?;
    let named = asked.executions.iter().map(|entry| (entry.job_id, entry.attempt)).collect();
    let entry = |body: SnoozedBody| {
        let SnoozedBody { job_id, attempt, token, until } = body;
        Snooze { execution: Execution { job_id, attempt, token }, until }
    };
    let entries = asked.executions.into_iter().map(entry).collect();
    Ok(answer(named, app.engine.snooze(asked.worker, entries).await?))
}

/// Give executions back unharmed
///
/// Their jobs are ready at once. Verdicts: released, repeated, cancelled, stale.
#[utoipa::path(
    post, operation_id = "release_executions",
    path = "/v1/executions/release", tag = "work", request_body = ReleaseBody,
    responses(
        (status = 200, description = "A verdict each", body = FinishAnswer),
        (status = "4XX", description = "RL413, RL422", body = Problem),
    )
)]
async fn release(
    State(app): State<App>,
    access: Access,
    body::Json(asked): body::Json<ReleaseBody>,
) -> Result<Json<FinishAnswer>, Problem> {
    access.worker(&app.engine, asked.worker).await?;
    let entries = held(asked.executions);
    let named = entries.iter().map(|entry| (entry.job_id, entry.attempt)).collect();
    Ok(answer(named, app.engine.release(asked.worker, entries).await?))
}

/// The executions of bodies.
pub(super) fn held(bodies: Vec<HeldBody>) -> Vec<Execution> {
    let execution = |HeldBody { job_id, attempt, token }| Execution { job_id, attempt, token };
    bodies.into_iter().map(execution).collect()
}

fn answer(named: Vec<(Uuid, i32)>, verdicts: Vec<FinishVerdict>) -> Json<FinishAnswer> {
    let body = |((job_id, attempt), verdict)| FinishedBody { job_id, attempt, verdict };
    Json(FinishAnswer { executions: named.into_iter().zip(verdicts).map(body).collect() })
}
