//! A lane: calls that may share a statement, in the order in which they came. Decisions only.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::room::Place;
use crate::db::Error;

/// What one statement carries at most, beside its verb's number of calls.
const MOST: Weight = Weight { entries: 1_000, bytes: 4 << 20 };

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
    pub(super) reply: Reply<A>,
}

/// The calls of one key.
pub(super) struct Lane<C, A> {
    pub(super) waiting: VecDeque<Waiting<C, A>>,
    /// Whether a driver will come for them.
    pub(super) driven: bool,
}

impl<C, A> Default for Lane<C, A> {
    fn default() -> Self {
        Lane { waiting: VecDeque::new(), driven: false }
    }
}

impl<C, A> Lane<C, A> {
    /// The first calls that fit into one statement. Those whose callers went away are forgotten.
    pub(super) fn take(&mut self, most_calls: usize) -> Vec<Waiting<C, A>> {
        let mut batch: Vec<Waiting<C, A>> = Vec::with_capacity(self.waiting.len().min(most_calls));
        let mut sum = Weight::default();
        while batch.len() < most_calls {
            let Some(next) = self.waiting.pop_front() else { break };
            if next.reply.sender.is_closed() {
                continue;
            }
            sum = sum.and(next.weight);
            if !batch.is_empty() && !sum.fits() {
                self.waiting.push_front(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Callers(Vec<oneshot::Receiver<Result<(), Error>>>);

    impl Callers {
        fn push(&mut self, lane: &mut Lane<u32, ()>, call: u32, weight: Weight) {
            let (sender, receiver) = oneshot::channel();
            self.0.push(receiver);
            let reply = Reply { sender, place: None };
            lane.waiting.push_back(Waiting { call, weight, reply });
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
            callers.push(&mut lane, call, ONE);
        }
        callers.push(&mut lane, 5, Weight { entries: MOST.entries, bytes: 0 });
        callers.push(&mut lane, 6, Weight { entries: 0, bytes: MOST.bytes });
        callers.push(&mut lane, 7, ONE);
        assert_eq!(take(&mut lane, 3), [0, 1, 2]);
        assert_eq!(take(&mut lane, 9), [3, 4]);
        assert_eq!(take(&mut lane, 9), [5, 6]);
        assert_eq!(take(&mut lane, 9), [7]);
        assert!(take(&mut lane, 9).is_empty());
    }

    #[test]
    fn what_is_larger_than_a_statement_goes_alone() {
        let (mut lane, mut callers) = (Lane::default(), Callers(Vec::new()));
        let large = Weight { entries: 1, bytes: 2 * MOST.bytes };
        callers.push(&mut lane, 0, large);
        callers.push(&mut lane, 1, ONE);
        assert_eq!(take(&mut lane, 9), [0]);
        assert_eq!(take(&mut lane, 9), [1]);
    }

    #[test]
    fn a_caller_who_went_away_is_not_sent() {
        let (mut lane, mut callers) = (Lane::default(), Callers(Vec::new()));
        for call in 0..3 {
            callers.push(&mut lane, call, ONE);
        }
        callers.0.remove(1);
        assert_eq!(take(&mut lane, 9), [0, 2]);
    }
}
