//! The description of the API, made from the handlers' own types.

use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem::Problem;
use crate::model::{
    CancelVerdict, FinishVerdict, HeartbeatVerdict, JobState, OnParentFailure, ReprioritizeVerdict,
    RetryVerdict, WaitFor, WorkflowState,
};

/// Title, tags and what the routes share; the routes add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rowlock",
        description = "A Postgres-only job queue. Every error is `application/problem+json` with \
                       a stable `code`. With a token configured, every route but the probes and \
                       this page wants `Authorization: Bearer`. Times are RFC 3339, intervals \
                       strings such as `30 seconds` or `PT30S`; args and results come back digit \
                       for digit.",
    ),
    components(schemas(Problem)),
    modifiers(&Bearer, &NoLicence),
    security(("bearer" = [])),
    tags(
        (name = "jobs", description = "Enqueue, look at, cancel and retry jobs."),
        (name = "workflows", description = "Jobs enqueued, looked at, cancelled and retried as one."),
        (name = "work", description = "What a worker calls."),
        (name = "operate", description = "Queues, workers and figures."),
        (name = "service", description = "The service itself.")
    )
)]
pub(super) struct ApiDoc;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// Takes out the nameless licence that stands where the crate names none.
pub(super) struct NoLicence;

impl Modify for NoLicence {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        api.info.license = None;
    }
}

/// Says for every route what its refusals look like.
pub(super) fn describe_problems(mut api: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let problem = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(problem)).build();
    let response = ResponseBuilder::new()
        .description("Any other status: a problem with a stable code")
        .content("application/problem+json", content)
        .build();
    for item in api.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            for (_, refusal) in responses.iter_mut().filter(|(status, _)| status.starts_with('4')) {
                if let RefOr::T(refusal) = refusal
                    && let Some(content) = refusal.content.shift_remove("application/json")
                {
                    refusal.content.insert("application/problem+json".to_owned(), content);
                }
            }
            responses.insert("default".to_owned(), RefOr::T(response.clone()));
        }
    }
    api
}

fn words(words: impl IntoIterator<Item = &'static str>) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
}

/// What a queue may be called, as a regular expression.
pub(super) const QUEUE_NAME: &str = "^[A-Za-z0-9][A-Za-z0-9._:/-]*$";

/// The queues that an acquire takes from.
pub(super) fn queues() -> Schema {
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(QUEUE_NAME))
        .max_length(Some(128));
    ArrayBuilder::new().items(name).min_items(Some(1)).max_items(Some(100)).into()
}

/// The words of a job's state.
pub(super) fn job_state() -> Schema {
    words(JobState::ALL.iter().map(|state| state.as_str()))
}

/// The words of the policy on parent failure.
pub(super) fn on_parent_failure() -> Schema {
    words(OnParentFailure::ALL.iter().map(|policy| policy.as_str()))
}

/// The words of which parents a job waits for.
pub(super) fn wait_for() -> Schema {
    words(WaitFor::ALL.iter().map(|which| which.as_str()))
}

/// The words of a finishing verdict.
pub(super) fn finish_verdict() -> Schema {
    words(FinishVerdict::ALL.iter().map(|verdict| verdict.as_str()))
}

/// The words of a heartbeat's verdict.
pub(super) fn heartbeat_verdict() -> Schema {
    words(HeartbeatVerdict::ALL.iter().map(|verdict| verdict.as_str()))
}

/// The words of a cancel's verdict.
pub(super) fn cancel_verdict() -> Schema {
    words(CancelVerdict::ALL.iter().map(|verdict| verdict.as_str()))
}

/// The words of a reprioritize's verdict.
pub(super) fn reprioritize_verdict() -> Schema {
    words(ReprioritizeVerdict::ALL.iter().map(|verdict| verdict.as_str()))
}

/// The words of a retry's verdict.
pub(super) fn retry_verdict() -> Schema {
    words(RetryVerdict::ALL.iter().map(|verdict| verdict.as_str()))
}

/// The words of a workflow's state.
pub(super) fn workflow_state() -> Schema {
    words(WorkflowState::ALL.iter().map(|state| state.as_str()))
}
