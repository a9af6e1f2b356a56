//! A lane: calls that may share a statement, in the order in which they came. Decisions only.

use std::collections::{HashSet, VecDeque};

use tokio::sync::oneshot;
use uuid::Uuid;

use super::room::Place;
use crate::db::Error;

/// What one statement carries at most, beside its verb's number of calls.
const MOST: Weight = Weight { entries: 1_000, bytes: 4 << 20 };

/// How many calls a statement may leave behind for their marks before it is sent as it is.
const MOST_PASSED: usize = 1_000;

/// What a call adds to a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct Weight {
    /// Jobs or executions.
    pub(in crate::engine) entries: usize,
    /// Memory, roughly.
    pub(in crate::engine) bytes: usize,
}

impl Weight {
    fn and(self, other: Weight) -> Weight {
        Weight { entries: self.entries + other.entries, bytes: self.bytes + other.bytes }
    }

    fn fits(self) -> bool {
        self.entries <= MOST.entries && self.bytes <= MOST.bytes
    }
}

/// Where the answer to a call goes, and the call's place in the room until then.
pub(super) struct Reply<A> {
    pub(super) sender: oneshot::Sender<Result<A, Error>>,
    pub(super) place: Option<Place>,
}

impl<A> Reply<A> {
    /// Gives the answer, and gives it back where the caller went away.
    pub(super) fn send(self, answer: Result<A, Error>) -> Result<(), Result<A, Error>> {
        drop(self.place);
        self.sender.send(answer)
    }
}

/// A call that waits for a statement.
pub(super) struct Waiting<C, A> {
    pub(super) call: C,
    pub(super) weight: Weight,
    pub(super) mark: Option<Uuid>,
    pub(super) reply: Reply<A>,
}

/// The calls of one key, and who sends them.
pub(super) struct Lane<C, A> {
    pub(super) waiting: VecDeque<Waiting<C, A>>,
    /// Drivers whose statements are waited for.
    pub(super) drivers: usize,
    /// Those whose statements take long, and which others no longer wait for.
    pub(super) slow: usize,
}

impl<C, A> Default for Lane<C, A> {
    fn default() -> Self {
        Lane { waiting: VecDeque::new(), drivers: 0, slow: 0 }
    }
}

impl<C, A> Lane<C, A> {
    /// The first calls that fit into one statement, each mark once. Those whose callers went away
    /// are forgotten; those left behind stay first.
    pub(super) fn take(&mut self, most_calls: usize) -> Vec<Waiting<C, A>> {
        let mut batch: Vec<Waiting<C, A>> = Vec::with_capacity(self.waiting.len().min(most_calls));
        let mut sum = Weight::default();
        let mut marks = HashSet::new();
        let mut passed = Vec::new();
        while batch.len() < most_calls && passed.len() < MOST_PASSED {
            let Some(next) = self.waiting.pop_front() else { break };
            if next.reply.sender.is_closed() {
                continue;
            }
            let total = sum.and(next.weight);
            if !batch.is_empty() && !total.fits() {
                self.waiting.push_front(next);
                break;
            }
            if next.mark.is_some_and(|mark| !marks.insert(mark)) {
                passed.push(next);
                continue;
            }
            sum = total;
            batch.push(next);
        }
        while let Some(call) = passed.pop() {
            self.waiting.push_front(call);
        }
        batch
    }

    /// Whether there is nothing to remember it for.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.drivers == 0 && self.slow == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Callers(Vec<oneshot::Receiver<Result<(), Error>>>);

    impl Callers {
        fn push(
            &mut self,
            lane: &mut Lane<u32, ()>,
            call: u32,
            weight: Weight,
            mark: Option<u128>,
        ) {
            let (sender, receiver) = oneshot::channel();
            self.0.push(receiver);
            let reply = Reply { sender, place: None };
            lane.waiting.push_back(Waiting {
                call,
                weight,
                mark: mark.map(Uuid::from_u128),
                reply,
            });
        }
    }

    fn take(lane: &mut Lane<u32, ()>, most: usize) -> Vec<u32> {
        lane.take(most).into_iter().map(|waiting| waiting.call).collect()
    }

    const ONE: Weight = Weight { entries: 1, bytes: 100 };

    #[test]
    fn a_statement_is_bounded_by_calls_entries_and_bytes() {
        let (mut lane, mut callers) = (Lane::default(), Callers(Vec::new()));
        for call in 0..5 {
            callers.push(&mut lane, call, ONE, None);
        }
        callers.push(&mut lane, 5, Weight { entries: MOST.entries, bytes: 0 }, None);
        callers.push(&mut lane, 6, Weight { entries: 0, bytes: MOST.bytes }, None);
        callers.push(&mut lane, 7, ONE, None);
        assert_eq!(take(&mut lane, 3), [0, 1, 2]);
        assert_eq!(take(&mut lane, 9), [3, 4]);
        assert_eq!(take(&mut lane, 9), [5, 6]);
        assert_eq!(take(&mut lane, 9), [7]);
        assert!(take(&mut lane, 9).is_empty() && lane.is_over());
    }

    #[test]
    fn what_is_larger_than_a_statement_goes_alone() {
        let (mut lane, mut callers) = (Lane::default(), Callers(Vec::new()));
        let large = Weight { entries: 1, bytes: 2 * MOST.bytes };
        callers.push(&mut lane, 0, large, None);
        callers.push(&mut lane, 1, ONE, None);
        assert_eq!(take(&mut lane, 9), [0]);
        assert_eq!(take(&mut lane, 9), [1]);
    }

    #[test]
    fn a_mark_travels_once_and_what_stays_behind_is_first() {
        let (mut lane, mut callers) = (Lane::default(), Callers(Vec::new()));
        for (call, mark) in [(0, 7), (1, 7), (2, 8), (3, 7), (4, 9)] {
            callers.push(&mut lane, call, ONE, Some(mark));
        }
        assert_eq!(take(&mut lane, 9), [0, 2, 4]);
        callers.push(&mut lane, 5, ONE, Some(8));
        assert_eq!(take(&mut lane, 9), [1, 5]);
        assert_eq!(take(&mut lane, 9), [3]);
    }

    #[test]
    fn a_caller_who_went_away_is_not_sent() {
        let (mut lane, mut callers) = (Lane::default(), Callers(Vec::new()));
        for call in 0..3 {
            callers.push(&mut lane, call, ONE, None);
        }
        callers.0.remove(1);
        assert_eq!(take(&mut lane, 9), [0, 2]);
    }
}
