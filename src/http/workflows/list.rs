//! `GET /v1/workflows`: pages, newest first.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::header::LINK;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::engine::WorkflowSummary;
use crate::http::app::App;
use crate::http::auth::Access;
use crate::http::body::Params;
use crate::http::problem::Problem;
use crate::http::{cursor, openapi};
use crate::model::WorkflowState;

const DEFAULT_LIMIT: u16 = 20;

/// Each reads all its jobs, 10,000 perhaps.
const MOST_LIMIT: u16 = 100;

/// How many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// How many at most: 1 to 100, 20 when left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u16>,
}

/// A page of workflows.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkflowPage)]
pub(super) struct PageBody {
    /// By id from the highest, which is the newest first.
    workflows: Vec<SummaryBody>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// A workflow as its jobs say.
#[derive(Serialize, ToSchema)]
#[schema(as = WorkflowSummary)]
pub(super) struct SummaryBody {
    id: Uuid,
    name: Option<String>,
    /// `running` while a job has not ended; then `failed` if one was discarded or fell with one that
    /// was, `cancelled` if one was cancelled, else `completed`.
    #[schema(schema_with = openapi::workflow_state)]
    state: WorkflowState,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When the last of its jobs ended; null while one has not.
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    /// How many jobs it was enqueued with.
    jobs: i32,
    /// How many of them have ended, however they did.
    done: i32,
    /// How many, by state; a state without jobs is left out.
    counts: BTreeMap<&'static str, i32>,
    /// How many of the blocked ones are held until a person acts.
    held: i32,
    /// How many have ended and were pruned.
    pruned: i32,
}

/// List workflows
#[utoipa::path(
    get, operation_id = "list_workflows",
    path = "/v1/workflows", tag = "workflows", params(ListParams),
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
    // A cursor of another listing is refused.
    let mark = "workflows";
    let before = params.cursor.as_deref().map(|text| cursor::read(text, mark)).transpose()?;
    let page = app.engine.workflows(before, i64::from(limit)).await?;
    let next_cursor = page.next.map(|last| cursor::write(last, mark));
    let link = next_cursor
        .as_ref()
        .map(|next| [(LINK, format!("</v1/workflows?limit={limit}&cursor={next}>; rel=\"next\""))]);
    let ids: Vec<Uuid> = page.workflows.iter().map(|workflow| workflow.id).collect();
    let seen = access.workflows(&app.engine, &ids).await?;
    let workflows = page.workflows.into_iter().filter(|workflow| seen.contains(&workflow.id));
    let workflows = workflows.map(SummaryBody::from).collect();
    Ok((link, Json(PageBody { workflows, next_cursor })).into_response())
}

impl From<WorkflowSummary> for SummaryBody {
    fn from(workflow: WorkflowSummary) -> Self {
        let counts = workflow.counts.into_iter().filter(|(_, jobs)| 0 < *jobs);
        SummaryBody {
            id: workflow.id,
            name: workflow.name,
            state: workflow.state,
            created_at: workflow.created_at,
            finished_at: workflow.finished_at,
            jobs: workflow.jobs,
            done: workflow.done,
            counts: counts.map(|(state, jobs)| (state.as_str(), jobs)).collect(),
            held: workflow.held,
            pruned: workflow.pruned,
        }
    }
}
