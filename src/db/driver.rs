//! The task behind a session: it owns the socket, and hears what is no statement's answer.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Connection, Socket};
use tracing::debug;

/// Where Postgres warns that it no longer waits for its standbys, and then says that all is well.
const GAVE_UP_REPLICATION: &str = "SyncRepWaitForLSN";

/// The task of one session. Dropped, it closes the socket at once: the driver alone would wait for
/// the answer to a statement that nobody wants any more, for ever where none comes.
pub(super) struct Driver {
    task: JoinHandle<()>,
    unreplicated: Arc<AtomicBool>,
    let_go: bool,
}

impl Driver {
    pub(super) fn spawn<T>(mut connection: Connection<Socket, T>) -> Driver
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unreplicated = Arc::new(AtomicBool::new(false));
        let heard = unreplicated.clone();
        let task = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) if is_unreplicated(&notice) => {
                        heard.store(true, Ordering::Release);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return debug!(%error, "connection ended"),
                    None => return,
                }
            }
        });
        Driver { task, unreplicated, let_go: false }
    }

    /// Whether a commit was kept here without its standbys, since this was last asked.
    pub(super) fn take_unreplicated(&self) -> bool {
        self.unreplicated.swap(false, Ordering::AcqRel)
    }

    /// The session ends in its own time, once its client is dropped.
    pub(super) fn let_go(&mut self) {
        self.let_go = true;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.let_go {
            self.task.abort();
        }
    }
}

fn is_unreplicated(notice: &DbError) -> bool {
    notice.routine() == Some(GAVE_UP_REPLICATION)
}
