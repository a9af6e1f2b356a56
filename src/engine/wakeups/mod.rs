//! Wake-ups: who waits for jobs on which queues, and whom a notification wakes.
//!
//! While somebody of this process sleeps on a queue, the listener's session holds that queue's
//! lock, so that whoever makes a job ready notifies. One lock a queue and process, whatever the
//! number of sleepers; none while all of them are busy. `state` decides, `task` does the talking.
//!
//! A sleeper's loop is: look; nothing there: [`Sleeper::wait`]; look again. `wait` returns when
//! another look is due:
//!
//! - the watch came into force: whoever enqueued before it did not notify;
//! - the watch is settled: the last of those has ended. Until then, with growing pauses;
//! - a notification, or a full look of somebody else, made it this sleeper's turn;
//! - news may have been lost, or the poll interval is over.
//!
//! # Invariants
//!
//! 1. A sleeper that rests has begun a look after its queues' watches were settled.
//! 2. A wake-up goes to one sleeper for each set of kinds; when that one goes away before it
//!    looked, or found as many as it may take, it goes to the next.
//! 3. No wait is longer than the poll interval.

mod state;
mod task;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::db::Pool;
use crate::db::listen::{Event, Listener, Mode};
use state::{State, Turn};

/// The first pause between two looks while a watch is not settled; it doubles up to the poll.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The sleepers of a process. Clones share them.
#[derive(Clone)]
pub struct Wakeups {
    shared: Arc<Shared>,
    listener: Option<Listener>,
}

/// What sleepers and the task have in common.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Tells the task that the state has something for it.
    changed: Notify,
}

impl Shared {
    /// Nothing here waits while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and tells the task if that is its concern.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if state.take_concern() {
            self.changed.notify_one();
        }
    }
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
    /// The sleepers over a listener. The future is its task, to be spawned by the caller. The pool
    /// is asked which queues are paused.
    pub fn new(
        listener: Listener,
        events: mpsc::Receiver<Event>,
        pool: Pool,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let shared = Arc::<Shared>::default();
        let task = task::Task::new(shared.clone(), listener.clone(), events, pool);
        let running = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task.run() => {}
            }
        };
        (Wakeups { shared, listener: Some(listener) }, running)
    }

    /// Sleepers that poll and nothing else.
    #[must_use]
    pub fn polling() -> Self {
        Wakeups { shared: Arc::default(), listener: None }
    }

    /// Whether wake-ups can be relied on at this moment.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.listener.as_ref().map_or(Mode::Poll, Listener::mode)
    }

    /// Somebody who takes jobs from these queues, of these kinds or of all. To be made before its
    /// first look.
    #[must_use]
    pub fn sleeper(&self, queues: &[String], kinds: Option<&[String]>) -> Sleeper {
        let (id, notify) = self.shared.lock().register(queues, kinds);
        Sleeper { shared: self.shared.clone(), id, notify, pause: FIRST_PAUSE }
    }

    /// A queue was resumed by this process.
    pub(super) fn resumed(&self, queue: &str) {
        self.shared.change(|state| state.resumed(queue));
    }
}

/// Who looks for jobs and sleeps between: look; found nothing: [`Sleeper::wait`]; look again.
pub struct Sleeper {
    shared: Arc<Shared>,
    id: u64,
    notify: Arc<Notify>,
    pause: Duration,
}

impl Sleeper {
    /// After a look that found nothing: waits until another look is due, at most for `poll`.
    ///
    /// It may be dropped at any time; a wake-up that it had received goes to another sleeper.
    pub async fn wait(&mut self, poll: Duration, stop: &CancellationToken) -> Next {
        let began = Instant::now();
        self.shared.change(|state| state.found_nothing(self.id, began));
        let _waiting = Waiting { shared: &self.shared, id: self.id };
        loop {
            let pause = match self.shared.lock().turn(self.id) {
                Turn::Look => return Next::Look,
                Turn::Rest { settled: true } => {
                    self.pause = FIRST_PAUSE;
                    poll
                }
                Turn::Rest { settled: false } => self.pause.min(poll),
            };
            tokio::select! {
                () = stop.cancelled() => return Next::Stop,
                () = self.notify.notified() => {}
                () = sleep_until(began + pause) => {
                    self.pause = poll.min(self.pause * 2);
                    self.shared.lock().looks(self.id);
                    return Next::Look;
                }
            }
        }
    }

    /// After a look that found jobs: this one is busy. `full` says that there may be more, which
    /// are somebody else's.
    pub fn found(&mut self, full: bool) {
        self.pause = FIRST_PAUSE;
        self.shared.change(|state| state.found(self.id, full, Instant::now()));
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.shared.change(|state| state.remove(self.id, Instant::now()));
    }
}

/// Ends the wait of a sleeper, however the future ends.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.lock().wait_ended(self.id);
    }
}
