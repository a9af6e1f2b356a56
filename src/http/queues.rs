//! `GET /v1/queues`, `POST /v1/queues/{name}/pause` and `/resume`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::Access;
use super::body::Path;
use super::interval::Interval;
use super::openapi;
use super::problem::Problem;
use crate::engine::{Depth, QueueFigures};
use crate::model::JobState;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(pause)).routes(routes!(resume))
}

/// The queues that have settings, or in which something waits or runs; 1,000 at most.
#[derive(Serialize, ToSchema)]
#[schema(as = Queues)]
struct QueuesBody {
    queues: Vec<QueueBody>,
}

/// A queue and what is in it.
#[derive(Serialize, ToSchema)]
#[schema(as = Queue)]
struct QueueBody {
    name: String,
    paused: bool,
    #[serde(with = "time::serde::rfc3339::option")]
    paused_at: Option<OffsetDateTime>,
    /// Waiting this long makes a job one priority more urgent; null where aging is off.
    aging_interval: Option<Interval>,
    /// The share of what is acquired that age may claim.
    aging_share: f32,
    /// How many jobs, by state; a state without jobs is left out.
    jobs: BTreeMap<&'static str, i64>,
    /// By state and priority.
    depths: Vec<DepthBody>,
}

/// The jobs of one queue in one state with one priority.
#[derive(Serialize, ToSchema)]
#[schema(as = Depth)]
struct DepthBody {
    /// `ready`, `scheduled`, `blocked` or `running`.
    #[schema(schema_with = openapi::job_state)]
    state: JobState,
    priority: i32,
    jobs: i64,
    /// Since the oldest became ready or was started; below zero until the next is due.
    oldest_seconds: Option<f64>,
}

/// What became of a pause or a resume.
#[derive(Serialize, ToSchema)]
struct PauseAnswer {
    queue: String,
    paused: bool,
    /// False if it was so before.
    changed: bool,
}

/// List the queues with their depths
#[utoipa::path(
    get, operation_id = "list_queues",
    path = "/v1/queues", tag = "operate",
    responses((status = 200, description = "The queues, by name", body = QueuesBody))
)]
async fn list(State(app): State<App>, access: Access) -> Result<Json<QueuesBody>, Problem> {
    let queues = app.engine.queues().await?;
    let queues = queues.into_iter().filter(|queue| access.sees(&queue.name));
    Ok(Json(QueuesBody { queues: queues.map(QueueBody::from).collect() }))
}

/// Stop acquires from a queue; enqueues go on
#[utoipa::path(
    post, operation_id = "pause_queue",
    path = "/v1/queues/{name}/pause", tag = "operate",
    params((
        "name" = String, Path, description = "The queue, percent-encoded: a slash as %2F",
        pattern = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length = 128
    )),
    responses(
        (status = 200, description = "It is paused", body = PauseAnswer),
        (status = 422, description = "RL422", body = Problem),
    )
)]
async fn pause(
    State(app): State<App>,
    access: Access,
    Path(queue): Path<String>,
) -> Result<Json<PauseAnswer>, Problem> {
    access.queue(&queue)?;
    let changed = app.engine.pause_queue(&queue).await?;
    Ok(Json(PauseAnswer { queue, paused: true, changed }))
}

/// Let acquires from a queue go on
#[utoipa::path(
    post, operation_id = "resume_queue",
    path = "/v1/queues/{name}/resume", tag = "operate",
    params((
        "name" = String, Path, description = "The queue, percent-encoded: a slash as %2F",
        pattern = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length = 128
    )),
    responses(
        (status = 200, description = "It runs", body = PauseAnswer),
        (status = 422, description = "RL422", body = Problem),
    )
)]
async fn resume(
    State(app): State<App>,
    access: Access,
    Path(queue): Path<String>,
) -> Result<Json<PauseAnswer>, Problem> {
    access.queue(&queue)?;
    let changed = app.engine.resume_queue(&queue).await?;
    Ok(Json(PauseAnswer { queue, paused: false, changed }))
}

impl From<QueueFigures> for QueueBody {
    fn from(queue: QueueFigures) -> Self {
        let mut jobs = BTreeMap::new();
        for depth in &queue.depths {
            *jobs.entry(depth.state.as_str()).or_insert(0) += depth.jobs;
        }
        QueueBody {
            name: queue.name,
            paused: queue.paused_at.is_some(),
            paused_at: queue.paused_at,
            aging_interval: queue.aging_interval.map(Interval),
            aging_share: queue.aging_share,
            jobs,
            depths: queue.depths.into_iter().map(DepthBody::from).collect(),
        }
    }
}

impl From<Depth> for DepthBody {
    fn from(depth: Depth) -> Self {
        let Depth { state, priority, jobs, oldest_seconds } = depth;
        DepthBody { state, priority, jobs, oldest_seconds }
    }
}
