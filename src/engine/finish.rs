//! The ends of executions, in batches of which no entry harms another.
//!
//! A statement waits for locks as long as `lock_timeout` says. If that is not enough, the batch is
//! halved until the entry that others hold is alone; that one is repeated while its lease lives.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::alone::Alone;
use super::coalesce::Weight;
use super::parts::{Part, Parts};
use super::{Engine, Error, measure};
use crate::db::{Connection, Pool};
use crate::model::{Code, Execution, FinishVerdict};
use crate::store::finish::{self, Completion, Failure, Snooze};

/// What an entry weighs beside its texts.
const BYTES_AN_ENTRY: usize = 100;

impl Engine {
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
        let answer = match self.inner.alone.work.enter(E::VERB, E::weigh(&entries).bytes) {
            Ok(_place) => self.inner.finisher.finish(worker, &entries).await,
            Err(error) => Err(error),
        };
        measure::finish(E::VERB, began, answer.as_deref().ok());
        answer
    }
}

/// Ends executions in as many statements as it takes.
#[derive(Clone)]
pub(super) struct Finisher {
    pool: Pool,
    /// As long as this an entry that others hold is tried again.
    patience: Duration,
    alone: Alone,
}

impl Finisher {
    pub(super) fn new(pool: Pool, alone: Alone, patience: Duration) -> Self {
        Finisher { pool, patience, alone }
    }

    /// One verdict an entry, in input order.
    pub(super) async fn finish<E: Entry>(
        &self,
        worker: Uuid,
        entries: &[E],
    ) -> Result<Vec<FinishVerdict>, Error> {
        self.finish_parts(worker, entries, Parts::new(entries.len(), self.patience)).await
    }

    /// The same for entries of which others were seen to hold some, or of which nobody knows what
    /// the first try did.
    pub(super) async fn finish_held<E: Entry>(
        &self,
        worker: Uuid,
        entries: &[E],
        in_doubt: bool,
    ) -> Result<Vec<FinishVerdict>, Error> {
        let parts = Parts::held(entries.len(), self.patience, in_doubt);
        self.finish_parts(worker, entries, parts).await
    }

    async fn finish_parts<E: Entry>(
        &self,
        worker: Uuid,
        entries: &[E],
        mut parts: Parts,
    ) -> Result<Vec<FinishVerdict>, Error> {
        let mut verdicts = vec![None; entries.len()];
        if let Err(error) = self.try_parts(worker, entries, &mut parts, &mut verdicts).await {
            return Err(parts.told(error, verdicts.iter().any(Option::is_some)));
        }
        let missing = || Error::Other("fewer verdicts came than entries were sent".into());
        verdicts.into_iter().map(|verdict| verdict.ok_or_else(missing)).collect()
    }

    async fn try_parts<E: Entry>(
        &self,
        worker: Uuid,
        entries: &[E],
        parts: &mut Parts,
        verdicts: &mut [Option<FinishVerdict>],
    ) -> Result<(), Error> {
        while let Some(Part { entries: part, held }) = parts.next() {
            let line = if held { &self.alone.held } else { &self.alone.work };
            let turn = line.turn().await?;
            let connection = self.pool.get().await?;
            let outcome = E::finish(&connection, worker, &entries[part.clone()]).await;
            drop((connection, turn));
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
        Ok(())
    }
}

/// What a finishing verb takes.
pub(super) trait Entry: Sized + Send + Sync {
    /// The verb's name, for the figures.
    const VERB: &'static str;

    /// What entries add to a statement.
    fn weigh(entries: &[Self]) -> Weight {
        Weight { entries: entries.len(), bytes: entries.len() * BYTES_AN_ENTRY }
    }

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

    fn weigh(entries: &[Self]) -> Weight {
        let results = entries.iter().filter_map(|(_, result)| result.as_ref());
        let bytes = results.map(|result| result.get().len()).sum::<usize>();
        Weight { entries: entries.len(), bytes: entries.len() * BYTES_AN_ENTRY + bytes }
    }

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

    fn weigh(entries: &[Self]) -> Weight {
        let errors = entries.iter().filter_map(|entry| entry.error.as_ref());
        let bytes = errors.map(String::len).sum::<usize>();
        Weight { entries: entries.len(), bytes: entries.len() * BYTES_AN_ENTRY + bytes }
    }

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
