//! The task behind a listener: sessions one after another, commands and events between them.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::session::{Session, Target};
use super::{Command, Event, Mode, Watch};
use crate::db::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The driver bounds the TCP connect only, not what follows it.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// A session that answers no command by then is taken for dead.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// How often to see whether LISTEN works where it did not.
const POLL_MODE_RETEST: Duration = Duration::from_secs(60);

pub(super) struct Task {
    target: Target,
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<Command>,
    mode: watch::Sender<Mode>,
    /// Counts sessions, so that a watch knows its own.
    session: u64,
    /// What must be said before any wake-up, since it says more; the next room is for it.
    due: Option<Event>,
}

impl Task {
    pub(super) fn new(
        target: Target,
        events: mpsc::Sender<Event>,
        commands: mpsc::Receiver<Command>,
        mode: watch::Sender<Mode>,
    ) -> Self {
        Task { target, events, commands, mode, session: 0, due: None }
    }

    /// Runs until the handles or the events are no longer wanted.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while !self.events.is_closed() && !self.commands.is_closed() {
            let connecting = timeout(CONNECT_PATIENCE, self.connect());
            let late = || Err(Error::unavailable("the connect took too long"));
            let wait = match connecting.await.unwrap_or_else(|_| late()) {
                Ok(Some(session)) => {
                    pause = FIRST_PAUSE;
                    self.serve(session).await;
                    FIRST_PAUSE
                }
                Ok(None) => POLL_MODE_RETEST,
                Err(error) => {
                    self.mode.send_replace(Mode::Connecting);
                    warn!("the listener cannot connect: {}", error.chain());
                    pause = LONGEST_PAUSE.min(pause * 2);
                    pause
                }
            };
            self.rest(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        }
    }

    /// Opens a session that is known to hear, or says that none does.
    async fn connect(&mut self) -> Result<Option<Session>, Error> {
        let mut session = self.target.open().await?;
        // What once heard goes on hearing: the test costs a connection.
        if self.session == 0 && !self.target.probe(&mut session).await? {
            warn!("LISTEN is accepted but nothing arrives (a transaction pooler?): polling only");
            self.mode.send_replace(Mode::Poll);
            return Ok(None);
        }
        self.session += 1;
        self.mode.send_replace(Mode::Listen);
        info!(session = self.session, "the listener is connected");
        Ok(Some(session))
    }

    /// Hands on events and runs commands until the session's first error.
    async fn serve(&mut self, mut session: Session) {
        self.due = Some(Event::Reconnected { session: self.session });
        loop {
            let room = self.events.clone();
            tokio::select! {
                permit = room.reserve(), if self.due.is_some() => {
                    let Ok(permit) = permit else { break };
                    if let Some(event) = self.due.take() {
                        permit.send(event);
                    }
                }
                payload = session.payload() => match payload {
                    Some(queue) => self.hand_on(queue, session.take_overflow()),
                    None => break,
                },
                command = self.commands.recv() => {
                    let Some(command) = command else { break };
                    let answered = timeout(ANSWER_PATIENCE, self.execute(&session, command));
                    if !matches!(answered.await, Ok(Ok(()))) {
                        break;
                    }
                }
            }
        }
        self.mode.send_replace(Mode::Connecting);
        debug!(session = self.session, "the listener's session has ended");
    }

    fn hand_on(&mut self, queue: String, overflow: bool) {
        // What is due already says all that this would.
        if self.due.is_none() && (overflow || self.events.try_send(Event::Wake(queue)).is_err()) {
            self.due = Some(Event::Missed);
        }
    }

    /// Runs one command; an error is its caller's, and the end of the session.
    async fn execute(&self, session: &Session, command: Command) -> Result<(), ()> {
        let number = self.session;
        match command {
            Command::Watch { queues, reply } => {
                let answer = session.watch(&queues).await;
                let answer = answer.map(|snapshot| Watch { snapshot, session: number });
                respond(reply, answer)
            }
            Command::Settled { watch, reply } if watch.session != number => {
                // The caller's mistake of timing, not an error of this session.
                let _ = reply.send(Err(Error::unavailable("the watch's session has ended")));
                Ok(())
            }
            Command::Settled { watch, reply } => {
                respond(reply, session.settled(&watch.snapshot).await)
            }
            Command::Unwatch { queues, reply } => respond(reply, session.unwatch(&queues).await),
        }
    }

    /// Waits between sessions, refusing commands at once.
    async fn rest(&mut self, pause: Duration) {
        let refuse = async {
            while let Some(command) = self.commands.recv().await {
                command.refuse();
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = refuse => {}
            () = self.events.closed() => {}
        }
    }
}

impl Command {
    fn refuse(self) {
        let error = || Error::unavailable("the listener has no session");
        // Whoever has stopped waiting does not need the answer.
        match self {
            Command::Watch { reply, .. } => drop(reply.send(Err(error()))),
            Command::Settled { reply, .. } => drop(reply.send(Err(error()))),
            Command::Unwatch { reply, .. } => drop(reply.send(Err(error()))),
        }
    }
}

fn respond<T>(
    reply: tokio::sync::oneshot::Sender<Result<T, Error>>,
    answer: Result<T, Error>,
) -> Result<(), ()> {
    let ended = answer.is_err();
    // A caller who went away leaves its watch standing: at worst somebody notifies in vain.
    let _ = reply.send(answer);
    if ended { Err(()) } else { Ok(()) }
}
