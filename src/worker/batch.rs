//! Finishes of one verb, as one call to the database.

use std::time::Duration;

use uuid::Uuid;

use super::ledger::Ledger;
use super::outcome::{Ending, Finish};
use crate::db::{Connection, Error};
use crate::model::{Execution, FinishVerdict};
use crate::store::finish::{Completion, Failure, complete, fail, release};
use crate::store::handler::snooze_for;

/// Executions that end in the same way.
#[derive(Clone)]
pub(super) enum Batch {
    Complete(Vec<Completion>),
    Fail(Vec<Failure>),
    Snooze(Vec<(Execution, Duration)>),
    Release(Vec<Execution>),
}

impl Batch {
    /// Sorts finishes by verb; the batches are not empty.
    pub(super) fn sort(finishes: impl Iterator<Item = Finish>) -> Vec<Batch> {
        let (mut complete, mut fail) = (Vec::new(), Vec::new());
        let (mut snooze, mut release) = (Vec::new(), Vec::new());
        for Finish { execution, ending } in finishes {
            match ending {
                Ending::Complete(result) => complete.push((execution, result)),
                Ending::Fail { error, discard } => fail.push(failure(execution, error, discard)),
                Ending::Snooze(pause) => snooze.push((execution, pause)),
                Ending::Release => release.push(execution),
            }
        }
        let all = [
            Batch::Complete(complete),
            Batch::Fail(fail),
            Batch::Snooze(snooze),
            Batch::Release(release),
        ];
        all.into_iter().filter(|batch| batch.len() != 0).collect()
    }

    /// One failure.
    pub(super) fn failed(execution: Execution, error: impl Into<String>) -> Batch {
        Batch::Fail(vec![failure(execution, error.into(), false)])
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Batch::Complete(entries) => entries.len(),
            Batch::Fail(entries) => entries.len(),
            Batch::Snooze(entries) => entries.len(),
            Batch::Release(entries) => entries.len(),
        }
    }

    /// Takes the second half off.
    pub(super) fn halve(&mut self) -> Batch {
        let half = self.len() / 2;
        match self {
            Batch::Complete(entries) => Batch::Complete(entries.split_off(half)),
            Batch::Fail(entries) => Batch::Fail(entries.split_off(half)),
            Batch::Snooze(entries) => Batch::Snooze(entries.split_off(half)),
            Batch::Release(entries) => Batch::Release(entries.split_off(half)),
        }
    }

    /// Leaves out what is lost: the answer is known.
    pub(super) fn retain_held(&mut self, ledger: &Ledger) {
        let holds = ledger.holding();
        match self {
            Batch::Complete(entries) => entries.retain(|(execution, _)| holds(execution)),
            Batch::Fail(entries) => entries.retain(|entry| holds(&entry.execution)),
            Batch::Snooze(entries) => entries.retain(|(execution, _)| holds(execution)),
            Batch::Release(entries) => entries.retain(|execution| holds(execution)),
        }
    }

    pub(super) fn executions(&self) -> Vec<Execution> {
        match self {
            Batch::Complete(entries) => entries.iter().map(|(execution, _)| *execution).collect(),
            Batch::Fail(entries) => entries.iter().map(|entry| entry.execution).collect(),
            Batch::Snooze(entries) => entries.iter().map(|(execution, _)| *execution).collect(),
            Batch::Release(entries) => entries.clone(),
        }
    }

    /// Tells the database; one verdict an entry.
    pub(super) async fn say(
        &self,
        connection: &Connection,
        worker: Uuid,
    ) -> Result<Vec<FinishVerdict>, Error> {
        match self {
            Batch::Complete(entries) => complete(connection, worker, entries).await,
            Batch::Fail(entries) => fail(connection, worker, entries).await,
            Batch::Snooze(entries) => snooze_for(connection, worker, entries).await,
            Batch::Release(entries) => release(connection, worker, entries).await,
        }
    }
}

fn failure(execution: Execution, error: String, discard: bool) -> Failure {
    Failure { execution, error: Some(error), retry_at: None, discard }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Token;

    fn finish(job: u128, ending: Ending) -> Finish {
        let (job_id, token) = (Uuid::from_u128(job), Token::new(Uuid::nil()));
        Finish { execution: Execution { job_id, attempt: 1, token }, ending }
    }

    #[test]
    fn finishes_travel_by_verb_and_in_order() {
        let finishes = [
            finish(1, Ending::Release),
            finish(2, Ending::Complete(None)),
            finish(3, Ending::Release),
        ];
        let mut batches = Batch::sort(finishes.into_iter());
        assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [1, 2]);
        let second = batches[1].halve();
        assert_eq!((batches[1].len(), second.len()), (1, 1));
        assert_eq!(second.executions()[0].job_id, Uuid::from_u128(3));
    }
}
