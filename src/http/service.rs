//! The service itself: `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::auth::Access;
use super::problem::Problem;
use super::{metrics, scrape};
use crate::engine::Mode;

/// The routes, but for the description of them all.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(render_metrics))
}

/// Whether the process lives.
#[derive(Serialize, ToSchema)]
struct Health {
    #[schema(value_type = String, example = "ok")]
    status: &'static str,
}

/// Whether the service can do its work, and what keeps it from that.
#[derive(Serialize, ToSchema)]
struct Readiness {
    ready: bool,
    /// `ok` or `unavailable`.
    #[schema(value_type = String)]
    database: &'static str,
    /// `current`, `other` (run `rowlock migrate`) or `unknown`.
    #[schema(value_type = String)]
    schema: &'static str,
    /// How wake-ups come: `listen`, `poll` (a pooler keeps notifications back) or `connecting`.
    /// Jobs are found either way, so this never makes the service unready.
    #[schema(value_type = String)]
    listener: &'static str,
    /// A stop was asked for.
    stopping: bool,
}

/// Answer while the process lives
#[utoipa::path(
    get, operation_id = "healthz",
    path = "/healthz", tag = "service", security(()),
    responses((status = 200, description = "It lives", body = Health))
)]
async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Say whether the service can do its work
#[utoipa::path(
    get, operation_id = "readyz",
    path = "/readyz", tag = "service", security(()),
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready, and why", body = Readiness),
    )
)]
async fn readyz(State(app): State<App>) -> Response {
    let stopping = app.shutdown.is_stopping();
    let database = app.engine.ping().await.is_ok();
    let schema = if database { app.engine.schema_is_current().await.ok() } else { None };
    let ready = database && schema == Some(true) && !stopping;
    let readiness = Readiness {
        ready,
        database: if database { "ok" } else { "unavailable" },
        schema: match schema {
            Some(true) => "current",
            Some(false) => "other",
            None => "unknown",
        },
        listener: listener_word(app.engine.mode()),
        stopping,
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Give the figures of this process and of the queues to Prometheus
///
/// Wants a token for all queues where one is wanted: it names them.
#[utoipa::path(
    get, operation_id = "metrics",
    path = "/metrics", tag = "service",
    responses((status = 200, description = "Text exposition format", body = String, content_type = "text/plain"))
)]
async fn render_metrics(State(app): State<App>, access: Access) -> Result<Response, Problem> {
    access.all_queues()?;
    let queues = app.scrape.of_queues(&app.engine).await;
    scrape::set_gauges(&app.engine);
    let text = metrics::recorder().render() + &queues;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn listener_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Listen => "listen",
        Mode::Poll => "poll",
        Mode::Connecting => "connecting",
    }
}
