//! Complete: small calls of all workers share statements.

use tokio::time::Instant;
use uuid::Uuid;

use super::coalesce::{Verb, Weight};
use super::finish::Entry;
use super::known::known;
use super::{Engine, Error, measure};
use crate::db::Pool;
use crate::model::FinishVerdict;
use crate::store::finish::{self, Completion};

/// A call of so many entries is as well off with a statement of its own.
const MANY_ENTRIES: usize = 50;

/// So is one of so many bytes.
const MANY_BYTES: usize = 256 << 10;

impl Engine {
    /// Ends executions well; one verdict an entry, in input order. A result that no column can
    /// hold is answered as one that is too large.
    ///
    /// Small calls that are made at the same time share a statement.
    ///
    /// # Errors
    ///
    /// By class. Entries may have been finished by then; repeating the call is harmless.
    /// [`Error::Overloaded`] at once when too many calls wait.
    pub async fn complete(
        &self,
        worker: Uuid,
        entries: Vec<Completion>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        let began = Instant::now();
        let answer = self.complete_with_others(worker, entries).await;
        measure::finish(Completion::VERB, began, answer.as_deref().ok());
        answer
    }

    async fn complete_with_others(
        &self,
        worker: Uuid,
        entries: Vec<Completion>,
    ) -> Result<Vec<FinishVerdict>, Error> {
        let Weight { entries: count, bytes } = Completion::weigh(&entries);
        if (1..MANY_ENTRIES).contains(&count) && bytes < MANY_BYTES {
            match self.inner.complete.call((), (worker, entries)).await? {
                Completed::Answered(verdicts) => Ok(verdicts),
                Completed::Held { entries, doubt } => {
                    let in_doubt = doubt.is_some();
                    let place = self.inner.alone.held.enter(Completion::VERB, bytes);
                    // That there is no room for another try says nothing of the first.
                    let _place = place.map_err(|full| doubt.unwrap_or(full))?;
                    self.inner.finisher.finish_held(worker, &entries, in_doubt).await
                }
            }
        } else {
            let _place = self.inner.alone.work.enter(Completion::VERB, bytes)?;
            self.inner.finisher.finish(worker, &entries).await
        }
    }
}

/// What became of a call that travelled with others.
pub(super) enum Completed {
    /// One verdict an entry.
    Answered(Vec<FinishVerdict>),
    /// Others hold some of its entries, one cannot be stored, or no answer came: the caller goes on
    /// by itself, so that its patience is no burden to those behind it.
    Held {
        entries: Vec<Completion>,
        /// Why nobody knows whether it was done.
        doubt: Option<Error>,
    },
}

/// Complete as a verb that many call at a time.
pub(super) struct Complete(pub(super) Pool);

impl Verb for Complete {
    const NAME: &'static str = Completion::VERB;
    const MOST_CALLS: usize = 1_000;

    type Key = ();
    type Call = (Uuid, Vec<Completion>);
    type Answer = Completed;

    fn weigh((_, entries): &Self::Call) -> Weight {
        Completion::weigh(entries)
    }

    async fn together(&self, calls: &[Self::Call]) -> Result<Vec<Option<Completed>>, Error> {
        let entries: Vec<(Uuid, &Completion)> = calls
            .iter()
            .flat_map(|(worker, entries)| entries.iter().map(|entry| (*worker, entry)))
            .collect();
        let sending = async || finish::complete_batch(&*self.0.get().await?, &entries).await;
        let mut verdicts = known(sending).await?.into_iter();
        let own = |(_, entries): &Self::Call| {
            Some(Completed::Answered(verdicts.by_ref().take(entries.len()).collect()))
        };
        Ok(calls.iter().map(own).collect())
    }

    async fn alone(&self, (worker, entries): &Self::Call) -> Result<Completed, Error> {
        let connection = self.0.get().await?;
        match finish::complete(&connection, *worker, entries).await {
            Err(doubt @ Error::InDoubt(_)) => {
                Ok(Completed::Held { entries: entries.clone(), doubt: Some(doubt) })
            }
            Err(Error::Locked(_) | Error::Conflict(_) | Error::Refused { .. }) => {
                Ok(Completed::Held { entries: entries.clone(), doubt: None })
            }
            answer => answer.map(Completed::Answered),
        }
    }

    fn given_up((_, entries): Self::Call, error: Error) -> Result<Completed, Error> {
        match error {
            Error::Locked(_) => Ok(Completed::Held { entries, doubt: None }),
            error => Err(error),
        }
    }

    fn is_of_some(_: &(), error: &Error) -> bool {
        // One job's cascade may take longer than a statement may.
        let of_some = matches!(error, Error::Locked(_) | Error::Conflict(_) | Error::Timeout(_));
        of_some || error.is_of_content()
    }
}
