//! Bringing the schema up: numbered files once each, function files again whenever one changed.
//!
//! Everything is one transaction under an advisory lock of the schema, so any number of processes
//! may migrate at once, and a failure leaves nothing behind. After the roles are there, the rest
//! runs as the schema's owner, so that no function with the owner's rights belongs to a superuser.
//!
//! # Invariants
//!
//! 1. What [`run`] executes is the text that [`plan`] prints.
//! 2. An applied file never changes, and the schema never goes back.
//! 3. Only validated schema names, checksums and names of our own files are put into SQL text.

mod files;
mod script;
mod state;

use tokio_postgres::Client;
use tokio_postgres::error::ErrorPosition;
use tracing::info;

pub use files::{EMBEDDED, Files, FunctionFile, Migration};
use script::{Step, closing, opening, print};
use state::State;

use super::Error as DbError;
use crate::model::SchemaName;

/// Why the schema was not brought up, or does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A newer binary was here.
    #[error(
        "the schema has version {found} and this binary knows {newest}: run a newer rowlock, \
         or restore the database from before the upgrade"
    )]
    Newer {
        /// The schema's version.
        found: i32,
        /// The binary's.
        newest: i32,
    },
    /// An applied file is not the one that the binary carries.
    #[error(
        "migration {file} was applied with another content: this binary was built from changed \
         sources; applied files must not change"
    )]
    Changed {
        /// The file.
        file: String,
    },
    /// The bookkeeping has a gap.
    #[error("migration {file} is not recorded, but a later one is: the table was edited")]
    Missing {
        /// The file.
        file: String,
    },
    /// Migrations wait.
    #[error("the schema has version {found} and this binary needs {newest}: run `rowlock migrate`")]
    Behind {
        /// The schema's version; 0 when there is none.
        found: i32,
        /// The binary's.
        newest: i32,
    },
    /// The functions are of another build.
    #[error("the schema's functions are not this binary's: run `rowlock migrate`")]
    OtherFunctions,
    /// The server does not understand the files.
    #[error("Postgres {version} is too old: 14 or newer is needed")]
    ServerTooOld {
        /// What the server calls itself.
        version: String,
    },
    /// Something is to be done that this role may not do.
    #[error(
        "the schema is not up to date, and {role} may not change it: run `rowlock migrate` as {whom}"
    )]
    NotAllowed {
        /// Who asked.
        role: String,
        /// Who may.
        whom: String,
    },
    /// A step failed, and everything was taken back.
    #[error("{place} failed and nothing was changed")]
    Step {
        /// The file and line, or what the step does.
        place: String,
        /// What Postgres said.
        source: DbError,
    },
    /// The database, apart from the steps.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Error::Db(error.into())
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The version before; 0 for a fresh schema.
    pub from: i32,
    /// The version after.
    pub version: i32,
    /// The migrations applied.
    pub applied: Vec<&'static str>,
    /// How many function files were applied.
    pub functions: usize,
}

impl Report {
    /// Whether nothing was to be done.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.applied.is_empty() && self.functions == 0
    }
}

/// Brings the schema up to the files that the binary carries. Where it is there already, any role
/// that may use the schema will do, and nothing is locked.
///
/// # Errors
///
/// [`Error::NotAllowed`] when something is to be done and the role may not do it. Nothing was
/// changed when this fails. The client must not be in a transaction.
pub async fn run(client: &mut Client, schema: &SchemaName) -> Result<Report, Error> {
    run_files(client, schema, &EMBEDDED).await
}

/// The same with other files.
///
/// # Errors
///
/// As [`run`].
pub async fn run_files(
    client: &mut Client,
    schema: &SchemaName,
    files: &Files,
) -> Result<Report, Error> {
    match check_files(client, schema, files).await {
        Ok(()) => {
            let version = files.migrations.last().map_or(0, Migration::version);
            return Ok(Report { from: version, version, applied: Vec::new(), functions: 0 });
        }
        Err(Error::Behind { .. } | Error::OtherFunctions) => {
            state::may_change(client, schema).await?
        }
        Err(error) => return Err(error),
    }
    let outcome = apply(client, schema, files).await;
    if outcome.is_err() {
        // The first error is the one to know; a dead connection has rolled back by itself.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    outcome
}

async fn apply(client: &Client, schema: &SchemaName, files: &Files) -> Result<Report, Error> {
    for step in opening(schema) {
        execute(client, &step).await?;
    }
    let state = State::read(client, schema).await?;
    let pending = state.pending(files)?;
    for step in pending.steps() {
        execute(client, &step).await?;
    }
    execute(client, &closing()).await?;
    let report = Report {
        from: state.version(),
        version: pending.migrations.last().map_or(state.version(), Migration::version),
        applied: pending.migrations.iter().map(|migration| migration.file).collect(),
        functions: pending.functions.len(),
    };
    if !report.is_unchanged() {
        info!(
            schema = schema.as_str(),
            version = report.version,
            "schema {schema} is at version {}, {} migration(s) applied",
            report.version,
            report.applied.len()
        );
    }
    Ok(report)
}

async fn execute(client: &Client, step: &Step) -> Result<(), Error> {
    client
        .batch_execute(&step.sql)
        .await
        .map_err(|error| Error::Step { place: place(step, &error), source: error.into() })
}

/// The step's title, with the line at which Postgres stumbled, if it says.
fn place(step: &Step, error: &tokio_postgres::Error) -> String {
    let position = error.as_db_error().and_then(|error| error.position());
    match position {
        Some(ErrorPosition::Original(at)) => {
            let before = step.sql.chars().take(*at as usize);
            let line = before.filter(|c| *c == '\n').count() + 1;
            format!("{}:{line}", step.title)
        }
        _ => step.title.clone(),
    }
}

/// The SQL of a whole installation, as a script for psql.
#[must_use]
pub fn plan(schema: &SchemaName) -> String {
    let steps = script::Pending::all(&EMBEDDED).steps();
    whole(schema, steps)
}

/// The SQL that [`run`] would execute in this database.
///
/// # Errors
///
/// As [`run`], without changing anything.
pub async fn plan_for(client: &Client, schema: &SchemaName) -> Result<String, Error> {
    state::check_server(client).await?;
    let state = State::read(client, schema).await?;
    Ok(whole(schema, state.pending(&EMBEDDED)?.steps()))
}

fn whole(schema: &SchemaName, middle: Vec<Step>) -> String {
    let mut steps = opening(schema);
    steps.extend(middle);
    steps.push(closing());
    print(&steps)
}

/// Whether the schema is the one that the binary needs; reads only.
///
/// # Errors
///
/// [`Error::Behind`], [`Error::Newer`], [`Error::Changed`] or [`Error::OtherFunctions`].
pub async fn check(client: &Client, schema: &SchemaName) -> Result<(), Error> {
    check_files(client, schema, &EMBEDDED).await
}

/// The same with other files.
///
/// # Errors
///
/// As [`check`].
pub async fn check_files(client: &Client, schema: &SchemaName, files: &Files) -> Result<(), Error> {
    state::check_server(client).await?;
    let state = State::read(client, schema).await?;
    let newest = files.migrations.last().map_or(0, Migration::version);
    let pending = state.pending(files)?;
    match &state.applied {
        Some(applied) if pending.migrations.is_empty() => {
            if applied.has_functions_of(files) {
                Ok(())
            } else {
                Err(Error::OtherFunctions)
            }
        }
        _ => Err(Error::Behind { found: state.version(), newest }),
    }
}
