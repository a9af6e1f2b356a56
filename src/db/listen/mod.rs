//! The listener: one session of its own, outside the pool, for wake-ups.
//!
//! A task owns the session. It LISTENs on the channel named after the schema, hands on the names
//! of queues that come in, and runs `watch`, `settled` and `unwatch` for its [`Listener`], since
//! what they hold belongs to this session. When the session breaks it opens another, with growing
//! pauses, LISTENs again and says [`Event::Reconnected`]: what was missed must be looked for.
//!
//! # Invariants
//!
//! 1. Any error closes the session, and with it every lock that `watch` took.
//! 2. A [`Watch`] of a session that is gone is never taken for settled.
//! 3. A wake-up is lost only where a `Reconnected` or `Missed` follows.
//!
//! # Not here
//!
//! The poll that guarantees progress: a wake-up is a hint.

mod session;
mod task;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Error, Options};

/// Events that wait to be read; what comes on top is summed up as `Missed`.
const EVENT_CAPACITY: usize = 1024;
const COMMAND_CAPACITY: usize = 64;

/// News from the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// There may be something in this queue.
    Wake(String),
    /// A session began: watches of earlier ones are gone, so watch afresh and look everywhere.
    Reconnected {
        /// Its number; see [`Watch::session`].
        session: u64,
    },
    /// There was more news than room: look everywhere. Watches stand.
    Missed,
}

/// Whether wake-ups can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No session at this moment; polling goes on.
    Connecting,
    /// Wake-ups arrive: a test of it has.
    Listen,
    /// LISTEN is accepted and nothing arrives, as through a transaction pooler: only polling works.
    Poll,
}

/// What `watch` answered: the transaction after which nothing can have been missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    snapshot: String,
    session: u64,
}

impl Watch {
    /// The session that holds it, counted from 1.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }
}

enum Command {
    Watch { queues: Vec<String>, reply: oneshot::Sender<Result<Watch, Error>> },
    Settled { watch: Watch, reply: oneshot::Sender<Result<bool, Error>> },
    Unwatch { queues: Vec<String>, reply: oneshot::Sender<Result<(), Error>> },
}

/// The handle to the listener's session; clones share it.
#[derive(Clone, Debug)]
pub struct Listener {
    commands: mpsc::Sender<Command>,
    mode: watch::Receiver<Mode>,
}

/// Makes a listener. The future is its task, to be spawned by the caller; it ends by `stop`, or
/// when the handles or the events are dropped.
///
/// # Errors
///
/// When the url cannot be used. A database that is away is waited for.
pub fn listener(
    options: &Options,
    stop: CancellationToken,
) -> Result<(Listener, mpsc::Receiver<Event>, impl Future<Output = ()> + Send + use<>), Error> {
    let (events, event_receiver) = mpsc::channel(EVENT_CAPACITY);
    let (commands, command_receiver) = mpsc::channel(COMMAND_CAPACITY);
    let (mode_sender, mode) = watch::channel(Mode::Connecting);
    let target = session::Target::new(options)?;
    let task = task::Task::new(target, events, command_receiver, mode_sender);
    let running = async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = task.run() => {}
        }
    };
    Ok((Listener { commands, mode }, event_receiver, running))
}

impl Listener {
    /// Whether wake-ups can be relied on at this moment.
    #[must_use]
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// Waits until the mode is another one than at the last call on this handle.
    pub async fn mode_changed(&mut self) -> Mode {
        // An error means that the task has ended; the last mode stands.
        let _ = self.mode.changed().await;
        *self.mode.borrow_and_update()
    }

    /// Makes whoever enqueues into these queues notify, until [`Listener::unwatch`].
    ///
    /// # Errors
    ///
    /// By class; any error has also ended every watch of the session.
    pub async fn watch(&self, queues: Vec<String>) -> Result<Watch, Error> {
        self.ask(|reply| Command::Watch { queues, reply }).await
    }

    /// Whether everybody who may have missed the watch has ended, so that one may wait.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] when the watch was of a session that is gone: watch afresh.
    pub async fn settled(&self, watch: &Watch) -> Result<bool, Error> {
        let watch = watch.clone();
        self.ask(|reply| Command::Settled { watch, reply }).await
    }

    /// Ends the watch on these queues.
    ///
    /// # Errors
    ///
    /// By class; any error has also ended every watch of the session.
    pub async fn unwatch(&self, queues: Vec<String>) -> Result<(), Error> {
        self.ask(|reply| Command::Unwatch { queues, reply }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::unavailable("the listener has stopped");
        self.commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}
