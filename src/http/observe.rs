//! What every request leaves behind: an id, a span, a line in the log and a time in a histogram.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, debug, field, info_span};

use super::problem::Problem;

/// Taken from the client when it is short and plain, else made here; always in the answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST_REQUEST_ID: usize = 64;

/// The middleware around everything.
pub(super) async fn record(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(request.headers());
    // The template and a known method: never what a client can make up, in labels least of all.
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str);
    let route = route.to_owned();
    let method = known_method(request.method());
    for (name, value) in request.headers_mut() {
        if name == AUTHORIZATION {
            value.set_sensitive(true);
        }
    }
    let span = info_span!(
        "http.request",
        method,
        route,
        request_id = id.to_str().unwrap_or(""),
        token = field::Empty,
        status = field::Empty
    );
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, took) = (response.status(), began.elapsed());
    span.record("status", status.as_u16());
    span.in_scope(|| debug!(duration_ms = took.as_secs_f64() * 1e3, "answered"));
    let labels =
        [("method", method.to_owned()), ("route", route), ("status", status.as_str().to_owned())];
    metrics::histogram!("rowlock_http_request_seconds", &labels).record(took.as_secs_f64());
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The answer when a handler panics; what it said goes to the log.
pub(super) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing");
    Problem::internal(&format!("a handler panicked: {said}")).into_response()
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=LONGEST_REQUEST_ID).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    headers.get(REQUEST_ID).filter(plain).cloned().unwrap_or_else(|| {
        let made = uuid::Uuid::new_v4().to_string();
        HeaderValue::from_str(&made).expect("a UUID is plain")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_said_stays_inside() {
        for said in [Box::new("s3cret") as Box<dyn std::any::Any + Send>, Box::new(7)] {
            let response = panicked(said);
            assert_eq!(response.status(), 500);
            assert!(!format!("{response:?}").contains("s3cret"));
        }
    }

    #[test]
    fn a_clients_request_id_is_kept_when_it_is_plain() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, value.parse().unwrap());
            request_id(&headers)
        };
        assert_eq!(id("abc-1"), "abc-1");
        for value in ["", "a b", &"x".repeat(65)] {
            assert_ne!(id(value), value);
            assert_eq!(id(value).len(), 36);
        }
    }
}
