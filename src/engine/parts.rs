//! A batch in parts: halved where somebody holds one of its entries, until that one is alone.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::known::is_verdict;
use super::{CONFLICT_TRIES, Error, Recovery};

/// How often a batch is said again because no answer came.
const DOUBT_TRIES: u32 = 2;

/// Entries of a batch that are tried in one statement.
pub(super) struct Part {
    pub(super) entries: Range<usize>,
    /// Whether others were seen to hold one of them.
    pub(super) held: bool,
}

/// What of a batch is still to be done, in the order of trying.
pub(super) struct Parts {
    waiting: VecDeque<Part>,
    end: Instant,
    conflicts: u32,
    doubts: u32,
    /// Whether the last try of some part got no answer.
    unknown: bool,
}

impl Parts {
    pub(super) fn new(entries: usize, patience: Duration) -> Self {
        let whole = (0 < entries).then_some(Part { entries: 0..entries, held: false });
        let (waiting, end) = (whole.into_iter().collect(), Instant::now() + patience);
        Parts { waiting, end, conflicts: 0, doubts: 0, unknown: false }
    }

    /// Those of a batch that was tried already, and may have been done.
    pub(super) fn held(entries: usize, patience: Duration, in_doubt: bool) -> Self {
        let mut parts = Parts { unknown: in_doubt, ..Parts::new(entries, patience) };
        parts.waiting.iter_mut().for_each(|part| part.held = true);
        parts
    }

    pub(super) fn next(&mut self) -> Option<Part> {
        self.waiting.pop_front()
    }

    /// The error as it is to be told: after a try without an answer, and beside parts that are done,
    /// nothing is said to have been left undone.
    pub(super) fn told(&self, error: Error, some_are_done: bool) -> Error {
        let is_undone = matches!(error, Error::Unavailable(_) | Error::PoolExhausted);
        if !is_verdict(&error) && self.unknown || is_undone && some_are_done {
            return Error::InDoubt(error.chain().into());
        }
        error
    }

    /// Takes back a part that failed, if another try may go better.
    pub(super) async fn again(
        &mut self,
        part: Range<usize>,
        error: Error,
        is_unstorable: fn(&Error) -> bool,
    ) -> Result<(), Error> {
        let divisible = matches!(error, Error::Locked(_)) || is_unstorable(&error);
        if divisible && 1 < part.len() {
            let middle = part.start + part.len() / 2;
            for half in [middle..part.end, part.start..middle] {
                self.waiting.push_front(Part { entries: half, held: false });
            }
            return Ok(());
        }
        match error {
            // To the end of the row: the neighbours go first.
            Error::Locked(_) if Instant::now() < self.end => {
                self.waiting.push_back(Part { entries: part, held: true });
            }
            Error::Conflict(_) if self.conflicts < CONFLICT_TRIES => {
                self.conflicts += 1;
                self.waiting.push_back(Part { entries: part, held: false });
            }
            // To end an execution twice is harmless.
            Error::InDoubt(_) if self.doubts < DOUBT_TRIES => {
                self.doubts += 1;
                self.unknown = true;
                self.waiting.push_back(Part { entries: part, held: false });
            }
            error => return Err(error),
        }
        if let Recovery::Retry(pause) | Recovery::Repeat(pause) = error.recovery() {
            sleep(pause).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locked() -> Error {
        Error::Locked("".into())
    }

    #[tokio::test]
    async fn a_locked_batch_is_halved_until_the_locked_one_is_alone() {
        let held = 5;
        let mut parts = Parts::new(8, Duration::from_secs(60));
        let mut done = Vec::new();
        let mut tries = 0;
        while let Some(Part { entries: part, held: again }) = parts.next() {
            assert_eq!(again, done.len() == 7);
            if again {
                break;
            }
            tries += 1;
            if part.contains(&held) {
                parts.again(part, locked(), |_| false).await.unwrap();
            } else {
                done.extend(part);
            }
        }
        done.sort_unstable();
        assert_eq!(done, [0, 1, 2, 3, 4, 6, 7]);
        assert!(tries <= 8, "{tries}");
    }

    #[tokio::test]
    async fn what_may_have_been_done_is_not_said_to_be_undone() {
        let away = || Error::Unavailable("".into());
        let mut parts = Parts::new(2, Duration::from_secs(60));
        assert!(matches!(parts.told(away(), false), Error::Unavailable(_)));
        assert!(matches!(parts.told(away(), true), Error::InDoubt(_)));
        assert!(matches!(parts.told(locked(), true), Error::Locked(_)));
        parts.again(0..2, Error::InDoubt("".into()), |_| false).await.unwrap();
        assert!(matches!(parts.told(away(), false), Error::InDoubt(_)));
        assert!(matches!(parts.told(locked(), false), Error::InDoubt(_)));
        let parts = Parts::held(2, Duration::from_secs(60), true);
        assert!(matches!(parts.told(away(), false), Error::InDoubt(_)));
    }

    #[tokio::test]
    async fn neighbours_of_what_is_held_are_not_held_themselves() {
        let mut parts = Parts::held(2, Duration::from_secs(60), false);
        let whole = parts.next().unwrap();
        assert!(whole.held);
        parts.again(whole.entries, locked(), |_| false).await.unwrap();
        while let Some(part) = parts.next() {
            assert!(!part.held && part.entries.len() == 1);
        }
    }

    #[tokio::test]
    async fn patience_ends_with_the_lease() {
        let mut parts = Parts::new(1, Duration::ZERO);
        let part = parts.next().unwrap().entries;
        let error = parts.again(part, locked(), |_| false).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)));
    }
}
