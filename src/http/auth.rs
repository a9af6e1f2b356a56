//! Who may ask: with a token configured, every route but the open ones wants it.
//!
//! Open are the probes and `/openapi.json`, which say nothing that is not in this repository.
//! `/metrics` names queues, so it wants the token; Prometheus sends it by `authorization`.
//!
//! Token or none, a web page of another site may not make a browser change anything: on loopback
//! the service is often without a token, and some routes want no body that a browser would ask for.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Kind, Problem};
use crate::config::Secret;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const OPEN: &[&str] = &["/healthz", "/readyz", "/openapi.json"];

/// Lets a request pass, or not.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    digest: Option<[u8; 32]>,
}

impl Guard {
    /// A guard for this token; without one, everybody passes.
    pub(super) fn new(token: Option<&Secret>) -> Self {
        Guard { digest: token.map(|token| digest(token.expose().as_bytes())) }
    }

    fn admits(&self, path: &str, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.digest else { return true };
        // Digests, so that neither the length nor the place of the first difference shows.
        let carries = |token: &[u8]| bool::from(digest(token).as_slice().ct_eq(expected));
        OPEN.contains(&path) || bearer(headers).is_some_and(carries)
    }
}

/// The middleware.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if guard.admits(request.uri().path(), request.headers()) {
        return next.run(request).await;
    }
    let detail = match request.headers().contains_key(AUTHORIZATION) {
        true => "the token is not the one this service wants",
        false => "this service wants a token",
    };
    Problem::new(Kind::Unauthorized, detail)
        .hint("Send `Authorization: Bearer` and the token of ROWLOCK_TOKEN.")
        .into_response()
}

/// The middleware against other sites' pages.
pub(super) async fn same_site(request: Request, next: Next) -> Response {
    if request.method().is_safe() || !is_cross_site(request.headers()) {
        return next.run(request).await;
    }
    Problem::new(Kind::CrossSite, "a web page of another site asked for this")
        .hint("Programs send neither Origin nor Sec-Fetch-Site.")
        .into_response()
}

/// What a browser says of who asks; programs say nothing.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text(SEC_FETCH_SITE), text(ORIGIN)) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != text(HOST),
        (None, None) => false,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(values: &[&str], path: &str) -> bool {
        let secret: Secret = "s3cret".parse().unwrap();
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        Guard::new(Some(&secret)).admits(path, &headers)
    }

    #[test]
    fn only_the_very_token_passes() {
        assert!(admits(&["Bearer s3cret"], "/v1/jobs"));
        assert!(admits(&["bearer  s3cret "], "/v1/jobs"));
        for values in [
            &[][..],
            &["s3cret"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer s3cre"],
            &["Bearer s3cret2"],
            &["Basic s3cret"],
            &["Bearer s3cret", "Bearer s3cret"],
        ] {
            assert!(!admits(values, "/v1/jobs"), "{values:?}");
            assert!(!admits(values, "/metrics"));
        }
    }

    #[test]
    fn only_other_sites_pages_are_turned_away() {
        let cross = |pairs: &[(&'static str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                (HeaderName::from_static(name), value.parse().expect("a value"))
            });
            is_cross_site(&pairs.collect())
        };
        assert!(!cross(&[("host", "localhost:7878")]));
        assert!(!cross(&[("host", "localhost:7878"), ("origin", "http://localhost:7878")]));
        assert!(!cross(&[("sec-fetch-site", "same-origin"), ("origin", "http://x")]));
        assert!(cross(&[("host", "localhost:7878"), ("origin", "https://evil.example")]));
        assert!(cross(&[("host", "localhost:7878"), ("origin", "null")]));
        assert!(cross(&[("sec-fetch-site", "cross-site")]));
        assert!(cross(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn probes_and_the_description_are_open() {
        for path in OPEN {
            assert!(admits(&[], path));
        }
        assert!(!admits(&[], "/healthz/"));
        assert!(!admits(&[], "/nowhere"));
        assert!(Guard::new(None).admits("/v1/jobs", &HeaderMap::new()));
    }
}
