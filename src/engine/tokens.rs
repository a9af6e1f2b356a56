//! Tokens of the HTTP API, and whose things are.

use std::time::Duration;

use uuid::Uuid;

use super::{Engine, Error};
use crate::model::{ApiToken, Scope};
use crate::store::inspect;
use crate::store::tokens::{self, KeptToken, LiveToken};

impl Engine {
    /// Makes a token, and keeps its digest; the answer is all that there will ever be of it.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] when the name, the actions, the queues or the time are not valid.
    pub async fn create_token(
        &self,
        name: &str,
        scope: &Scope,
        expires_in: Option<Duration>,
    ) -> Result<ApiToken, Error> {
        let token = ApiToken::generate();
        let connection = self.connection().await?;
        tokens::create_token(&connection, &token, name, scope, expires_in).await?;
        Ok(token)
    }

    /// Makes a token in the place of a live one, which goes on until the overlap has passed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `RL404` when there is no live token with this id.
    pub async fn rotate_token(
        &self,
        id: &str,
        overlap: Duration,
        expires_in: Option<Duration>,
    ) -> Result<ApiToken, Error> {
        let token = ApiToken::generate();
        let connection = self.connection().await?;
        tokens::rotate_token(&connection, id, &token, overlap, expires_in).await?;
        Ok(token)
    }

    /// Ends a token. False if it was revoked before.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `RL404` when there is no token with this id.
    pub async fn revoke_token(&self, id: &str) -> Result<bool, Error> {
        tokens::revoke_token(&*self.connection().await?, id).await
    }

    /// All tokens, the newest first, 1,000 at most.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn tokens(&self) -> Result<Vec<KeptToken>, Error> {
        tokens::tokens(&*self.connection().await?).await
    }

    /// The live token with this id, if there is one.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn live_token(&self, id: &str) -> Result<Option<LiveToken>, Error> {
        tokens::live_token(&*self.connection().await?, id).await
    }

    /// Notes that a token is in use.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn touch_token(&self, id: &str) -> Result<(), Error> {
        tokens::touch_token(&*self.connection().await?, id).await
    }

    /// The queues of those of these jobs that exist.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn queues_of_jobs(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, Error> {
        inspect::queues_of_jobs(&*self.connection().await?, ids).await
    }

    /// The queues of the jobs of these workflows, each once.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn queues_of_workflows(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, String)>, Error> {
        inspect::queues_of_workflows(&*self.connection().await?, ids).await
    }

    /// The queues that a worker asked for; none for one that is not known.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn queues_of_worker(&self, id: Uuid) -> Result<Vec<String>, Error> {
        inspect::queues_of_worker(&*self.connection().await?, id).await
    }
}
