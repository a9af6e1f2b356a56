//! The task behind the sleepers: events in, watches out, and the wait until these are settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::Shared;
use super::state::{Plan, Watched};
use crate::db::listen::{Event, Listener, Watch};
use crate::db::{Error, Pool};
use crate::store;

/// The pauses between two questions whether a watch is settled.
const FIRST_SETTLE_PAUSE: Duration = Duration::from_millis(2);
const LAST_SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait for a connection.
const LOAN_PATIENCE: Duration = Duration::from_millis(50);

pub(super) struct Task {
    shared: Arc<Shared>,
    listener: Listener,
    events: mpsc::Receiver<Event>,
    pool: Pool,
    /// Whether there is a session to watch with.
    connected: bool,
    /// Watches that are not settled, the oldest first.
    unsettled: VecDeque<(u64, Watch)>,
    groups: u64,
    settle_pause: Duration,
    settle_at: Instant,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        listener: Listener,
        events: mpsc::Receiver<Event>,
        pool: Pool,
    ) -> Self {
        Task {
            shared,
            listener,
            events,
            pool,
            connected: false,
            unsettled: VecDeque::new(),
            groups: 0,
            settle_pause: FIRST_SETTLE_PAUSE,
            settle_at: Instant::now(),
        }
    }

    /// Runs until the listener ends.
    pub(super) async fn run(mut self) {
        loop {
            let again_at = self.act().await;
            let shared = self.shared.clone();
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = shared.changed.notified() => {}
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Wake(queue) => {
                metrics::counter!("rowlock_wakeups_total").increment(1);
                self.shared.lock().wake(&queue);
            }
            Event::Missed => self.shared.lock().missed(),
            Event::Reconnected { session } => {
                self.connected = true;
                self.unsettled.retain(|(_, watch)| session <= watch.session());
                self.shared.lock().reconnected(session);
            }
        }
    }

    /// Does what is to be done, and says when to come again if nothing happens.
    async fn act(&mut self) -> Option<Instant> {
        if !self.connected {
            return None;
        }
        let plan = self.shared.lock().plan(Instant::now());
        let Plan { watch, unwatch, again_at } = plan;
        if let Err(error) = self.change(watch, unwatch).await {
            debug!("the listener's session is of no use any more: {}", error.chain());
            self.connected = false;
            self.unsettled.clear();
            self.shared.lock().disconnected();
            return None;
        }
        let settle_at = (!self.unsettled.is_empty()).then_some(self.settle_at);
        again_at.into_iter().chain(settle_at).min()
    }

    async fn change(&mut self, watch: Vec<String>, unwatch: Vec<String>) -> Result<(), Error> {
        if !unwatch.is_empty() {
            self.listener.unwatch(unwatch.clone()).await?;
            self.shared.change(|state| state.unwatched(&unwatch));
        }
        let watch = self.without_paused(watch).await;
        if !watch.is_empty() {
            let watching = self.listener.watch(watch.clone()).await?;
            self.groups += 1;
            let settled = self.listener.settled(&watching).await?;
            let watched = Watched { session: watching.session(), group: self.groups, settled };
            self.shared.lock().watched(&watch, watched, Instant::now());
            if !settled {
                self.unsettled.push_back((self.groups, watching));
                self.settle_pause = FIRST_SETTLE_PAUSE;
                self.settle_at = Instant::now() + self.settle_pause;
            }
        }
        if self.settle_at <= Instant::now() {
            self.settle().await?;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Error> {
        while let Some((group, watch)) = self.unsettled.front() {
            if !self.listener.settled(watch).await? {
                break;
            }
            self.shared.lock().settled(*group);
            self.unsettled.pop_front();
        }
        self.settle_pause = LAST_SETTLE_PAUSE.min(self.settle_pause * 2);
        self.settle_at = Instant::now() + self.settle_pause;
        Ok(())
    }

    /// Leaves out the queues that are paused. If that cannot be known, none is.
    async fn without_paused(&self, queues: Vec<String>) -> Vec<String> {
        if queues.is_empty() {
            return queues;
        }
        let asked = async {
            // A pool with nothing to lend must not hold up the wake-ups of other queues.
            let lent = timeout(LOAN_PATIENCE, self.pool.get()).await;
            let connection = lent.unwrap_or(Err(Error::PoolExhausted))?;
            store::operate::paused(&connection, &queues).await
        };
        let paused = asked.await.unwrap_or_else(|error| {
            // A busy pool is no news.
            if !matches!(error, Error::PoolExhausted) {
                warn!("which queues are paused is not known: {}", error.chain());
            }
            Vec::new()
        });
        self.shared.lock().paused(&paused, Instant::now());
        queues.into_iter().filter(|queue| !paused.contains(queue)).collect()
    }
}
