//! What this worker holds, which calls are open, and until when its lease can be trusted.
//!
//! # Invariants
//!
//! 1. `seen_call` is the highest number such that calls 1 to it have all been answered or given
//!    up; it is read under the same lock as the list, and an answered call's jobs enter the list
//!    under that lock too. So a heartbeat never gives back what an answer has just brought.
//! 2. A job leaves the list only when its finish was answered, or when it is lost.
//! 3. Time is this process's monotonic clock, counted from when a request was *sent*: the lease
//!    in the database ends later than the one here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use uuid::Uuid;

use super::stop::{StopReason, StopSignal};
use crate::model::Execution;

/// An execution that this worker answers for.
#[derive(Debug)]
struct Held {
    execution: Execution,
    signal: StopSignal,
    /// Its handler has ended and its finish is under way: too late to stop it.
    finishing: bool,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<(Uuid, i32), Held>,
    last_call: i64,
    open_calls: BTreeSet<i64>,
    trusted_until: Option<Instant>,
}

/// The list of one worker; see the module.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<State>);

/// What a heartbeat sends.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) executions: Vec<Execution>,
    pub(super) seen_call: i64,
}

impl Ledger {
    /// Begins an acquire; the number goes with it. Dropping it unanswered gives the call up.
    pub(super) fn begin_call(&self) -> Call<'_> {
        let mut state = self.lock();
        state.last_call += 1;
        let number = state.last_call;
        state.open_calls.insert(number);
        Call { ledger: self, number }
    }

    /// The list, and up to which call it is complete.
    pub(super) fn snapshot(&self) -> Snapshot {
        let state = self.lock();
        let seen_call = state.open_calls.first().map_or(state.last_call, |open| open - 1);
        Snapshot { executions: state.held.values().map(|held| held.execution).collect(), seen_call }
    }

    /// The handler has ended; false when the execution is lost and its finish would be refused.
    pub(super) fn finishing(&self, execution: &Execution) -> bool {
        let mut state = self.lock();
        let held = state.held.get_mut(&key(execution));
        held.is_some_and(|held| {
            held.finishing = true;
            held.execution.token == execution.token
        })
    }

    /// Whether an execution is still this worker's, as far as is known here. Holds the lock.
    pub(super) fn holding(&self) -> impl Fn(&Execution) -> bool {
        let state = self.lock();
        move |execution| state.held.contains_key(&key(execution))
    }

    /// These finishes were answered.
    pub(super) fn finished(&self, executions: &[Execution]) {
        let mut state = self.lock();
        for execution in executions {
            state.held.remove(&key(execution));
        }
    }

    /// Asks one handler to stop; a lost execution leaves the list. Says whether that was news.
    pub(super) fn stop(&self, execution: &Execution, reason: StopReason) -> bool {
        let mut state = self.lock();
        let Some(held) = state.held.get(&key(execution)).filter(|held| !held.finishing) else {
            return false;
        };
        let news = held.signal.stop(reason);
        if reason == StopReason::Lost {
            state.held.remove(&key(execution));
        }
        news
    }

    /// Asks every handler to stop.
    pub(super) fn stop_all(&self, reason: StopReason) {
        for held in self.lock().held.values() {
            held.signal.stop(reason);
        }
    }

    /// The lease stands until then at least.
    pub(super) fn trust_until(&self, until: Instant) {
        let mut state = self.lock();
        state.trusted_until = state.trusted_until.max(Some(until));
    }

    /// When the lease ends, as far as is known here.
    pub(super) fn trusted_until(&self) -> Option<Instant> {
        self.lock().trusted_until
    }

    /// If the lease has ended by `now`: stops everything and empties the list. Says how many.
    pub(super) fn expire(&self, now: Instant) -> usize {
        let mut state = self.lock();
        if state.trusted_until.is_none_or(|until| now < until) {
            return 0;
        }
        let lost = std::mem::take(&mut state.held);
        for held in lost.values() {
            held.signal.stop(StopReason::Lost);
        }
        lost.len()
    }

    /// How many executions are held.
    pub(super) fn len(&self) -> usize {
        self.lock().held.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(execution: &Execution) -> (Uuid, i32) {
    (execution.job_id, execution.attempt)
}

/// An acquire under way.
#[derive(Debug)]
pub(super) struct Call<'a> {
    ledger: &'a Ledger,
    number: i64,
}

impl Call<'_> {
    pub(super) fn number(&self) -> i64 {
        self.number
    }

    /// The answer is here: its executions enter the list as the call leaves the open ones.
    pub(super) fn answered(self, executions: impl Iterator<Item = Execution>) -> Vec<StopSignal> {
        let mut state = self.ledger.lock();
        let enter = |execution: Execution| {
            let signal = StopSignal::default();
            let held = Held { execution, signal: signal.clone(), finishing: false };
            state.held.insert(key(&execution), held);
            signal
        };
        executions.map(enter).collect()
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.ledger.lock().open_calls.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Token;

    fn execution(job: u128) -> Execution {
        let job_id = Uuid::from_u128(job);
        Execution { job_id, attempt: 1, token: Token::new(Uuid::from_u128(job + 1000)) }
    }

    #[test]
    fn seen_is_below_the_first_open_call() {
        let ledger = Ledger::default();
        assert_eq!(ledger.snapshot().seen_call, 0);
        let (first, second) = (ledger.begin_call(), ledger.begin_call());
        assert_eq!((first.number(), second.number()), (1, 2));
        second.answered([execution(7)].into_iter());
        let snapshot = ledger.snapshot();
        assert_eq!((snapshot.seen_call, snapshot.executions.len()), (0, 1));
        drop(first);
        assert_eq!(ledger.snapshot().seen_call, 2);
        let third = ledger.begin_call();
        assert_eq!(ledger.snapshot().seen_call, 2);
        third.answered(std::iter::empty());
        assert_eq!(ledger.snapshot().seen_call, 3);
    }

    #[test]
    fn a_job_stays_until_its_finish_is_answered() {
        let ledger = Ledger::default();
        ledger.begin_call().answered([execution(1)].into_iter());
        assert!(ledger.finishing(&execution(1)));
        assert_eq!(ledger.len(), 1);
        // A heartbeat that crossed the finish says lost; the finish's own answer decides.
        assert!(!ledger.stop(&execution(1), StopReason::Lost));
        assert!(ledger.holding()(&execution(1)));
        ledger.finished(&[execution(1)]);
        assert_eq!(ledger.len(), 0);
        assert!(!ledger.finishing(&execution(1)));
    }

    #[test]
    fn what_is_lost_stops_and_leaves() {
        let ledger = Ledger::default();
        let signals = ledger.begin_call().answered([execution(1), execution(2)].into_iter());
        assert!(ledger.stop(&execution(1), StopReason::Lost));
        assert_eq!(signals[0].reason(), Some(StopReason::Lost));
        assert!(ledger.stop(&execution(2), StopReason::Cancelled));
        assert!(!ledger.stop(&execution(2), StopReason::Cancelled));
        assert_eq!(ledger.snapshot().executions, [execution(2)]);
    }

    #[test]
    fn a_lease_that_ended_here_stops_everything() {
        let ledger = Ledger::default();
        let signals = ledger.begin_call().answered([execution(1)].into_iter());
        let now = Instant::now();
        assert_eq!(ledger.expire(now), 0);
        ledger.trust_until(now + Duration::from_secs(10));
        ledger.trust_until(now + Duration::from_secs(5));
        assert_eq!(ledger.expire(now + Duration::from_secs(9)), 0);
        assert_eq!(ledger.expire(now + Duration::from_secs(10)), 1);
        assert_eq!(signals[0].reason(), Some(StopReason::Lost));
        assert_eq!(ledger.len(), 0);
    }
}
