//! Sleepers: they come, look, wait, find and go.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Sleeper, State, Turn};

impl State {
    pub(in crate::engine::wakeups) fn register(
        &mut self,
        queues: &[String],
        kinds: Option<&[String]>,
    ) -> (u64, Arc<Notify>) {
        self.last_id += 1;
        let mut queues: Vec<String> = queues.iter().filter(|name| is_name(name)).cloned().collect();
        queues.sort_unstable();
        queues.dedup();
        let kinds = kinds.map(|kinds| {
            let mut kinds = kinds.to_vec();
            kinds.sort_unstable();
            kinds
        });
        let notify = Arc::<Notify>::default();
        let sleeper = Sleeper {
            queues,
            kinds,
            notify: notify.clone(),
            listed: false,
            waiting: false,
            due: false,
            owes: false,
            woken_by: None,
            seen: self.clock,
        };
        self.sleepers.insert(self.last_id, sleeper);
        (self.last_id, notify)
    }

    /// A look was empty, and its sleeper is about to wait.
    pub(in crate::engine::wakeups) fn found_nothing(&mut self, id: u64, now: Instant) {
        let Some(sleeper) = self.sleepers.get_mut(&id) else { return };
        if let Some(queue) = sleeper.woken_by.take().and_then(|name| self.queues.get_mut(&name)) {
            self.concern |= queue.count_empty(now);
        }
        sleeper.owes = false;
        if !std::mem::replace(&mut sleeper.listed, true) {
            for name in &sleeper.queues {
                let queue = self.queues.entry(name.clone()).or_default();
                queue.sleepers.push_back(id);
                queue.idle_since = None;
                self.concern |= queue.watched.is_none();
                // It was not in the list, so this wake-up went past it.
                sleeper.due |= sleeper.seen < queue.last_wake;
            }
        }
        sleeper.waiting = true;
    }

    /// What a waiting sleeper is to do.
    pub(in crate::engine::wakeups) fn turn(&mut self, id: u64) -> Turn {
        let clock = self.clock;
        let Some(sleeper) = self.sleepers.get_mut(&id) else { return Turn::Look };
        let mut settled = true;
        let mut due = sleeper.due;
        for queue in sleeper.queues.iter().filter_map(|name| self.queues.get(name)) {
            settled &= queue.watched.is_none_or(|watched| watched.settled);
            due |= sleeper.seen < queue.look_after;
        }
        if due {
            sleeper.begin_look(clock);
            return Turn::Look;
        }
        Turn::Rest { settled }
    }

    /// A sleeper looks without having been woken.
    pub(in crate::engine::wakeups) fn looks(&mut self, id: u64) {
        let clock = self.clock;
        if let Some(sleeper) = self.sleepers.get_mut(&id) {
            sleeper.begin_look(clock);
        }
    }

    /// A wait was over or given up; a wake-up that it did not act on is another's.
    pub(in crate::engine::wakeups) fn wait_ended(&mut self, id: u64) {
        let Some(sleeper) = self.sleepers.get_mut(&id) else { return };
        sleeper.waiting = false;
        if sleeper.due {
            self.pass_on(id);
        }
    }

    pub(in crate::engine::wakeups) fn found(&mut self, id: u64, full: bool, now: Instant) {
        let Some(sleeper) = self.sleepers.get_mut(&id) else { return };
        sleeper.woken_by = None;
        sleeper.owes = false;
        let due = std::mem::take(&mut sleeper.due);
        sleeper.seen = self.clock;
        self.delist(id, now);
        if full || due {
            self.pass_on(id);
        }
    }

    pub(in crate::engine::wakeups) fn remove(&mut self, id: u64, now: Instant) {
        self.delist(id, now);
        let unused = self.sleepers.get(&id).is_some_and(|sleeper| sleeper.due || sleeper.owes);
        if unused {
            self.pass_on(id);
        }
        self.sleepers.remove(&id);
    }

    fn delist(&mut self, id: u64, now: Instant) {
        let Some(sleeper) = self.sleepers.get_mut(&id) else { return };
        if !std::mem::take(&mut sleeper.listed) {
            return;
        }
        for name in &sleeper.queues {
            let Some(queue) = self.queues.get_mut(name) else { continue };
            queue.sleepers.retain(|other| *other != id);
            if queue.sleepers.is_empty() {
                queue.idle_since = Some(now);
                self.concern = true;
            }
            // Without a listener nobody plans, and names would pile up.
            if queue.is_forgotten() {
                self.queues.remove(name);
            }
        }
    }

    /// What this sleeper might have taken may be for another.
    fn pass_on(&mut self, id: u64) {
        let Some(sleeper) = self.sleepers.get_mut(&id) else { return };
        sleeper.due = false;
        sleeper.woken_by = None;
        for name in sleeper.queues.clone() {
            self.wake_others(&name, false, Some(id));
        }
    }
}

/// Whether `watch` would take it: an error there ends the session of everybody.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    name.len() <= 128
        && name.bytes().all(plain)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}
