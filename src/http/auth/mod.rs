//! Who may ask: where a token is wanted, every route but the open ones wants one.
//!
//! Open are the probes and `/openapi.json`, which say nothing that is not in this repository.
//! `/metrics` names queues, so it wants a token; Prometheus sends it by `authorization`.
//!
//! The token of the settings allows everything. Those of the database (`tokens`) allow actions, of
//! which each route is one (`rules`), in queues, which the handlers ask for (`access`).
//!
//! Token or none, a web page of another site may not make a browser change anything: on loopback
//! the service is often without a token, and some routes want no body that a browser would ask for.

mod access;
mod failures;
mod rules;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::{Kind, Problem};
use crate::config::{HttpSettings, Secret};
use crate::engine::Engine;

pub(super) use access::Access;
use tokens::Tokens;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

const OPEN: &[&str] = &["/healthz", "/readyz", "/openapi.json"];

/// The same for every token that is not good, whatever is wrong with it.
const WRONG: &str = "the token is not one that this service takes";

/// Lets a request pass, or not.
#[derive(Clone)]
pub(super) struct Guard {
    /// Of the token that allows everything.
    digest: Option<[u8; 32]>,
    /// The tokens of the database, where any is wanted.
    tokens: Option<Arc<Tokens>>,
}

impl Guard {
    /// A guard that wants what these settings say; without a token in them everybody passes.
    pub(super) fn new(engine: &Engine, settings: &HttpSettings) -> Self {
        let wanted = settings.tokens || settings.token.is_some();
        let tokens = wanted.then(|| Arc::new(Tokens::new(engine.clone())));
        Guard { tokens, ..Guard::of(settings.token.as_ref()) }
    }

    /// A guard that knows no more than this token.
    pub(super) fn of(token: Option<&Secret>) -> Self {
        let digest = token.map(|token| digest(token.expose().trim().as_bytes()));
        Guard { digest, tokens: None }
    }

    async fn admit(&self, request: &Parts) -> Result<Access, Problem> {
        let is_open = self.digest.is_none() && self.tokens.is_none();
        if is_open || OPEN.contains(&request.uri.path()) {
            return Ok(Access::everything());
        }
        let headers = &request.headers;
        let Some(token) = bearer(headers) else {
            return Err(unauthorized(match headers.contains_key(AUTHORIZATION) {
                true => WRONG,
                false => "this service wants a token",
            }));
        };
        // Digests, so that neither the length nor the place of the first difference shows.
        let is_it = |known: &[u8; 32]| bool::from(digest(token).as_slice().ct_eq(known));
        if self.digest.as_ref().is_some_and(is_it) {
            return Ok(Access::everything());
        }
        let Some(tokens) = &self.tokens else { return Err(unauthorized(WRONG)) };
        let peer = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|it| it.0.ip());
        let found = tokens.find(token, peer).await?;
        let scope = found.ok_or_else(|| unauthorized(WRONG))?;
        if let Some(route) = request.extensions.get::<MatchedPath>() {
            rules::check(&scope, &request.method, route.as_str())?;
        }
        Ok(Access::of(scope))
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(Kind::Unauthorized, detail)
        .hint("Send `Authorization: Bearer` and a token: of `rowlock token`, or of ROWLOCK_TOKEN.")
}

/// The middleware.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match guard.admit(&parts).await {
        Ok(access) => {
            parts.extensions.insert(access);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
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

    async fn admits_by(guard: Guard, values: &[&str], path: &str) -> bool {
        let mut request = axum::http::Request::builder().uri(path);
        for value in values {
            request = request.header(AUTHORIZATION, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        guard.admit(&parts).await.is_ok()
    }

    async fn admits(values: &[&str], path: &str) -> bool {
        let secret: Secret = "s3cret".parse().unwrap();
        admits_by(Guard::of(Some(&secret)), values, path).await
    }

    #[tokio::test]
    async fn only_the_very_token_passes() {
        assert!(admits(&["Bearer s3cret"], "/v1/jobs").await);
        assert!(admits(&["bearer  s3cret "], "/v1/jobs").await);
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
            assert!(!admits(values, "/v1/jobs").await, "{values:?}");
            assert!(!admits(values, "/metrics").await);
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

    #[tokio::test]
    async fn probes_and_the_description_are_open() {
        for path in OPEN {
            assert!(admits(&[], path).await);
        }
        assert!(!admits(&[], "/healthz/").await);
        assert!(!admits(&[], "/nowhere").await);
        let from_a_file: Secret = "s3cret\n".parse().unwrap();
        assert!(admits_by(Guard::of(Some(&from_a_file)), &["Bearer s3cret"], "/v1/jobs").await);
        assert!(admits_by(Guard::of(None), &[], "/v1/jobs").await);
    }
}
