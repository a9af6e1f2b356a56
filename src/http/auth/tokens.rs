//! The tokens of the database, as the guard asks for them.
//!
//! A good one is remembered for some seconds, in which a revocation is not heard of.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;
use tracing::{Span, warn};

use super::failures::Failures;
use crate::engine::{Engine, LiveToken};
use crate::http::problem::{Kind, Problem};
use crate::model::{ApiToken, Scope};

/// For how long a token is taken to be what it was.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// Tokens remembered at once.
const MOST_KNOWN: usize = 1_000;

/// Tokens, by the public part of them.
pub(super) struct Tokens {
    engine: Engine,
    known: Mutex<HashMap<String, Known>>,
    failures: Failures,
}

/// A live token as it was read.
#[derive(Clone)]
struct Known {
    digest: Vec<u8>,
    scope: Arc<Scope>,
    until: Instant,
}

impl Tokens {
    pub(super) fn new(engine: Engine) -> Self {
        Tokens { engine, known: Mutex::default(), failures: Failures::default() }
    }

    /// What the token allows; `None` for one that is not good, for whatever reason. The public part
    /// of a good one goes to the log of the request.
    pub(super) async fn find(
        &self,
        text: &[u8],
        peer: Option<IpAddr>,
    ) -> Result<Option<Arc<Scope>>, Problem> {
        let Some(token) = str::from_utf8(text).ok().and_then(ApiToken::parse) else {
            return Ok(None);
        };
        let scope = self.scope_of(&token, peer).await?;
        if scope.is_some() {
            Span::current().record("token", token.id());
        }
        Ok(scope)
    }

    async fn scope_of(
        &self,
        token: &ApiToken,
        peer: Option<IpAddr>,
    ) -> Result<Option<Arc<Scope>>, Problem> {
        let known = self.known_as(token.id());
        if let Some(known) = known.as_ref().filter(|known| Instant::now() < known.until) {
            return Ok(known.scope_for(token));
        }
        // A look into the database is what a guess costs, so wrong ones are counted. Who was good a
        // moment ago is not to suffer for a neighbour's.
        let was_good = known.is_some_and(|known| known.scope_for(token).is_some());
        if !was_good && peer.is_some_and(|peer| self.failures.are_too_many(peer, Instant::now())) {
            return Err(Problem::new(Kind::TooManyFailures, "too many wrong tokens from there")
                .hint("Mend the token; then wait some seconds."));
        }
        let scope = self.look_up(token).await?;
        if let (None, Some(peer)) = (&scope, peer) {
            self.failures.count(peer, Instant::now());
        }
        Ok(scope)
    }

    /// What the database says that a token allows, which is remembered.
    async fn look_up(&self, token: &ApiToken) -> Result<Option<Arc<Scope>>, Problem> {
        let Some(live) = self.engine.live_token(token.id()).await? else {
            self.lock().remove(token.id());
            return Ok(None);
        };
        let untouched = live.untouched;
        let known = Known::from(live);
        let Some(scope) = known.scope_for(token) else { return Ok(None) };
        self.remember(token.id(), known);
        if untouched && let Err(error) = self.engine.touch_token(token.id()).await {
            warn!("a token's use could not be noted: {}", error.chain());
        }
        Ok(Some(scope))
    }

    /// A token as it was read last, perhaps some time ago.
    fn known_as(&self, id: &str) -> Option<Known> {
        self.lock().get(id).cloned()
    }

    fn remember(&self, id: &str, token: Known) {
        let mut known = self.lock();
        if MOST_KNOWN <= known.len() {
            let now = Instant::now();
            known.retain(|_, known| now < known.until);
        }
        if known.len() < MOST_KNOWN {
            known.insert(id.to_owned(), token);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What it allows, if it is the very token.
    fn scope_for(&self, token: &ApiToken) -> Option<Arc<Scope>> {
        let is_it = bool::from(token.digest().as_slice().ct_eq(&self.digest));
        is_it.then(|| self.scope.clone())
    }
}

impl From<LiveToken> for Known {
    fn from(LiveToken { digest, scope, .. }: LiveToken) -> Self {
        Known { digest, scope: Arc::new(scope), until: Instant::now() + KEPT_FOR }
    }
}
