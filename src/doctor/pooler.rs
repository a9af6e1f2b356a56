//! What stands between here and Postgres: whether a session is kept from statement to statement.

use std::time::Duration;

use tokio::time::timeout;

use super::{Finding, Severity, looked};
use crate::config::{DatabaseUrl, Pooler};
use crate::db::{self, Error, Options};
use crate::store::doctor::{backend_of, hold_session};

/// How many sessions a transaction pooler is tried with: one that has this many at rest for a single
/// caller goes unnoticed.
const TRIES: usize = 3;

/// How long the trial may take.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn check(options: &Options) -> Vec<Finding> {
    // A pooler with few sessions lets the trial wait for one.
    let trial = timeout(PATIENCE, find(options)).await;
    let late = || Err(Error::unavailable("it took too long"));
    looked("the way to Postgres", trial.unwrap_or_else(|_| late()))
}

async fn find(options: &Options) -> Result<Vec<Finding>, Error> {
    let settings = &options.settings;
    let mut findings = Vec::new();
    match settings.pooler {
        // Only here: the trial takes sessions, of which a pooler may have few.
        Pooler::None if sessions_are_shared(&options.url).await? => findings.push(Finding::new(
            "pooler",
            Severity::Error,
            "the connection leads through a transaction pooler, and ROWLOCK_POOLER says none",
            "set ROWLOCK_POOLER=transaction, or connect directly",
        )),
        Pooler::Transaction if settings.listen_url.is_none() => findings.push(Finding::new(
            "pooler",
            Severity::Info,
            "there are no wake-ups through a transaction pooler: workers poll",
            "give a direct connection in ROWLOCK_LISTEN_URL, if latency matters",
        )),
        Pooler::None | Pooler::Transaction => {}
    }
    if let Some(url) = &settings.listen_url
        && sessions_are_shared(url).await?
    {
        findings.push(Finding::new(
            "pooler",
            Severity::Error,
            "ROWLOCK_LISTEN_URL leads through a transaction pooler, where LISTEN hears nothing",
            "let it lead to Postgres itself, or to a pooler that keeps sessions",
        ));
    }
    Ok(findings)
}

/// Two clients tell whether one of them is served by a session that served the other: the first is
/// at rest while the second has a transaction open.
async fn sessions_are_shared(url: &DatabaseUrl) -> Result<bool, Error> {
    let resting = db::connect(url).await?;
    let mut before = backend_of(&resting).await?;
    let mut busy = Vec::new();
    for _ in 0..TRIES {
        let client = db::connect(url).await?;
        hold_session(&client).await?;
        let other = backend_of(&client).await?;
        busy.push(client);
        let now = backend_of(&resting).await?;
        if other == before || now != before {
            return Ok(true);
        }
        before = now;
    }
    Ok(false)
}
