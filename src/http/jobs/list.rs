//! `GET /v1/jobs`: pages, newest first.

use axum::Json;
use axum::extract::State;
use axum::http::header::LINK;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::engine::{JobFilter, JobSummary};
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::Params;
use crate::http::problem::Problem;
use crate::http::{cursor, openapi};
use crate::model::JobState;

const DEFAULT_LIMIT: u16 = 50;
const MOST_LIMIT: u16 = 500;

/// Which jobs, and how many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Jobs in this state.
    #[param(schema_with = openapi::job_state)]
    state: Option<JobState>,
    /// Jobs of this queue.
    queue: Option<String>,
    /// Jobs of this kind.
    kind: Option<String>,
    /// `next_cursor` of the page before, with the same filters.
    cursor: Option<String>,
    /// How many at most: 1 to 500, 50 when left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
}

/// A page of jobs.
#[derive(Serialize, ToSchema)]
#[schema(as = JobPage)]
pub(super) struct PageBody {
    /// By id from the highest, which is the newest first. Fewer than the limit, even none, does not
    /// mean the end.
    jobs: Vec<SummaryBody>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// A job without its args.
#[derive(Serialize, ToSchema)]
#[schema(as = JobSummary)]
pub(super) struct SummaryBody {
    id: Uuid,
    #[schema(schema_with = openapi::job_state)]
    state: JobState,
    queue: String,
    kind: String,
    priority: i16,
    /// The number of its newest execution; 0 before the first.
    attempt: i32,
    /// What counts against `max_attempts`: failures, lost leases and time-outs.
    failures: i32,
    max_attempts: i32,
    args_bytes: i32,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    run_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// Why it was cancelled, discarded or held.
    reason: Option<String>,
}

/// List jobs
///
/// Filters that few jobs pass may give short pages: follow `next_cursor` until it is null.
#[utoipa::path(
    get, operation_id = "list_jobs",
    path = "/v1/jobs", tag = "jobs", params(ListParams),
    responses(
        (status = 200, description = "A page; `Link: rel=next` where there is another", body = PageBody),
        (status = 422, description = "RL422", body = Problem),
    )
)]
pub(super) async fn list(
    State(app): State<App>,
    access: Access,
    Params(params): Params<ListParams>,
) -> Result<Response, Problem> {
    let limit = params.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MOST_LIMIT).contains(&limit) {
        return Err(Problem::invalid(format!("limit is not valid: {limit}"))
            .hint(format!("Use 1 to {MOST_LIMIT}.")));
    }
    let mark = params.mark();
    let before = params.cursor.as_deref().map(|text| cursor::read(text, &mark)).transpose()?;
    let ListParams { state, queue, kind, .. } = params;
    let queue = queue.or_else(|| access.only_queue().map(str::to_owned));
    if queue.as_ref().is_some_and(|queue| !access.sees(queue)) {
        return Ok(Json(PageBody { jobs: vec![], next_cursor: None }).into_response());
    }
    let page = app.engine.jobs(&JobFilter { state, queue, kind, before }, i64::from(limit)).await?;
    let next_cursor = page.next.map(|last| cursor::write(last, &mark));
    let link = next_cursor.as_ref().map(|next| {
        let separator = if mark.is_empty() { "" } else { "&" };
        [(LINK, format!("</v1/jobs?{mark}{separator}limit={limit}&cursor={next}>; rel=\"next\""))]
    });
    let jobs = page
        .jobs
        .into_iter()
        .filter(|job| access.sees(&job.queue))
        .map(SummaryBody::from)
        .collect();
    Ok((link, Json(PageBody { jobs, next_cursor })).into_response())
}

impl ListParams {
    /// The filters as a query string: what a cursor is bound to.
    fn mark(&self) -> String {
        let state = self.state.map(|state| ("state", state.as_str()));
        let queue = self.queue.as_deref().map(|queue| ("queue", queue));
        let kind = self.kind.as_deref().map(|kind| ("kind", kind));
        let pairs = [state, queue, kind].into_iter().flatten();
        pairs.map(|(key, value)| format!("{key}={}", encoded(value))).collect::<Vec<_>>().join("&")
    }
}

/// Percent-encoded for a query string.
fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

impl From<JobSummary> for SummaryBody {
    fn from(job: JobSummary) -> Self {
        SummaryBody {
            id: job.id,
            state: job.state,
            queue: job.queue,
            kind: job.kind,
            priority: job.priority,
            attempt: job.attempt,
            failures: job.failures,
            max_attempts: job.max_attempts,
            args_bytes: job.args_bytes,
            created_at: job.created_at,
            run_at: job.run_at,
            finished_at: job.finished_at,
            reason: job.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_bound_to_the_filters_and_not_to_the_limit() {
        let params = |queue: &str, limit| ListParams {
            state: Some(JobState::Ready),
            queue: Some(queue.to_owned()),
            kind: None,
            cursor: None,
            limit,
        };
        assert_eq!(params("a/b&c", Some(3)).mark(), "state=ready&queue=a/b%26c");
        assert_eq!(params("x", Some(3)).mark(), params("x", None).mark());
    }
}
