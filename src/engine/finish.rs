//! The ends of executions, in batches of which no entry harms another.
//!
//! A statement waits for locks as long as `lock_timeout` says. If that is not enough, the batch is
//! halved until the entry that others hold is alone; that one is repeated while its lease lives.

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{CONFLICT_TRIES, Engine, Error, Recovery, measure};
use crate::db::Connection;
use crate::model::{Code, Execution, FinishVerdict};
use crate::store::finish::{self, Completion, Failure, Snooze};

impl Engine {
    /// Ends executions well; one verdict an entry, in input order. A result that no column can
    /// hold is answered as one that is too large.
    ///
    /// # Errors
    ///
    /// By class. Entries may have been finished by then; repeating the call is harmless.
    pub async fn complete(
        &self,
        worker: Uuid,
        entries: Vec<Completion>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        self.finish(worker, entries).await
    }

    /// Ends executions badly: their jobs run again, or are discarded.
    ///
    /// # Errors
    ///
    /// As [`Engine::complete`], and [`Error::Refused`] for a time that is out of range.
    pub async fn fail(
        &self,
        worker: Uuid,
        entries: Vec<Failure>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        self.finish(worker, entries).await
    }

    /// Puts executions off to a later time, which does not count as an attempt.
    ///
    /// # Errors
    ///
    /// As [`Engine::complete`], and [`Error::Refused`] for a time that is out of range.
    pub async fn snooze(
        &self,
        worker: Uuid,
        entries: Vec<Snooze>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        self.finish(worker, entries).await
    }

    /// Gives executions back unharmed; their jobs are ready at once.
    ///
    /// # Errors
    ///
    /// As [`Engine::complete`].
    pub async fn release(
        &self,
        worker: Uuid,
        entries: Vec<Execution>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        self.finish(worker, entries).await
    }

    async fn finish<E: Entry>(
        &self,
        worker: Uuid,
        entries: Vec<E>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        let began = Instant::now();
        let answer = self.finish_in_parts(worker, entries).await;
        measure::finish(E::VERB, began, answer.as_deref().ok());
        answer
    }

    async fn finish_in_parts<E: Entry>(
        &self,
        worker: Uuid,
        entries: Vec<E>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        let mut verdicts = vec![None; entries.len()];
        let mut parts = Parts::new(entries.len(), self.settings().lease);
        while let Some(part) = parts.next() {
            let connection = self.connection().await?;
            let outcome = E::finish(&connection, worker, &entries[part.clone()]).await;
            drop(connection);
            match outcome {
                Ok(found) => {
                    for (place, verdict) in part.zip(found) {
                        verdicts[place] = Some(verdict);
                    }
                }
                Err(error) if E::is_unstorable(&error) && part.len() == 1 => {
                    verdicts[part.start] = Some(FinishVerdict::ResultTooLarge);
                }
                Err(error) => parts.again(part, error, E::is_unstorable).await?,
            }
        }
        let missing = || Error::Other("fewer verdicts came than entries were sent".into());
        verdicts.into_iter().map(|verdict| verdict.ok_or_else(missing)).collect()
    }
}

/// What a finishing verb takes.
trait Entry: Sized + Send + Sync {
    /// The verb's name, for the figures.
    const VERB: &'static str;

    /// Runs the verb on entries.
    fn finish(
        connection: &Connection,
        worker: Uuid,
        entries: &[Self],
    ) -> impl Future<Output = Result<Vec<FinishVerdict>, Error>> + Send;

    /// Whether the error is one entry's own fault, whose neighbours must not suffer.
    fn is_unstorable(_error: &Error) -> bool {
        false
    }
}

impl Entry for Completion {
    const VERB: &'static str = "complete";

    fn finish(
        connection: &Connection,
        worker: Uuid,
        entries: &[Self],
    ) -> impl Future<Output = Result<Vec<FinishVerdict>, Error>> + Send {
        finish::complete(connection, worker, entries)
    }

    fn is_unstorable(error: &Error) -> bool {
        error.code() == Some(Code::Invalid)
    }
}

impl Entry for Failure {
    const VERB: &'static str = "fail";

    fn finish(
        connection: &Connection,
        worker: Uuid,
        entries: &[Self],
    ) -> impl Future<Output = Result<Vec<FinishVerdict>, Error>> + Send {
        finish::fail(connection, worker, entries)
    }
}

impl Entry for Snooze {
    const VERB: &'static str = "snooze";

    fn finish(
        connection: &Connection,
        worker: Uuid,
        entries: &[Self],
    ) -> impl Future<Output = Result<Vec<FinishVerdict>, Error>> + Send {
        finish::snooze(connection, worker, entries)
    }
}

impl Entry for Execution {
    const VERB: &'static str = "release";

    fn finish(
        connection: &Connection,
        worker: Uuid,
        entries: &[Self],
    ) -> impl Future<Output = Result<Vec<FinishVerdict>, Error>> + Send {
        finish::release(connection, worker, entries)
    }
}

/// What of a batch is still to be done, in the order of trying.
struct Parts {
    waiting: VecDeque<Range<usize>>,
    end: Instant,
    conflicts: u32,
}

impl Parts {
    fn new(entries: usize, patience: Duration) -> Self {
        let whole = (0 < entries).then_some(0..entries);
        Parts { waiting: whole.into_iter().collect(), end: Instant::now() + patience, conflicts: 0 }
    }

    fn next(&mut self) -> Option<Range<usize>> {
        self.waiting.pop_front()
    }

    /// Takes back a part that failed, if another try may go better.
    async fn again(
        &mut self,
        part: Range<usize>,
        error: Error,
        is_unstorable: fn(&Error) -> bool,
    ) -> Result<(), Error> {
        let divisible = matches!(error, Error::Locked(_)) || is_unstorable(&error);
        if divisible && 1 < part.len() {
            let middle = part.start + part.len() / 2;
            self.waiting.push_front(middle..part.end);
            self.waiting.push_front(part.start..middle);
            return Ok(());
        }
        match error {
            // To the end of the row: the neighbours go first.
            Error::Locked(_) if Instant::now() < self.end => self.waiting.push_back(part),
            Error::Conflict(_) if self.conflicts < CONFLICT_TRIES => {
                self.conflicts += 1;
                self.waiting.push_back(part);
            }
            error => return Err(error),
        }
        if let Recovery::Retry(pause) = error.recovery() {
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
        while let Some(part) = parts.next() {
            if part == (held..held + 1) && done.len() == 7 {
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
    async fn patience_ends_with_the_lease() {
        let mut parts = Parts::new(1, Duration::ZERO);
        let part = parts.next().unwrap();
        let error = parts.again(part, locked(), |_| false).await.unwrap_err();
        assert!(matches!(error, Error::Locked(_)));
    }
}
