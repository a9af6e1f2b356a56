//! Coming down: a stop is asked for once, tasks end by themselves, and the wait is bounded.
//!
//! 1. A signal (or [`Shutdown::stop`]) cancels the stop token.
//! 2. Every task that was started by [`Shutdown::spawn`] sees it and ends when it can.
//! 3. [`Shutdown::drain`] waits for them; a second signal, or the grace's end, cuts the wait short.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// One process's stop signal and its tasks; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Nothing started, nothing asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens for SIGTERM and SIGINT from now on: the first asks for a stop, the second for haste.
    ///
    /// # Errors
    ///
    /// When the handlers cannot be installed.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        // Untracked: it waits for signals to the end and would hold the drain up.
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                shutdown.signalled(name);
            }
        });
        Ok(())
    }

    fn signalled(&self, name: &str) {
        if self.stop.is_cancelled() {
            warn!(signal = name, "second {name}: stopping without waiting");
            self.abort.cancel();
        } else {
            info!(signal = name, "{name}: stopping");
            self.stop();
        }
    }

    /// Asks for a stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until a stop is asked for.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits until a second signal asks for haste.
    pub async fn hurrying(&self) {
        self.abort.cancelled().await;
    }

    /// The stop token, for what wants one.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task that the drain waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Asks for a stop and waits for the tasks, at most for `grace`. Says whether all have ended.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.stop();
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => true,
            () = self.abort.cancelled() => false,
            () = tokio::time::sleep(grace) => {
                warn!("{} task(s) still run after the grace period", self.tasks.len());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_drain_waits_for_tasks_that_see_the_stop() {
        let shutdown = Shutdown::new();
        let seen = shutdown.clone();
        let task = shutdown.spawn(async move { seen.stopping().await });
        assert!(!shutdown.is_stopping());
        assert!(shutdown.drain(LONG).await);
        assert!(task.is_finished());
    }

    #[tokio::test]
    async fn the_grace_bounds_the_wait() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        assert!(!shutdown.drain(Duration::from_millis(1)).await);
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_wait() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        shutdown.signalled("SIGTERM");
        assert!(shutdown.is_stopping());
        shutdown.signalled("SIGINT");
        assert!(!shutdown.drain(LONG).await);
    }
}
