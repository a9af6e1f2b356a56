//! Tokens of the HTTP API, by their digests.

use std::time::Duration;

use time::OffsetDateTime;

use super::values::{Interval, refuse_data};
use crate::db::{Connection, Error, Row};
use crate::model::{Action, ApiToken, Scope, UnknownWord, hex};

/// A token as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptToken {
    /// Its public part.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// `live`, `expired` or `revoked`.
    pub state: String,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// Until when it is good.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was last used, give or take a minute.
    pub last_used_at: Option<OffsetDateTime>,
}

/// What a live token is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveToken {
    /// The digest of the whole token.
    pub digest: Vec<u8>,
    /// What it allows.
    pub scope: Scope,
    /// Whether it is time to note that it is used.
    pub untouched: bool,
}

/// Keeps a token, which is shown to nobody here.
///
/// # Errors
///
/// [`Error::Refused`] when the name, the actions, the queues or the time are not valid.
pub async fn create_token(
    connection: &Connection,
    token: &ApiToken,
    name: &str,
    scope: &Scope,
    expires_in: Option<Duration>,
) -> Result<(), Error> {
    let actions: Vec<&str> = scope.actions.iter().map(|action| action.as_str()).collect();
    let (digest, expires_in) = (hex(&token.digest()), expires_in.map(Interval));
    let sql = "SELECT create_token($1, decode($2, 'hex'), $3, $4, $5, $6)";
    let row = connection
        .query_one(sql, &[&token.id(), &digest, &name, &actions, &scope.queues, &expires_in])
        .await;
    row.map(drop).map_err(refuse_data)
}

/// Puts a new token in the place of a live one, which goes on until the overlap has passed.
///
/// # Errors
///
/// [`Error::Refused`] with `RL404` when there is no live token with this id.
pub async fn rotate_token(
    connection: &Connection,
    id: &str,
    token: &ApiToken,
    overlap: Duration,
    expires_in: Option<Duration>,
) -> Result<(), Error> {
    let (digest, expires_in) = (hex(&token.digest()), expires_in.map(Interval));
    let sql = "SELECT rotate_token($1, $2, decode($3, 'hex'), $4, $5)";
    let row = connection
        .query_one(sql, &[&id, &token.id(), &digest, &Interval(overlap), &expires_in])
        .await;
    row.map(drop).map_err(refuse_data)
}

/// Ends a token. False if it was revoked before.
///
/// # Errors
///
/// [`Error::Refused`] with `RL404` when there is no token with this id.
pub async fn revoke_token(connection: &Connection, id: &str) -> Result<bool, Error> {
    let row = connection.query_one("SELECT revoke_token($1)", &[&id]).await;
    Ok(row.map_err(refuse_data)?.try_get(0)?)
}

/// Notes that a token is in use.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn touch_token(connection: &Connection, id: &str) -> Result<(), Error> {
    connection.query("SELECT touch_token($1)", &[&id]).await.map(drop)
}

/// The live token with this id, if there is one.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn live_token(connection: &Connection, id: &str) -> Result<Option<LiveToken>, Error> {
    let sql = "SELECT t.actions, t.queues, t.digest, \
               t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute' \
               FROM tokens t WHERE t.id = $1 AND t.revoked_at IS NULL \
               AND (t.expires_at IS NULL OR clock_timestamp() < t.expires_at)";
    let Some(row) = connection.query_opt(sql, &[&id]).await? else { return Ok(None) };
    let scope = scope(&row, 0)?;
    Ok(Some(LiveToken { scope, digest: row.try_get(2)?, untouched: row.try_get(3)? }))
}

/// All tokens, the newest first, 1,000 at most.
///
/// # Errors
///
/// By class; see [`Error`].
pub async fn tokens(connection: &Connection) -> Result<Vec<KeptToken>, Error> {
    let sql = "SELECT t.id, t.name, t.actions, t.queues, CASE \
               WHEN t.revoked_at IS NOT NULL THEN 'revoked' \
               WHEN t.expires_at <= clock_timestamp() THEN 'expired' ELSE 'live' END, \
               t.created_at, t.expires_at, t.last_used_at \
               FROM tokens t ORDER BY t.created_at DESC, t.id LIMIT 1000";
    let token = |row: &Row| {
        Ok(KeptToken {
            id: row.try_get(0)?,
            name: row.try_get(1)?,
            scope: scope(row, 2)?,
            state: row.try_get(4)?,
            created_at: row.try_get(5)?,
            expires_at: row.try_get(6)?,
            last_used_at: row.try_get(7)?,
        })
    };
    connection.query(sql, &[]).await?.iter().map(token).collect()
}

/// Actions and queues, from this column on.
fn scope(row: &Row, column: usize) -> Result<Scope, Error> {
    let words: Vec<&str> = row.try_get(column)?;
    let actions = words.into_iter().map(str::parse::<Action>).collect::<Result<_, _>>();
    let actions = actions.map_err(|error: UnknownWord| Error::Other(error.into()))?;
    Ok(Scope { actions, queues: row.try_get(column + 1)? })
}
