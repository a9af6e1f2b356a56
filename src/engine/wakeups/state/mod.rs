//! Who sleeps, what is watched, and whose turn it is: decisions only, no waiting.

mod news;
mod sleepers;
#[cfg(test)]
mod tests;
mod watches;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// So many empty wake-ups within the window close a queue's watch for a while.
const EMPTY_WAKEUPS: usize = 10;
const EMPTY_WINDOW: Duration = Duration::from_secs(1);
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

#[derive(Default)]
pub(super) struct State {
    /// Grows with everything that makes a look necessary.
    clock: u64,
    last_id: u64,
    /// Whether there may be something to watch or to leave that the task does not know of.
    concern: bool,
    sleepers: HashMap<u64, Sleeper>,
    queues: HashMap<String, Queue>,
}

struct Sleeper {
    queues: Vec<String>,
    kinds: Option<Vec<String>>,
    notify: Arc<Notify>,
    /// In the lists of its queues: it waits, or looks between two waits.
    listed: bool,
    waiting: bool,
    /// A wake-up made it due for a look.
    due: bool,
    /// It looks because of a wake-up, and has not said what it found.
    owes: bool,
    /// The queue whose notification it looks for.
    woken_by: Option<String>,
    /// The clock when its last look began.
    seen: u64,
}

#[derive(Default)]
struct Queue {
    /// Those who wait or look, in the order of their turns.
    sleepers: VecDeque<u64>,
    watched: Option<Watched>,
    /// Looks that began before this clock do not count.
    look_after: u64,
    /// The clock at the last wake-up.
    last_wake: u64,
    /// When the last empty wake-ups were.
    empty: VecDeque<Instant>,
    /// Not watched before this, for want of use.
    closed_until: Option<Instant>,
    /// Paused when last asked, and not asked again before this.
    paused_until: Option<Instant>,
    /// Since when nobody waits or looks.
    idle_since: Option<Instant>,
}

/// A watch in force.
#[derive(Clone, Copy)]
pub(super) struct Watched {
    pub(super) session: u64,
    /// The watches that were asked for together.
    pub(super) group: u64,
    /// Whether everybody who may have missed it has ended.
    pub(super) settled: bool,
}

/// What a waiting sleeper is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Look,
    /// Wait; when not settled, not for long.
    Rest {
        settled: bool,
    },
}

/// What the task is to do now, and when to ask again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) watch: Vec<String>,
    pub(super) unwatch: Vec<String>,
    pub(super) again_at: Option<Instant>,
}

impl Sleeper {
    fn begin_look(&mut self, clock: u64) {
        self.waiting = false;
        self.owes |= std::mem::take(&mut self.due);
        self.seen = clock;
    }
}

impl Queue {
    /// Whether nothing would be lost with it.
    fn is_forgotten(&self) -> bool {
        let has_a_bound = self.closed_until.is_some() || self.paused_until.is_some();
        let is_in_use = self.watched.is_some() || !self.sleepers.is_empty();
        !is_in_use && !has_a_bound && self.empty.is_empty()
    }

    /// Counts an empty wake-up. Whether the queue is closed for that.
    fn count_empty(&mut self, now: Instant) -> bool {
        self.empty.push_back(now);
        while self.empty.front().is_some_and(|at| EMPTY_WINDOW < now.duration_since(*at)) {
            self.empty.pop_front();
        }
        let too_many = EMPTY_WAKEUPS <= self.empty.len();
        if too_many {
            self.empty.clear();
            self.closed_until = Some(now + EMPTY_PAUSE);
        }
        too_many
    }
}
