//! Telling the database how executions ended: in batches, and again while the lease lives.
//!
//! What ends while nothing is on its way goes at once; what ends meanwhile goes together when the
//! answer is here, or as a second call when it is many. An entry that holds others up is found by
//! halving its batch and goes on alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::batch::Batch;
use super::core::Core;
use super::outcome::Finish;
use super::pause::Pause;
use crate::db::{Error, Recovery};
use crate::model::FinishVerdict;
use crate::telemetry::field;

/// The most that travels in one call; larger batches are slower again.
const MOST: usize = 500;
/// So many are worth a second call while one is under way.
const MANY: usize = 200;
/// Calls under way; more would only contend.
const MOST_CALLS: usize = 2;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Works until every sender is gone and everything has been answered or is lost.
pub(super) async fn run(core: Arc<Core>, mut finishes: mpsc::Receiver<Finish>) {
    let stragglers = TaskTracker::new();
    let mut calls = FuturesUnordered::new();
    let mut taken = Vec::with_capacity(MOST);
    let mut open = true;
    loop {
        let least = if calls.is_empty() { 1 } else { MANY };
        if least <= taken.len() && calls.len() < MOST_CALLS {
            for batch in Batch::sort(taken.drain(..)) {
                calls.push(settle(&core, batch, Some(&stragglers)));
            }
        }
        let room = MOST - taken.len();
        tokio::select! {
            count = finishes.recv_many(&mut taken, room), if open && 0 < room => {
                open = 0 < count;
                if calls.is_empty() {
                    // What is ready to end gets to hand its finish over.
                    tokio::task::yield_now().await;
                    while taken.len() < MOST && let Ok(finish) = finishes.try_recv() {
                        taken.push(finish);
                    }
                }
            }
            Some(()) = calls.next() => {}
            else => break,
        }
    }
    drop(calls);
    stragglers.close();
    stragglers.wait().await;
}

/// Sees a batch through. What is locked goes on among the stragglers, if there may be some.
async fn settle(core: &Arc<Core>, batch: Batch, stragglers: Option<&TaskTracker>) {
    let mut batches = VecDeque::from([batch]);
    let mut pause = Pause::new(LONGEST_PAUSE);
    while let Some(mut batch) = batches.pop_front() {
        batch.retain_held(&core.ledger);
        if batch.len() == 0 {
            continue;
        }
        let error = match say(core, &batch).await {
            Ok(verdicts) => {
                pause.reset();
                batches.extend(heard(core, &batch, &verdicts));
                continue;
            }
            Err(error) => error,
        };
        let passing = is_passing(&error);
        if 1 < batch.len() && !is_away(&error) {
            batches.push_front(batch.halve());
            batches.push_front(batch);
        } else if !passing {
            batches.extend(refused(core, &batch, &error));
        } else if let (Error::Locked(_), Some(tracker)) = (&error, stragglers) {
            let core = core.clone();
            tracker.spawn(settle_alone(core, batch));
        } else {
            let count = batch.len();
            debug!({ field::BATCH_SIZE } = count, "finish failed, again soon: {}", error.chain());
            tokio::time::sleep(pause.next()).await;
            batches.push_front(batch);
        }
    }
}

/// Boxed, since `settle` starts it and it is a `settle` again.
fn settle_alone(core: Arc<Core>, batch: Batch) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move { settle(&core, batch, None).await })
}

async fn say(core: &Core, batch: &Batch) -> Result<Vec<FinishVerdict>, Error> {
    let connection = core.engine.pool().get().await?;
    batch.say(&connection, core.id).await
}

/// Strikes off what was answered; gives what is still to be said.
fn heard(core: &Core, batch: &Batch, verdicts: &[FinishVerdict]) -> Vec<Batch> {
    let (mut again, mut done) = (Vec::new(), Vec::with_capacity(batch.len()));
    for (execution, verdict) in batch.executions().into_iter().zip(verdicts) {
        let id = execution.job_id;
        match verdict {
            FinishVerdict::ResultTooLarge => {
                again.push(Batch::failed(execution, "the result is too large"));
                continue;
            }
            FinishVerdict::Stale => {
                warn!({ field::JOB_ID } = %id, "the finish was refused: it is another's job now");
            }
            _ => debug!({ field::JOB_ID } = %id, verdict = verdict.as_str(), "finished"),
        }
        done.push(execution);
    }
    core.ledger.finished(&done);
    again
}

/// What the database will never take as it is becomes a failure with its words.
fn refused(core: &Core, batch: &Batch, error: &Error) -> Vec<Batch> {
    let failures = batch.executions().into_iter().filter_map(|execution| {
        if matches!(batch, Batch::Fail(_)) {
            // Off the list, the next heartbeat gives it back.
            warn!({ field::JOB_ID } = %execution.job_id, "fail was refused: {}", error.chain());
            core.ledger.finished(&[execution]);
            return None;
        }
        Some(Batch::failed(execution, format!("the outcome was refused: {}", error.chain())))
    });
    failures.collect()
}

/// Whether the same may be taken a little later.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Timeout(_)) || matches!(error.recovery(), Recovery::Retry(_))
}

/// Whether it is the database and not an entry that is in the way.
fn is_away(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::PoolExhausted)
}
