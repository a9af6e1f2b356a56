//! Transactions on a connection.

use std::ops::Deref;
use std::time::Duration;

use super::{Connection, Error};

/// An open transaction. It runs statements as its connection does; dropped without an end, it
/// breaks the connection, so that nobody is lent a session in the middle of somebody else's work.
#[must_use = "end it by commit, rollback or end"]
pub struct Transaction<'a> {
    connection: &'a Connection,
    open: bool,
}

impl<'a> Transaction<'a> {
    /// One that is about to begin.
    pub(super) fn new(connection: &'a Connection) -> Self {
        Transaction { connection, open: true }
    }
}

impl Transaction<'_> {
    /// Lets its calls take so long each, in place of the call time-out.
    pub fn allow(&self, patience: Duration) {
        self.connection.allow(Some(patience));
    }

    /// Commits.
    ///
    /// # Errors
    ///
    /// By class: [`Error::InDoubt`] where no answer came. A transaction in which a statement failed
    /// is rolled back, and that is an error. It knows no savepoints.
    pub async fn commit(self) -> Result<(), Error> {
        if self.connection.has_failed() {
            self.rollback().await?;
            return Err(Error::Other("a statement failed, so nothing was committed".into()));
        }
        self.close("COMMIT", true).await
    }

    /// Takes everything back.
    ///
    /// # Errors
    ///
    /// By class; see [`Error`].
    pub async fn rollback(self) -> Result<(), Error> {
        self.close("ROLLBACK", false).await
    }

    async fn close(mut self, sql: &'static str, commits: bool) -> Result<(), Error> {
        let answer = self.connection.send(sql, commits).await;
        // A COMMIT that failed has ended the transaction too, unless the connection is gone.
        self.open = false;
        self.connection.leave();
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
            self.connection.abandon();
        }
    }
}
