//! Telling the database how executions ended: in batches, and again while the lease lives.
//!
//! What ends while nothing is on its way goes at once; what ends meanwhile goes together when the
//! answer is here, or as a second call when it is many. A batch that is held up goes on beside the
//! others, in halves, until the entry in the way is alone.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
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
/// Calls under way for what is held up: each may keep a connection waiting.
const MOST_TURNS: u32 = 4;
/// Entries that are held up, before the finisher waits for them; several batches' worth.
const MOST_HELD_UP: usize = 2_000;
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the same is said again after an error that nobody expects: for about a minute.
const MOST_STRANGE: u32 = 30;

/// Works until every sender is gone and everything has been answered or is lost.
pub(super) async fn run(core: Arc<Core>, mut finishes: mpsc::Receiver<Finish>) {
    let stragglers = Arc::new(Stragglers::new(&core));
    let mut calls = FuturesUnordered::new();
    let mut taken = Vec::with_capacity(MOST);
    let mut open = true;
    loop {
        let least = if calls.is_empty() { 1 } else { MANY };
        if least <= taken.len() && calls.len() < MOST_CALLS {
            for batch in Batch::sort(taken.drain(..)) {
                calls.push(settle(&core, &stragglers, batch, None));
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
    stragglers.tasks.close();
    stragglers.tasks.wait().await;
}

/// What others hold up goes on beside the rest, in halves, until what is held up is alone.
struct Stragglers {
    tasks: TaskTracker,
    /// Their calls: each may wait for as long as a lock may be waited for.
    turns: Semaphore,
    /// One an entry; without one the finisher waits.
    space: Arc<Semaphore>,
}

impl Stragglers {
    fn new(core: &Core) -> Self {
        let turns = (core.engine.pool().size() / 2).clamp(1, MOST_TURNS);
        let turns = Semaphore::new(turns as usize);
        let space = Arc::new(Semaphore::new(MOST_HELD_UP));
        Stragglers { tasks: TaskTracker::new(), turns, space }
    }

    /// Space for a batch, which is no larger than all of it.
    async fn space(&self, batch: &Batch) -> OwnedSemaphorePermit {
        let entries = u32::try_from(batch.len()).expect("a batch is of 500 at most");
        let space = self.space.clone().acquire_many_owned(entries).await;
        space.expect("it is never closed")
    }

    /// Sees a batch through in halves.
    fn take(self: &Arc<Self>, core: &Arc<Core>, mut batch: Batch, mut space: OwnedSemaphorePermit) {
        if 1 < batch.len() {
            let half = batch.halve();
            let part = space.split(half.len()).expect("there is one an entry");
            self.spawn(core, half, part);
        }
        self.spawn(core, batch, space);
    }

    fn spawn(self: &Arc<Self>, core: &Arc<Core>, batch: Batch, space: OwnedSemaphorePermit) {
        let (core, own) = (core.clone(), self.clone());
        // Boxed, since `settle` starts it and it is a `settle` again.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { settle(&core, &own, batch, Some(space)).await });
        self.tasks.spawn(task);
    }
}

/// Sees a batch through. A straggler has its `space`; any other batch that is held up becomes one.
async fn settle(
    core: &Arc<Core>,
    stragglers: &Arc<Stragglers>,
    batch: Batch,
    mut space: Option<OwnedSemaphorePermit>,
) {
    let mut batches = VecDeque::from([batch]);
    let mut pause = Pause::new(LONGEST_PAUSE);
    let mut strange = 0;
    while let Some(mut batch) = batches.pop_front() {
        let turn = match &space {
            Some(_) => Some(stragglers.turns.acquire().await.expect("it is never closed")),
            None => None,
        };
        batch.retain_held(&core.ledger);
        if batch.len() == 0 {
            continue;
        }
        let error = match say(core, &batch).await {
            Ok(verdicts) => {
                pause.reset();
                strange = 0;
                batches.extend(heard(core, &batch, &verdicts));
                continue;
            }
            Err(error) => error,
        };
        drop(turn);
        if is_held_up(&error) && (space.is_none() || 1 < batch.len()) {
            let part = match &mut space {
                Some(space) => space.split(batch.len()).expect("there is one an entry"),
                None => stragglers.space(&batch).await,
            };
            stragglers.take(core, batch, part);
        } else if 1 < batch.len() && !is_away(&error) {
            batches.push_front(batch.halve());
            batches.push_front(batch);
        } else if is_passing(&error) || !error.is_of_content() && strange < MOST_STRANGE {
            strange += u32::from(!is_passing(&error));
            let count = batch.len();
            debug!({ field::BATCH_SIZE } = count, "finish failed, again soon: {}", error.chain());
            tokio::time::sleep(pause.next()).await;
            batches.push_front(batch);
        } else {
            batches.extend(refused(core, &batch, &error));
        }
    }
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

/// Whether an entry may have waited for what others hold, and all the rest with it.
fn is_held_up(error: &Error) -> bool {
    matches!(error, Error::Locked(_) | Error::Timeout(_))
}

/// Whether the same may be taken a little later.
fn is_passing(error: &Error) -> bool {
    is_held_up(error) || !matches!(error.recovery(), Recovery::GiveUp)
}

/// Whether it is the database and not an entry that is in the way.
fn is_away(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::InDoubt(_) | Error::PoolExhausted)
}
