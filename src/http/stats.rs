//! `GET /v1/stats`: latencies and outcomes of the last hour, and the longest waits of now.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::Access;
use super::problem::Problem;
use crate::engine::{LatencyFigures, OutcomeFigures, Stats, WaitFigures};

/// The route.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stats))
}

/// Figures of the last hour, from the newest 10,000 executions, and the longest waits of now.
#[derive(Serialize, ToSchema)]
#[schema(as = Stats)]
struct StatsBody {
    /// From ready to acquired; a null queue stands for all of them.
    acquire_latency: Vec<LatencyBody>,
    /// How executions ended, by queue.
    outcomes: Vec<OutcomeBody>,
    /// How long the first ready job waits, by queue and priority.
    longest_waits: Vec<WaitBody>,
}

/// How long jobs of a queue waited to be acquired.
#[derive(Serialize, ToSchema)]
#[schema(as = AcquireLatency)]
struct LatencyBody {
    queue: Option<String>,
    executions: i64,
    average_seconds: Option<f64>,
    p95_seconds: Option<f64>,
    p99_seconds: Option<f64>,
}

/// How often executions of a queue ended so.
#[derive(Serialize, ToSchema)]
#[schema(as = OutcomeShare)]
struct OutcomeBody {
    queue: String,
    /// completed, failed, snoozed, released, cancelled, lost or timed_out.
    outcome: String,
    executions: i64,
    /// Of the queue's executions, 0 to 1.
    share: f64,
    average_seconds: Option<f64>,
}

/// How long the first ready job of a queue and priority has waited.
#[derive(Serialize, ToSchema)]
#[schema(as = LongestWait)]
struct WaitBody {
    queue: String,
    priority: i32,
    seconds: f64,
    paused: bool,
}

/// Show latencies and outcomes of the last hour, and the longest waits
#[utoipa::path(
    get, operation_id = "show_stats",
    path = "/v1/stats", tag = "operate",
    responses((status = 200, description = "The figures", body = StatsBody))
)]
async fn stats(State(app): State<App>, access: Access) -> Result<Json<StatsBody>, Problem> {
    let Stats { mut latencies, mut outcomes, mut waits } = app.engine.stats().await?;
    // The line of all queues tells of those that are not the caller's.
    let sees = |queue: &Option<String>| {
        queue.as_ref().map_or(access.is_everything(), |queue| access.sees(queue))
    };
    latencies.retain(|line| sees(&line.queue));
    outcomes.retain(|line| access.sees(&line.queue));
    waits.retain(|line| access.sees(&line.queue));
    Ok(Json(StatsBody {
        acquire_latency: latencies.into_iter().map(LatencyBody::from).collect(),
        outcomes: outcomes.into_iter().map(OutcomeBody::from).collect(),
        longest_waits: waits.into_iter().map(WaitBody::from).collect(),
    }))
}

impl From<LatencyFigures> for LatencyBody {
    fn from(figures: LatencyFigures) -> Self {
        LatencyBody {
            queue: figures.queue,
            executions: figures.executions,
            average_seconds: figures.average_seconds,
            p95_seconds: figures.p95_seconds,
            p99_seconds: figures.p99_seconds,
        }
    }
}

impl From<OutcomeFigures> for OutcomeBody {
    fn from(figures: OutcomeFigures) -> Self {
        OutcomeBody {
            queue: figures.queue,
            outcome: figures.outcome,
            executions: figures.executions,
            share: figures.share,
            average_seconds: figures.average_seconds,
        }
    }
}

impl From<WaitFigures> for WaitBody {
    fn from(figures: WaitFigures) -> Self {
        WaitBody {
            queue: figures.queue,
            priority: figures.priority,
            seconds: figures.seconds,
            paused: figures.paused,
        }
    }
}
