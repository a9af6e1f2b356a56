//! Jobs: enqueue them, look at them, cancel, retry and reprioritize them.

mod enqueue;
mod explain;
pub(super) mod inputs;
mod list;
mod operate;
mod show;
mod wire;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;

/// The routes of jobs and workflows.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enqueue::enqueue, list::list))
        .routes(routes!(show::show))
        .routes(routes!(operate::cancel))
        .routes(routes!(operate::retry))
        .routes(routes!(operate::reprioritize))
        .routes(routes!(explain::explain))
        .routes(routes!(inputs::inputs))
        .routes(routes!(enqueue::workflow))
}
