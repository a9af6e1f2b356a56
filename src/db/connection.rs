//! A connection with its prepared statements, and transactions on it.
//!
//! `query` of the driver prepares and closes each time, four times the round trips. Here each SQL
//! text, known by being `&'static str`, is prepared once a connection. Behind a transaction pooler
//! nothing outlives a transaction: there each statement goes out unprepared, with its parameters'
//! types, between a BEGIN that sets the transaction up and a COMMIT, all in one trip.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join3;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::param::{Param, typed};
use super::{Error, migrate};
use crate::model::SchemaName;

/// Parameters of a statement.
pub type Params<'a> = &'a [&'a dyn Param];

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// What another session's statements under our names mean.
const POOLER_HINT: &str = "prepared statements do not last on this connection; if it leads through \
                           a transaction pooler, set ROWLOCK_POOLER=transaction";

/// A session that is set up, and its prepared statements.
pub struct Connection {
    client: Client,
    /// How a transaction begins, where each sets itself up because the session may be another's.
    begin: Option<String>,
    statements: Mutex<HashMap<&'static str, Statement>>,
    in_transaction: AtomicBool,
    failed: AtomicBool,
    abandoned: AtomicBool,
}

impl Connection {
    /// A connection whose session is set up.
    pub(super) fn new(client: Client) -> Self {
        Connection {
            client,
            begin: None,
            statements: Mutex::default(),
            in_transaction: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    /// A connection through a transaction pooler; `setup` is said at the head of each transaction.
    pub(super) fn pooled(client: Client, setup: &str) -> Self {
        Connection { begin: Some(format!("{BEGIN}; {setup}")), ..Connection::new(client) }
    }

    /// All rows of a statement.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let flight = Flight::new(self);
        let mut answer = match &self.begin {
            None => self.query_prepared(sql, params).await,
            Some(begin) => self.query_typed(begin, sql, params).await,
        };
        if answer.as_ref().is_err_and(|error| self.may_prepare_again(error)) {
            self.forget(sql);
            answer = self.query_prepared(sql, params).await;
        }
        flight.landed();
        self.noted(answer)
    }

    /// The one row of a statement.
    ///
    /// # Errors
    ///
    /// By class; none or several rows are [`Error::Other`].
    pub async fn query_one(&self, sql: &'static str, params: Params<'_>) -> Result<Row, Error> {
        let row = self.query_opt(sql, params).await?;
        row.ok_or_else(|| Error::Other("a row was expected and there is none".into()))
    }

    /// The row of a statement that has one at most.
    ///
    /// # Errors
    ///
    /// By class; several rows are [`Error::Other`].
    pub async fn query_opt(
        &self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Row>, Error> {
        let mut rows = self.query(sql, params).await?;
        match rows.len() {
            0 | 1 => Ok(rows.pop()),
            count => Err(Error::Other(format!("one row was expected, not {count}").into())),
        }
    }

    /// Runs statements without parameters or answer, unprepared.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn batch(&self, sql: &str) -> Result<(), Error> {
        let flight = Flight::new(self);
        let answer = self.client.batch_execute(sql).await;
        flight.landed();
        self.noted(answer)
    }

    /// Prepares statements ahead of their first use.
    ///
    /// # Errors
    ///
    /// When one of them does not fit the schema.
    pub async fn prepare(&self, statements: &[&'static str]) -> Result<(), Error> {
        for sql in statements {
            let statement = self.prepared(sql).await;
            self.noted(statement)?;
        }
        Ok(())
    }

    /// Whether the schema is the one that this binary needs.
    ///
    /// # Errors
    ///
    /// As [`migrate::check`].
    pub async fn check_schema(&self, schema: &SchemaName) -> Result<(), migrate::Error> {
        let flight = Flight::new(self);
        let answer = migrate::check(&self.client, schema).await;
        flight.landed();
        answer
    }

    /// Begins a transaction in READ COMMITTED.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        let connection: &Connection = self;
        // Before the statement: a future dropped in mid-flight leaves its mark.
        let transaction = Transaction { connection, open: true };
        connection.failed.store(false, Ordering::Relaxed);
        connection.in_transaction.store(true, Ordering::Relaxed);
        connection.batch(connection.begin.as_deref().unwrap_or(BEGIN)).await?;
        Ok(transaction)
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether nobody must use it again.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.client.is_closed() || self.abandoned.load(Ordering::Relaxed)
    }

    async fn query_prepared(
        &self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        let types = || params.iter().map(|param| param.pg_type());
        // Otherwise it would fail behind a pooler, and only there.
        debug_assert!(types().eq(statement.params().iter().cloned()), "types in {sql}");
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param.as_sql()).collect();
        self.client.query(&statement, &params).await
    }

    /// Nothing that the server would have to remember; a transaction of its own unless in one.
    async fn query_typed(
        &self,
        begin: &str,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let params = typed(params);
        let query = self.client.query_typed(sql, &params);
        if self.in_transaction.load(Ordering::Relaxed) {
            return query.await;
        }
        // The first poll of each sends it, in this order: one trip.
        let begin = self.client.batch_execute(begin);
        let (begun, answer, ended) = join3(begin, query, self.client.batch_execute("COMMIT")).await;
        begun?;
        let rows = answer?;
        ended?;
        Ok(rows)
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.lock().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.lock().insert(sql, statement.clone());
        Ok(statement)
    }

    /// Remembers that a statement failed: Postgres answers the COMMIT of a failed transaction with
    /// a rollback and no error.
    fn noted<T>(&self, answer: Result<T, tokio_postgres::Error>) -> Result<T, Error> {
        answer.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            let lost = error.code().is_some_and(|state| matches!(state.code(), "26000" | "42P05"));
            if lost {
                Error::Other(format!("{POOLER_HINT} ({error})").into())
            } else {
                error.into()
            }
        })
    }

    fn forget(&self, sql: &'static str) {
        self.lock().remove(sql);
    }

    /// After a migration under our feet (0A000) or a DISCARD (26000) a statement is unknown or
    /// outdated. Nothing has run by then, but in a transaction nothing can run any more, and behind
    /// a pooler nothing is prepared.
    fn may_prepare_again(&self, error: &tokio_postgres::Error) -> bool {
        let outdated = error.code().is_some_and(|state| matches!(state.code(), "0A000" | "26000"));
        outdated && self.begin.is_none() && !self.in_transaction.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Statement>> {
        self.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the connection if it is dropped before the answer came: the next user would wait behind
/// a statement that nobody wants any more.
struct Flight<'a> {
    connection: &'a Connection,
    landed: AtomicBool,
}

impl<'a> Flight<'a> {
    fn new(connection: &'a Connection) -> Self {
        Flight { connection, landed: AtomicBool::new(false) }
    }

    fn landed(&self) {
        self.landed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed.load(Ordering::Relaxed) {
            self.connection.abandoned.store(true, Ordering::Relaxed);
        }
    }
}

/// An open transaction. It runs statements as its connection does; dropped without an end, it
/// breaks the connection, so that nobody is lent a session in the middle of somebody else's work.
#[must_use = "end it by commit, rollback or end"]
pub struct Transaction<'a> {
    connection: &'a Connection,
    open: bool,
}

impl Transaction<'_> {
    /// Commits.
    ///
    /// # Errors
    ///
    /// By class. A transaction in which a statement failed is rolled back, and that is an error.
    /// It knows no savepoints.
    pub async fn commit(self) -> Result<(), Error> {
        if self.connection.failed.load(Ordering::Relaxed) {
            self.rollback().await?;
            return Err(Error::Other("a statement failed, so nothing was committed".into()));
        }
        self.close("COMMIT").await
    }

    /// Takes everything back.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn rollback(self) -> Result<(), Error> {
        self.close("ROLLBACK").await
    }

    async fn close(mut self, sql: &'static str) -> Result<(), Error> {
        let answer = self.connection.batch(sql).await;
        // A COMMIT that failed has ended the transaction too, unless the connection is gone.
        self.open = false;
        self.connection.in_transaction.store(false, Ordering::Relaxed);
        answer
    }

    /// Commits what went well, takes back what did not, and hands the outcome on.
    ///
    /// # Errors
    ///
    /// The outcome's error, or the commit's.
    pub async fn end<T, E: From<Error>>(self, outcome: Result<T, E>) -> Result<T, E> {
        match outcome {
            Ok(value) => {
                self.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // The first error is the one to know; a failed rollback has broken the connection.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }
}

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.connection.abandoned.store(true, Ordering::Relaxed);
        }
    }
}
