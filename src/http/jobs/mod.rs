//! Jobs: enqueue them, look at them, cancel, retry and reprioritize them.

mod enqueue;
mod explain;
pub(super) mod inputs;
mod list;
mod operate;
mod show;
mod wire;

pub(super) use wire::{EnqueuedBody, JobBody, jobs_of, status_of};

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
        .routes(routes!(operate::reprioritize))
        .routes(routes!(explain::explain))
        .routes(routes!(inputs::inputs))
}
