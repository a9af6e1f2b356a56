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
use super::{
    acquire, executions, jobs, metrics, observe, queues, service, stats, workers, workflows,
};
use crate::config::HttpSettings;
use crate::engine::Engine;
use crate::shutdown::Shutdown;

/// The whole API over an engine. Long polls end when `shutdown` asks for a stop.
///
/// Installs the process's metrics recorder, and starts a task that `shutdown` ends; so it must be
/// called inside a runtime.
pub fn router(engine: Engine, settings: &HttpSettings, shutdown: Shutdown) -> Router {
    metrics::keep_up(&shutdown);
    let guard = Guard::new(&engine, settings);
    let app = App::new(engine, settings, shutdown);
    let (routes, api) = routes().split_for_parts();
    let described = openapi::describe_problems(api).to_json().expect("the description is JSON");
    let routes = routes
        .route(
            "/openapi.json",
            get(move || async { ([(CONTENT_TYPE, "application/json")], described) }),
        )
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app);
    surrounded(routes, guard)
}

/// What stands around every route.
fn surrounded(routes: Router, guard: Guard) -> Router {
    // The last is the outermost.
    routes
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
        .merge(workflows::routes())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    async fn boom() -> &'static str {
        panic!("s3cret")
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_and_no_more() {
        let routes = Router::new().route("/boom", get(boom)).route("/well", get(async || "well"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = surrounded(routes, Guard::of(None));
        tokio::spawn(async move { axum::serve(listener, app).await });
        // The connection survives too: the second request travels on it.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let requests = "GET /boom HTTP/1.1\r\nhost: x\r\n\r\n\
                        GET /well HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(SOON, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        let (first, second) =
            text.split_once("HTTP/1.1 200 OK").unwrap_or_else(|| panic!("{text}"));
        assert!(first.starts_with("HTTP/1.1 500 "), "{first}");
        for part in ["application/problem+json", r#""code":"internal""#, "x-request-id"] {
            assert!(first.contains(part), "{part}: {first}");
        }
        assert!(second.ends_with("well"), "{second}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
