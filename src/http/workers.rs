//! `POST /v1/workers/{id}/heartbeat` and `GET /v1/workers`.

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
use super::body::{self, Path};
use super::executions::{HeldBody, held};
use super::interval::Interval;
use super::openapi;
use super::problem::Problem;
use crate::engine::WorkerFigures;
use crate::model::HeartbeatVerdict;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(heartbeat)).routes(routes!(list))
}

/// What a worker holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HeartbeatRequest)]
struct HeartbeatBody {
    /// 10,000 at most; may be empty.
    executions: Vec<HeldBody>,
    /// How long the worker may be silent from now on: 1 second to 24 hours.
    lease: Option<Interval>,
    /// The highest number n such that the worker's acquires 1 to n have all been answered or given
    /// up: what they granted and `executions` does not list is given back. Read both together.
    seen_call: Option<i64>,
}

/// One verdict an execution, in the order of the question.
#[derive(Serialize, ToSchema)]
struct HeartbeatAnswer {
    executions: Vec<BeatenBody>,
}

/// What a worker is to do with one execution.
#[derive(Serialize, ToSchema)]
#[schema(as = BeatenExecution)]
struct BeatenBody {
    job_id: Uuid,
    attempt: i32,
    /// `held`: go on. `cancel`: stop, then finish it in any way. `lost`: stop, and do not.
    #[schema(schema_with = openapi::heartbeat_verdict)]
    verdict: HeartbeatVerdict,
}

/// The workers, those last seen first; 1,000 at most.
#[derive(Serialize, ToSchema)]
#[schema(as = Workers)]
struct WorkersBody {
    workers: Vec<WorkerBody>,
}

/// A worker, its load and its health.
#[derive(Serialize, ToSchema)]
#[schema(as = Worker)]
struct WorkerBody {
    id: Uuid,
    name: Option<String>,
    /// live, or lost once its executions were taken back.
    status: String,
    /// healthy, failing or lost.
    health: String,
    /// Null means all.
    kinds: Option<Vec<String>>,
    /// The queues that it asked for, the newest hundred, the newest first.
    queues: Vec<String>,
    capacity: Option<i32>,
    /// How many jobs it runs at this moment.
    load: i64,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    heartbeat_at: OffsetDateTime,
    heartbeat_age_seconds: f64,
    #[serde(with = "time::serde::rfc3339")]
    lease_ends_at: OffsetDateTime,
    /// Of the last hour, as far as sampled.
    recent_executions: Option<i64>,
    /// 0 to 1.
    recent_success_share: Option<f64>,
}

/// Extend a worker's lease over all that it holds
#[utoipa::path(
    post, operation_id = "heartbeat",
    path = "/v1/workers/{id}/heartbeat", tag = "work", request_body = HeartbeatBody,
    params(("id" = Uuid, Path, description = "The worker")),
    responses(
        (status = 200, description = "A verdict each", body = HeartbeatAnswer),
        (status = "4XX", description = "RL413, RL422", body = Problem),
    )
)]
async fn heartbeat(
    State(app): State<App>,
    access: Access,
    Path(worker): Path<Uuid>,
    body::Json(asked): body::Json<HeartbeatBody>,
) -> Result<Json<HeartbeatAnswer>, Problem> {
    access.worker(&app.engine, worker).await?;
    let lease = asked.lease.map_or(app.engine.settings().lease, |lease| lease.0);
    let entries = held(asked.executions);
    let verdicts = app.engine.heartbeat(worker, entries.clone(), lease, asked.seen_call).await?;
    let executions = entries.into_iter().zip(verdicts).map(|(entry, verdict)| BeatenBody {
        job_id: entry.job_id,
        attempt: entry.attempt,
        verdict,
    });
    Ok(Json(HeartbeatAnswer { executions: executions.collect() }))
}

/// List the workers with their load and health
#[utoipa::path(
    get, operation_id = "list_workers",
    path = "/v1/workers", tag = "operate",
    responses((status = 200, description = "The workers", body = WorkersBody))
)]
async fn list(State(app): State<App>, access: Access) -> Result<Json<WorkersBody>, Problem> {
    let mut workers = app.engine.workers().await?;
    if !access.is_everything() {
        for worker in &mut workers {
            worker.queues.retain(|queue| access.sees(queue));
        }
        workers.retain(|worker| !worker.queues.is_empty());
    }
    Ok(Json(WorkersBody { workers: workers.into_iter().map(WorkerBody::from).collect() }))
}

impl From<WorkerFigures> for WorkerBody {
    fn from(worker: WorkerFigures) -> Self {
        WorkerBody {
            id: worker.id,
            name: worker.name,
            status: worker.status,
            health: worker.health,
            kinds: worker.kinds,
            queues: worker.queues,
            capacity: worker.capacity,
            load: worker.load,
            started_at: worker.started_at,
            heartbeat_at: worker.heartbeat_at,
            heartbeat_age_seconds: worker.heartbeat_age_seconds,
            lease_ends_at: worker.lease_ends_at,
            recent_executions: worker.recent_executions,
            recent_success_share: worker.recent_success_share,
        }
    }
}
