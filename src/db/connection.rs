//! A connection with its prepared statements.
//!
//! `query` of the driver prepares and closes each time, four times the round trips. Here each SQL
//! text, known by being `&'static str`, is prepared once a connection. Behind a transaction pooler
//! nothing outlives a transaction: there each statement goes out unprepared, with its parameters'
//! types, between a BEGIN that sets the transaction up and a COMMIT, all in one trip.
//!
//! Every call has a deadline of this side: a COMMIT waits for standbys beyond any
//! `statement_timeout`, and a connection that leads nowhere never answers. What was sent and not
//! answered is [`Error::InDoubt`] where it may have been kept.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join3;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::driver::Driver;
use super::flight::Flight;
use super::param::{Param, typed};
use super::transaction::Transaction;
use super::{Error, migrate};
use crate::model::SchemaName;

/// Parameters of a statement.
pub type Params<'a> = &'a [&'a dyn Param];

const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// How long the request to cancel what was given up may take.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// What another session's statements under our names mean.
const POOLER_HINT: &str = "prepared statements do not last on this connection; if it leads through \
                           a transaction pooler, set ROWLOCK_POOLER=transaction";

/// A session that is set up, and its prepared statements.
pub struct Connection {
    client: Client,
    driver: Driver,
    call_timeout: Duration,
    /// In place of it, while a transaction lasts that needs more.
    allowed: Mutex<Option<Duration>>,
    /// How a transaction begins, where each sets itself up because the session may be another's.
    begin: Option<String>,
    statements: Mutex<HashMap<&'static str, Statement>>,
    in_transaction: AtomicBool,
    failed: AtomicBool,
    abandoned: AtomicBool,
}

impl Connection {
    /// A connection whose session is set up. Through a transaction pooler none is: there `setup`
    /// is said at the head of each transaction.
    pub(super) fn new(
        client: Client,
        driver: Driver,
        setup: Option<&str>,
        call_timeout: Duration,
    ) -> Self {
        Connection {
            client,
            driver,
            call_timeout,
            allowed: Mutex::default(),
            begin: setup.map(|setup| format!("{BEGIN}; {setup}")),
            statements: Mutex::default(),
            in_transaction: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
        }
    }

    /// All rows of a statement.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn query(&self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let flight = Flight::new(self);
        let call = async {
            let answer = match &self.begin {
                None => self.query_prepared(&flight, sql, params).await,
                Some(begin) => self.query_typed(&flight, begin, sql, params).await,
            };
            if answer.as_ref().is_err_and(|error| self.may_prepare_again(error)) {
                self.forget(sql);
                return self.query_prepared(&flight, sql, params).await;
            }
            answer
        };
        self.answered(&flight, self.commits_itself(), call).await
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
        self.send(sql, self.commits_itself()).await
    }

    /// Prepares statements ahead of their first use.
    ///
    /// # Errors
    ///
    /// When one of them does not fit the schema.
    pub async fn prepare(&self, statements: &[&'static str]) -> Result<(), Error> {
        for sql in statements {
            let flight = Flight::new(self);
            self.answered(&flight, false, self.prepared(sql)).await?;
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
        let answer = timeout(self.deadline(), migrate::check(&self.client, schema)).await;
        let answer = answer.map_err(|_| Error::unavailable("no answer came in time"))?;
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
        let transaction = Transaction::new(connection);
        connection.enter();
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

    /// Runs statements; `commits` says whether what they do is kept with their answer.
    pub(super) async fn send(&self, sql: &str, commits: bool) -> Result<(), Error> {
        let flight = Flight::new(self);
        let call = async {
            flight.sends();
            self.client.batch_execute(sql).await
        };
        self.answered(&flight, commits, call).await
    }

    /// Waits for the answer to a call, until its deadline.
    async fn answered<T>(
        &self,
        flight: &Flight<'_>,
        commits: bool,
        call: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let Ok(answer) = timeout(deadline, call).await else {
            self.failed.store(true, Ordering::Relaxed);
            self.cancel();
            return Err(Error::unanswered(deadline, commits && flight.was_sent()));
        };
        flight.landed();
        if self.driver.take_unreplicated() && commits && answer.is_ok() {
            let why = "it was kept here, and its standbys have not confirmed it";
            return Err(Error::InDoubt(why.into()));
        }
        self.noted(answer, commits && flight.was_sent())
    }

    /// Whether a statement has failed since the transaction began.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn enter(&self) {
        self.failed.store(false, Ordering::Relaxed);
        self.in_transaction.store(true, Ordering::Relaxed);
    }

    /// The transaction has ended.
    pub(super) fn leave(&self) {
        self.in_transaction.store(false, Ordering::Relaxed);
        self.allow(None);
    }

    /// Nobody must use it again.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn deadline(&self) -> Duration {
        let allowed = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        allowed.unwrap_or(self.call_timeout)
    }

    /// Lets calls take so long, in place of the call time-out.
    pub(super) fn allow(&self, patience: Option<Duration>) {
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = patience;
    }

    /// Whether a statement by itself is a transaction.
    fn commits_itself(&self) -> bool {
        !self.in_transaction.load(Ordering::Relaxed)
    }

    /// Asks the server to let go of what nobody waits for: one session after another would be stuck
    /// in the same place.
    fn cancel(&self) {
        let token = self.client.cancel_token();
        tokio::spawn(async move {
            // It helps where it can; the connection is dropped in any case.
            let _ = timeout(CANCEL_PATIENCE, token.cancel_query(NoTls)).await;
        });
    }

    async fn query_prepared(
        &self,
        flight: &Flight<'_>,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        let types = || params.iter().map(|param| param.pg_type());
        // Otherwise it would fail behind a pooler, and only there.
        debug_assert!(types().eq(statement.params().iter().cloned()), "types in {sql}");
        let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|param| param.as_sql()).collect();
        flight.sends();
        self.client.query(&statement, &params).await
    }

    /// Nothing that the server would have to remember; a transaction of its own unless in one.
    async fn query_typed(
        &self,
        flight: &Flight<'_>,
        begin: &str,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        flight.sends();
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
    /// a rollback and no error. `doubt` says whether what got no answer may have been kept.
    fn noted<T>(&self, answer: Result<T, tokio_postgres::Error>, doubt: bool) -> Result<T, Error> {
        answer.map_err(|error| {
            self.failed.store(true, Ordering::Relaxed);
            let lost = error.code().is_some_and(|state| matches!(state.code(), "26000" | "42P05"));
            if lost {
                Error::Other(format!("{POOLER_HINT} ({error})").into())
            } else if doubt {
                Error::of_sent(error)
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

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.abandoned.load(Ordering::Relaxed) {
            self.driver.let_go();
        }
    }
}
