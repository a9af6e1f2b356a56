//! Workflows: jobs enqueued, looked at, cancelled and retried as one.

mod enqueue;
mod list;
mod operate;
mod show;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enqueue::enqueue, list::list))
        .routes(routes!(show::show))
        .routes(routes!(operate::cancel))
        .routes(routes!(operate::retry))
}
