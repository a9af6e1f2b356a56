//! Everything that is not a success, as RFC 9457 `application/problem+json`.
//!
//! One table: [`Kind`] gives each problem of the API itself its status, code and title; a refusal
//! of the database brings its own by [`Code`]. What went wrong inside stays in the log.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::Error;
use crate::model::Code;
use crate::telemetry::Seldom;

static UNAVAILABLE: Seldom = Seldom::new();
static UNKNOWN: Seldom = Seldom::new();

/// Why a request did not succeed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:rowlock:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:rowlock:RL422")]
    kind: String,
    /// A few words, the same for every problem with this code.
    #[schema(value_type = String, example = "Not valid")]
    title: &'static str,
    /// The status of the answer.
    #[schema(example = 422)]
    status: u16,
    /// Stable, for programs: an `RL...` code of the SQL functions, or a word.
    #[schema(value_type = String, example = "RL422")]
    code: &'static str,
    /// What was wrong with this request.
    #[schema(example = "priority is not valid: 12")]
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Use 0 (runs first) to 9, or null to inherit one or get 5.")]
    hint: Option<String>,
}

/// The problems that no `RL...` code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Malformed,
    Unauthorized,
    Forbidden,
    TooManyFailures,
    NoRoute,
    WrongMethod,
    SlowBody,
    WrongMediaType,
    CrossSite,
    Internal,
    Unavailable,
    Overloaded,
    OutcomeUnknown,
}

impl Kind {
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Kind::Malformed => (StatusCode::BAD_REQUEST, "malformed", "Malformed request"),
            Kind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Token required"),
            Kind::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not for this token"),
            Kind::TooManyFailures => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_failures", "Too many wrong tokens")
            }
            Kind::NoRoute => (StatusCode::NOT_FOUND, "not_found", "No such route"),
            Kind::WrongMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Wrong method")
            }
            Kind::SlowBody => (StatusCode::REQUEST_TIMEOUT, "slow_body", "The body did not come"),
            Kind::WrongMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Wrong content type")
            }
            Kind::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "Asked by another site"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Kind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too much waits"),
            Kind::OutcomeUnknown => {
                (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "Outcome unknown")
            }
        }
    }
}

impl Problem {
    /// A problem of the API itself.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, code, title) = kind.row();
        Problem::with(status.as_u16(), code, title, detail.into())
    }

    /// A refusal by the rules of the queue.
    pub(super) fn refused(code: Code, detail: impl Into<String>) -> Self {
        Problem::with(code.http_status(), code.sqlstate(), code.title(), detail.into())
    }

    /// The request is well-formed, and its content is not acceptable.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Problem::refused(Code::Invalid, detail)
    }

    /// Something is wrong with the service; `reason` goes to the log only.
    pub(super) fn internal(reason: &str) -> Self {
        error!("a request failed: {reason}");
        Problem::new(Kind::Internal, "the request failed inside the service")
            .hint("Its x-request-id finds the reason in the service's log.")
    }

    fn unavailable(detail: &str, reason: &str) -> Self {
        if let Some(left_out) = UNAVAILABLE.pass() {
            warn!(left_out, "a request found no database: {reason}");
        }
        Problem::new(Kind::Unavailable, detail).hint("Try again in a moment.")
    }

    fn unknown(reason: &str) -> Self {
        if let Some(left_out) = UNKNOWN.pass() {
            warn!(left_out, "the outcome of a request is unknown: {reason}");
        }
        Problem::new(Kind::OutcomeUnknown, "the request was begun, and the database did not answer")
            .hint(
                "It may have been done. Finishing calls, heartbeats and cancels may be sent again, \
                 and so may jobs with ids or an Idempotency-Key; what an acquire took comes back.",
            )
    }

    /// Adds what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn with(status: u16, code: &'static str, title: &'static str, detail: String) -> Self {
        let kind = format!("urn:rowlock:{code}");
        Problem { kind, title, status, code, detail, hint: None }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let busy = |detail: &str| {
            Problem::refused(Code::Busy, detail).hint("Nothing changed; try again in a moment.")
        };
        match error {
            Error::Refused { code: Code::WrongIsolation, message, .. } => {
                Problem::internal(&message)
            }
            Error::Refused { code, message, detail, hint } => {
                let found = detail.filter(|found| !found.is_empty() && found != "null");
                let detail = found.map_or(message.clone(), |found| format!("{message}: {found}"));
                Problem { hint, ..Problem::refused(code, detail) }
            }
            Error::Locked(_) => busy("others hold what this call needs"),
            Error::Conflict(_) => busy("the call collided with others"),
            Error::Unavailable(_) => {
                Problem::unavailable("the database is not available", &error.chain())
            }
            Error::InDoubt(_) => Problem::unknown(&error.chain()),
            Error::PoolExhausted => {
                Problem::unavailable("all connections to the database are in use", "pool")
            }
            // Not logged: there would be thousands a second.
            Error::Overloaded => Problem::new(Kind::Overloaded, error.to_string())
                .hint("Nothing was begun; try again in a moment, and more slowly."),
            Error::Timeout(_) => {
                Problem::unavailable("the database took longer than it may", &error.chain())
            }
            Error::Url(_) | Error::Other(_) => Problem::internal(&error.chain()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("the tables hold statuses");
        let body = serde_json::to_string(&self).expect("strings and a number");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"rowlock\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// The answer for an id that no job has.
pub(super) fn no_such_job(id: Uuid) -> Problem {
    Problem::refused(Code::NotFound, format!("there is no job {id}"))
        .hint("Finished jobs are pruned when their retention has passed.")
}

/// The answer for an id that no workflow has.
pub(super) fn no_such_workflow(id: Uuid) -> Problem {
    Problem::refused(Code::NotFound, format!("there is no workflow {id}"))
        .hint("A workflow goes with the last of its jobs, when the retention of that has passed.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_the_members_of_the_rfc() {
        let problem = Problem::invalid("priority is not valid").hint("Use 0 to 9.");
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["type"], "urn:rowlock:RL422");
        assert_eq!(json["title"], "Not valid");
        assert_eq!(json["status"], 422);
        assert_eq!(json["code"], "RL422");
        assert_eq!(json["hint"], "Use 0 to 9.");
        assert_eq!(json.as_object().unwrap().len(), 6);
    }

    #[test]
    fn errors_of_the_engine_have_their_status_and_keep_what_is_inside() {
        let inside = || "s3cret at 10.0.0.1".into();
        for (error, status, code) in [
            (Error::Locked(inside()), 429, "RL429"),
            (Error::Conflict(inside()), 429, "RL429"),
            (Error::Unavailable(inside()), 503, "unavailable"),
            (Error::InDoubt(inside()), 504, "outcome_unknown"),
            (Error::PoolExhausted, 503, "unavailable"),
            (Error::Overloaded, 503, "overloaded"),
            (Error::Timeout(inside()), 503, "unavailable"),
            (Error::Other(inside()), 500, "internal"),
            (Error::Url("s3cret".to_owned()), 500, "internal"),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.status, problem.code), (status, code));
            assert!(!serde_json::to_string(&problem).unwrap().contains("s3cret"));
        }
    }

    #[test]
    fn what_may_be_tried_again_says_when() {
        for error in [Error::Overloaded, Error::PoolExhausted, Error::Locked("".into())] {
            let response = Problem::from(error).into_response();
            assert_eq!(response.headers()[RETRY_AFTER], "1", "{response:?}");
        }
    }

    #[test]
    fn the_page_lists_every_code_with_its_status() {
        let page = include_str!("../../docs/HTTP.md");
        let own = [
            Kind::Malformed,
            Kind::Unauthorized,
            Kind::Forbidden,
            Kind::TooManyFailures,
            Kind::NoRoute,
            Kind::WrongMethod,
            Kind::SlowBody,
            Kind::WrongMediaType,
            Kind::CrossSite,
            Kind::Internal,
            Kind::Unavailable,
            Kind::Overloaded,
            Kind::OutcomeUnknown,
        ];
        let own = own.map(|kind| (kind.row().1, kind.row().0.as_u16()));
        let refused = Code::ALL.iter().map(|code| (code.sqlstate(), code.http_status()));
        let expected: Vec<_> = own.into_iter().chain(refused).collect();
        for (code, status) in &expected {
            assert!(page.contains(&format!("\n| `{code}` | {status} |")), "{code} {status}");
        }
        let (_, table) = page.split_once("| code | status |").unwrap();
        let rows = table.lines().skip(2).take_while(|line| line.starts_with("| `")).count();
        assert_eq!(rows, expected.len());
    }

    #[test]
    fn a_refusal_brings_its_own_words() {
        for code in Code::ALL {
            let refused = Error::Refused {
                code: *code,
                message: "priority is not valid".to_owned(),
                detail: Some("12".to_owned()),
                hint: Some("Use 0 to 9.".to_owned()),
            };
            let problem = Problem::from(refused);
            assert_eq!(problem.status, code.http_status());
            if *code != Code::WrongIsolation {
                assert_eq!(problem.code, code.sqlstate());
                assert_eq!(problem.detail, "priority is not valid: 12");
                assert_eq!(problem.hint.as_deref(), Some("Use 0 to 9."));
            }
        }
    }

    #[test]
    fn the_answer_says_when_to_come_back() {
        let busy = Problem::refused(Code::Busy, "held").into_response();
        let away = Problem::new(Kind::Unavailable, "away").into_response();
        for (response, status) in [(busy, 429), (away, 503)] {
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[RETRY_AFTER], "1");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        }
        let invalid = Problem::invalid("x").into_response();
        assert!(!invalid.headers().contains_key(RETRY_AFTER));
    }
}
