//! News: a wake-up goes to one sleeper for each set of kinds, anything less certain to all.

use std::collections::HashSet;

use super::{Queue, State};

impl State {
    /// There may be something in a queue. While its watch is closed, that is heard no more: anybody
    /// may notify without end, and the next watch makes everybody look.
    pub(in crate::engine::wakeups) fn wake(&mut self, name: &str) {
        let closed = |queue: &Queue| queue.watched.is_none() && queue.closed_until.is_some();
        if !self.queues.get(name).is_some_and(closed) {
            self.wake_others(name, true, None);
        }
    }

    pub(super) fn wake_others(&mut self, name: &str, notified: bool, except: Option<u64>) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        self.clock += 1;
        queue.last_wake = self.clock;
        let mut served: HashSet<&Option<Vec<String>>> = HashSet::new();
        let mut woken = Vec::new();
        for id in queue.sleepers.iter().filter(|id| Some(**id) != except) {
            let Some(sleeper) = self.sleepers.get(id) else { continue };
            if sleeper.waiting && !sleeper.due && served.insert(&sleeper.kinds) {
                woken.push(*id);
            }
        }
        // Where nobody waits, whoever looks at this moment may have begun too early.
        for id in queue.sleepers.iter().filter(|id| Some(**id) != except) {
            let Some(sleeper) = self.sleepers.get(id) else { continue };
            if !sleeper.waiting && !served.contains(&sleeper.kinds) {
                woken.push(*id);
            }
        }
        queue.sleepers.retain(|id| !woken.contains(id));
        queue.sleepers.extend(&woken);
        for id in woken {
            let Some(sleeper) = self.sleepers.get_mut(&id) else { continue };
            sleeper.due = true;
            if sleeper.waiting {
                sleeper.woken_by = notified.then(|| name.to_owned());
                sleeper.notify.notify_one();
            }
        }
    }

    /// News may have been lost: everybody looks.
    pub(in crate::engine::wakeups) fn missed(&mut self) {
        let names: Vec<String> = self.queues.keys().cloned().collect();
        self.all_look(&names);
    }

    /// A session began; what earlier ones watched is not watched any more.
    pub(in crate::engine::wakeups) fn reconnected(&mut self, session: u64) {
        for queue in self.queues.values_mut() {
            queue.watched = queue.watched.filter(|watched| session <= watched.session);
        }
        self.missed();
    }

    /// The session that watched has ended.
    pub(in crate::engine::wakeups) fn disconnected(&mut self) {
        for queue in self.queues.values_mut() {
            queue.watched = None;
        }
    }

    /// Who was paused is worth a watch again, if anybody sleeps there.
    pub(in crate::engine::wakeups) fn resumed(&mut self, name: &str) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.paused_until = None;
            self.concern = true;
            self.all_look(&[name.to_owned()]);
        }
    }

    pub(super) fn all_look(&mut self, names: &[String]) {
        self.clock += 1;
        for name in names {
            let Some(queue) = self.queues.get_mut(name) else { continue };
            queue.look_after = self.clock;
            for sleeper in queue.sleepers.iter().filter_map(|id| self.sleepers.get(id)) {
                sleeper.notify.notify_one();
            }
        }
    }
}
