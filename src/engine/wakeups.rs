//! Wake-ups: who waits for jobs, and on which queues.

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::db::Pool;
use crate::db::listen::{Event, Listener, Mode};

/// The sleepers of a process. Clones share them.
#[derive(Clone)]
pub struct Wakeups {
    listener: Option<Listener>,
}

/// What a sleeper is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look for jobs.
    Look,
    /// A stop was asked for.
    Stop,
}

impl Wakeups {
    /// The sleepers over a listener. The future is its task, to be spawned by the caller.
    pub fn new(
        listener: Listener,
        mut events: mpsc::Receiver<Event>,
        _pool: Pool,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let task = async move {
            let drain = async { while events.recv().await.is_some() {} };
            tokio::select! {
                () = stop.cancelled() => {}
                () = drain => {}
            }
        };
        (Wakeups { listener: Some(listener) }, task)
    }

    /// Sleepers that poll and nothing else.
    #[must_use]
    pub fn polling() -> Self {
        Wakeups { listener: None }
    }

    /// Whether wake-ups can be relied on at this moment.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.listener.as_ref().map_or(Mode::Poll, Listener::mode)
    }

    /// Somebody who takes jobs from these queues, of these kinds or of all.
    #[must_use]
    pub fn sleeper(&self, _queues: &[String], _kinds: Option<&[String]>) -> Sleeper {
        Sleeper {}
    }

    /// A queue was resumed by this process.
    pub(super) fn resumed(&self, _queue: &str) {}
}

/// Who looks for jobs and sleeps between: look; found nothing: [`Sleeper::wait`]; look again.
pub struct Sleeper {}

impl Sleeper {
    /// After a look that found nothing: waits until another look is due, at most for `poll`.
    pub async fn wait(&mut self, poll: Duration, stop: &CancellationToken) -> Next {
        if super::rest(poll, stop).await { Next::Look } else { Next::Stop }
    }

    /// After a look that found jobs: this one is busy. `full` says that there may be more, which
    /// are somebody else's.
    pub fn found(&mut self, _full: bool) {}
}
