//! An audit of the database: what is unsafe or will become slow, who causes it, and what to do.
//!
//! [`examine`] looks and judges; `rowlock doctor` prints all of it. [`at_start`] is what a service
//! and a worker do: they log what is wrong, once, and refuse a database that may lose what it has
//! acknowledged, unless its own setting `rowlock.allow_data_loss` says that it may.
//!
//! # Invariants
//!
//! 1. It changes nothing and waits for nobody's locks.
//! 2. A check that fails is a finding; it keeps no other check from being made.
//! 3. Each finding says what to do.

mod pooler;
mod schema;
mod server;
mod sessions;

use std::time::Duration;

use tracing::{error, warn};

use crate::db::{Error, Options, Pool, Recovery};

/// Checks, by the names under which they are found in docs/OPERATIONS.md.
pub const CHECKS: &[&str] = &[
    "durability",
    "version",
    "recovery",
    "encoding",
    "connections",
    "wraparound",
    "notifications",
    "autovacuum",
    "clock",
    "checksums",
    "passwords",
    "exposed",
    "log",
    "superuser",
    "migrations",
    "drift",
    "triggers",
    "tables",
    "roles",
    "privileges",
    "maintenance",
    "holders",
    "hidden",
    "pooler",
    "audit",
];

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It will hurt one day, or under load.
    Warning,
    /// Jobs can be lost, or something does not work.
    Error,
}

impl Severity {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check, one of [`CHECKS`].
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do.
    pub advice: String,
}

impl Finding {
    fn new(
        check: &'static str,
        severity: Severity,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        debug_assert!(CHECKS.contains(&check), "{check}");
        Finding { check, severity, found: found.into(), advice: advice.into() }
    }
}

/// What the database is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// `rowlock serve`.
    Service,
    /// A worker.
    Worker,
}

impl Duty {
    /// The end of the role's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Duty::Service => "service",
            Duty::Worker => "worker",
        }
    }
}

/// Who asks, and how long is too long.
#[derive(Clone, Debug)]
pub struct Subject {
    /// How the database is reached.
    pub options: Options,
    /// What for.
    pub duty: Duty,
    /// For how long a session may keep dead rows from being removed.
    pub bound: Duration,
}

/// A snapshot that is older than this costs a busy queue more with each minute.
pub const HOLDER_BOUND: Duration = Duration::from_secs(300);

/// The most that the look at a start may take.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a database that is away.
const START_PAUSE: Duration = Duration::from_secs(1);

/// A database on which a service or worker must not start.
#[derive(Debug, thiserror::Error)]
#[error("{found}: {advice}")]
pub struct Unsafe {
    found: String,
    advice: String,
}

/// Looks at everything.
///
/// # Errors
///
/// When there is no connection; see [`Error`]. What cannot be looked at is a finding.
pub async fn examine(pool: &Pool, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let mut findings = server::check(&*pool.get().await?, &subject.options.settings).await;
    findings.extend(beside_the_server(pool, subject).await?);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// All but the server itself.
async fn beside_the_server(pool: &Pool, subject: &Subject) -> Result<Vec<Finding>, Error> {
    let connection = pool.get().await?;
    let mut findings = Vec::new();
    let (schema, is_there) = schema::check_version(&connection, subject.options.schema()).await;
    findings.extend(schema);
    if is_there {
        findings.extend(schema::check(&connection, subject.duty).await);
    }
    findings.extend(sessions::check(&connection, subject.bound).await);
    drop(connection);
    findings.extend(pooler::check(&subject.options).await);
    Ok(findings)
}

/// What a process does before it serves or works. It waits for a database that is away: whether
/// acknowledged work may be lost has to be known. What else it cannot look at in time it leaves
/// alone.
///
/// # Errors
///
/// [`Unsafe`] where acknowledged work may be lost.
pub async fn at_start(pool: &Pool, options: &Options, duty: Duty) -> Result<(), Unsafe> {
    let Some(mut findings) = need_durability(pool, options).await? else { return Ok(()) };
    let subject = Subject { options: options.clone(), duty, bound: HOLDER_BOUND };
    match tokio::time::timeout(START_PATIENCE, beside_the_server(pool, &subject)).await {
        Ok(Ok(more)) => findings.extend(more),
        Ok(Err(error)) => warn!("not all was examined: {}", error.chain()),
        Err(_) => warn!("not all was examined within {} s", START_PATIENCE.as_secs()),
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for Finding { check, severity, found, advice } in &findings {
        match severity {
            Severity::Info => {}
            Severity::Warning => warn!(check, "{found}: {advice}"),
            Severity::Error => error!(check, "{found}: {advice}"),
        }
    }
    Ok(())
}

/// What was found at the server; `None` where it may not be looked at.
async fn need_durability(pool: &Pool, options: &Options) -> Result<Option<Vec<Finding>>, Unsafe> {
    let look = async || {
        let connection = pool.get().await?;
        Ok::<_, Error>(server::check(&connection, &options.settings).await)
    };
    let mut findings = loop {
        match tokio::time::timeout(START_PATIENCE, look()).await {
            Ok(Ok(findings)) => break findings,
            Ok(Err(error)) if matches!(error.recovery(), Recovery::GiveUp) => {
                warn!("the database was not examined: {}", error.chain());
                return Ok(None);
            }
            Ok(Err(error)) => warn!("the database does not answer yet: {}", error.chain()),
            Err(_) => warn!("the database did not answer within {} s", START_PATIENCE.as_secs()),
        }
        tokio::time::sleep(START_PAUSE).await;
    };
    let is_unsafe =
        |finding: &Finding| finding.check == "durability" && finding.severity == Severity::Error;
    match findings.iter().position(is_unsafe) {
        Some(at) => {
            let Finding { found, advice, .. } = findings.swap_remove(at);
            Err(Unsafe { found, advice })
        }
        None => Ok(Some(findings)),
    }
}

/// What a check found, or that it could not look.
fn looked(part: &str, outcome: Result<Vec<Finding>, Error>) -> Vec<Finding> {
    outcome.unwrap_or_else(|error| {
        let found = format!("{part} could not be looked at: {}", error.chain());
        let advice = "look at the message; a role of Rowlock, such as the service's, may look";
        vec![Finding::new("audit", Severity::Warning, found, advice)]
    })
}

/// Some names and how many more there are; `None` for none.
fn listed(names: &[String]) -> Option<String> {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        count if count <= SHOWN => Some(shown),
        count => Some(format!("{shown} and {} more", count - SHOWN)),
    }
}
