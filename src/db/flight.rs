//! A call between its statement and its answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::{Connection, Error};

/// The answer to a statement on a connection of the caller's own, waited for so long at most.
///
/// # Errors
///
/// By class: [`Error::InDoubt`] where no answer came.
pub async fn answered_within<T>(
    deadline: Duration,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Error> {
    let answer = timeout(deadline, statement).await;
    answer.map_err(|_| Error::unanswered(deadline, true))?.map_err(Error::of_sent)
}

/// Marks the connection if it is dropped before the answer came: the next user would wait behind
/// a statement that nobody wants any more.
pub(super) struct Flight<'a> {
    connection: &'a Connection,
    /// The server may have seen something that has an effect.
    sent: AtomicBool,
    landed: AtomicBool,
}

impl<'a> Flight<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Flight { connection, sent: AtomicBool::new(false), landed: AtomicBool::new(false) }
    }

    /// Just before the statement goes out. On a connection that has ended it does not.
    pub(super) fn sends(&self) {
        self.sent.store(!self.connection.is_closed(), Ordering::Relaxed);
    }

    pub(super) fn was_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// The answer is here.
    pub(super) fn landed(&self) {
        self.landed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if !self.landed.load(Ordering::Relaxed) {
            self.connection.abandon();
        }
    }
}
