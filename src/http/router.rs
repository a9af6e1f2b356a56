//! The table of contents: which module answers what, and what stands around all of them.

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use axum::{Router, middleware};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use super::app::App;
use super::auth::{self, Guard};
use super::openapi::{self, ApiDoc};
use super::problem::{Kind, Problem};
use super::{acquire, executions, jobs, metrics, observe, queues, service, stats, workers};
use crate::config::HttpSettings;
use crate::engine::Engine;
use crate::shutdown::Shutdown;

/// The whole API over an engine. Long polls end when `shutdown` asks for a stop.
///
/// Installs the process's metrics recorder, and starts a task that `shutdown` ends; so it must be
/// called inside a runtime.
pub fn router(engine: Engine, settings: &HttpSettings, shutdown: Shutdown) -> Router {
    metrics::keep_up(&shutdown);
    let guard = Guard::new(settings.token.as_ref());
    let app = App::new(engine, settings, shutdown);
    let (routes, api) = routes().split_for_parts();
    let described = openapi::describe_problems(api).to_json().expect("the description is JSON");
    routes
        .route(
            "/openapi.json",
            get(move || async { ([(CONTENT_TYPE, "application/json")], described) }),
        )
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
        // The last is the outermost.
        .layer(middleware::from_fn_with_state(guard, auth::check))
        .layer(middleware::from_fn(auth::same_site))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::record))
}

/// The description of the API, as `/openapi.json` gives it.
#[must_use]
pub fn description() -> utoipa::openapi::OpenApi {
    openapi::describe_problems(routes().into_openapi())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(ApiDoc::openapi())
        .merge(jobs::routes())
        .merge(acquire::routes())
        .merge(executions::routes())
        .merge(workers::routes())
        .merge(queues::routes())
        .merge(stats::routes())
        .merge(service::routes())
}

async fn no_route(request: Request) -> Problem {
    Problem::new(Kind::NoRoute, format!("there is no route {}", request.uri().path()))
        .hint("/openapi.json lists the routes.")
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("{} is not for {}", request.method(), request.uri().path());
    Problem::new(Kind::WrongMethod, detail).hint("The Allow header lists the methods.")
}
