//! Watches: which queues are worth one, and which are in force.

use std::time::Duration;

use tokio::time::Instant;

use super::{Plan, State, Watched};

/// How long a queue stays watched when the last of its sleepers has become busy.
const LINGER: Duration = Duration::from_millis(10);

/// How often a paused queue is asked for again.
const PAUSED_RECHECK: Duration = Duration::from_secs(2);

/// What one session may watch; sleepers on further queues poll.
const MOST_WATCHED: usize = 256;

impl State {
    /// Whether the task should ask for a [`Plan`].
    pub(in crate::engine::wakeups) fn take_concern(&mut self) -> bool {
        std::mem::take(&mut self.concern)
    }

    /// What is to be watched and no longer watched at this moment.
    pub(in crate::engine::wakeups) fn plan(&mut self, now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut watched = self.queues.values().filter(|queue| queue.watched.is_some()).count();
        for (name, queue) in &mut self.queues {
            let closed = later(&mut queue.closed_until, now);
            let paused = later(&mut queue.paused_until, now);
            let linger = queue.idle_since.map(|since| since + LINGER);
            let idle = linger.is_some_and(|end| end <= now);
            let mut again_at =
                [closed, paused, linger].into_iter().flatten().filter(|at| now < *at);
            match queue.watched {
                Some(_) if idle || closed.is_some() => plan.unwatch.push(name.clone()),
                None if queue.sleepers.is_empty() || closed.is_some() || paused.is_some() => {}
                None if watched < MOST_WATCHED => {
                    watched += 1;
                    plan.watch.push(name.clone());
                }
                _ => {}
            }
            plan.again_at = plan.again_at.into_iter().chain(again_at.by_ref()).min();
        }
        self.queues.retain(|_, queue| queue.watched.is_some() || !queue.sleepers.is_empty());
        plan
    }

    /// These queues are paused: nobody is to notify.
    pub(in crate::engine::wakeups) fn paused(&mut self, names: &[String], now: Instant) {
        for name in names {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.paused_until = Some(now + PAUSED_RECHECK);
            }
        }
    }

    /// A watch came into force.
    pub(in crate::engine::wakeups) fn watched(
        &mut self,
        names: &[String],
        watched: Watched,
        now: Instant,
    ) {
        for name in names {
            let queue = self.queues.entry(name.clone()).or_default();
            queue.watched = Some(watched);
            // Its sleepers may have left while the watch was asked for.
            let left = queue.sleepers.is_empty() && queue.idle_since.is_none();
            queue.idle_since = left.then_some(now).or(queue.idle_since);
        }
        self.all_look(names);
    }

    /// A watch is settled: whoever did not notify because of it has ended.
    pub(in crate::engine::wakeups) fn settled(&mut self, group: u64) {
        let mut names = Vec::new();
        for (name, queue) in &mut self.queues {
            if let Some(watched) = queue.watched.as_mut().filter(|watched| watched.group == group) {
                watched.settled = true;
                names.push(name.clone());
            }
        }
        self.all_look(&names);
    }

    pub(in crate::engine::wakeups) fn unwatched(&mut self, names: &[String]) {
        for name in names {
            if let Some(queue) = self.queues.get_mut(name) {
                queue.watched = None;
                // Who came while this was under way took the queue for watched.
                self.concern |= !queue.sleepers.is_empty();
            }
        }
    }
}

/// A time that is still to come; one that has come is forgotten.
fn later(time: &mut Option<Instant>, now: Instant) -> Option<Instant> {
    *time = time.filter(|at| now < *at);
    *time
}
