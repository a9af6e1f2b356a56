//! Workflows: jobs enqueued, looked at, cancelled and retried as one.

mod enqueue;
mod list;
mod operate;
mod show;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::app::App;
use super::problem::Problem;
use crate::model::Code;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(enqueue::enqueue, list::list))
        .routes(routes!(show::show))
        .routes(routes!(operate::cancel))
        .routes(routes!(operate::retry))
}

/// The answer for an id that no workflow has.
pub(super) fn no_such_workflow(id: Uuid) -> Problem {
    Problem::refused(Code::NotFound, format!("there is no workflow {id}"))
        .hint("A workflow goes with the last of its jobs, when the retention of that has passed.")
}
