//! One queue of a worker: its slots, its acquire loop, and the tasks of its jobs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::core::Core;
use super::execute::execute;
use super::outcome::{Ending, Finish};
use super::pause::Pause;
use super::place::Place;
use super::stop::StopSignal;
use crate::engine::Sleeper;
use crate::model::AcquiredJob;
use crate::telemetry::field;

/// The most that one call of `acquire` gives.
const MOST_JOBS: usize = 1000;

/// A queue with room for so many jobs.
pub(super) struct Lane {
    core: Arc<Core>,
    queue: String,
    /// Jobs that run.
    slots: Arc<Semaphore>,
    /// Jobs that run, and those that were fetched ahead.
    room: Arc<Semaphore>,
    finishes: mpsc::Sender<Finish>,
    jobs: TaskTracker,
}

impl Lane {
    pub(super) fn new(
        core: Arc<Core>,
        queue: String,
        concurrency: usize,
        finishes: mpsc::Sender<Finish>,
        jobs: TaskTracker,
    ) -> Self {
        let room = concurrency + core.settings.prefetch;
        Lane {
            core,
            queue,
            slots: Arc::new(Semaphore::new(concurrency)),
            room: Arc::new(Semaphore::new(room)),
            finishes,
            jobs,
        }
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Acquires as long as there is room, and waits where there is nothing, until the stop.
    pub(super) async fn run(self: Arc<Self>, mut sleeper: Sleeper) {
        let mut pause = Pause::new(self.core.settings.poll);
        while let Some(room) = self.take_room().await {
            let queues = vec![self.queue.clone()];
            match self.core.acquire(queues, room.len()).await {
                Ok(jobs) if jobs.is_empty() => {
                    drop(room);
                    pause.reset();
                    sleeper.wait(self.core.settings.poll, &self.core.stop).await;
                }
                Ok(jobs) => {
                    pause.reset();
                    sleeper.found(room.len() <= jobs.len());
                    self.start_all(jobs, room);
                }
                Err(error) => {
                    drop(room);
                    warn!({ field::QUEUE } = self.queue, "acquire failed: {}", error.chain());
                    self.rest(pause.next()).await;
                }
            }
        }
        debug!({ field::QUEUE } = self.queue, "no more is acquired");
    }

    /// Starts a job that came by another call than this lane's own.
    pub(super) fn start(self: &Arc<Self>, job: AcquiredJob, signal: StopSignal) {
        if let Ok(room) = self.room.clone().try_acquire_owned() {
            self.spawn(job, signal, room);
        } else {
            // It is not in anybody's hands, so the next heartbeat gives it back.
            self.core.ledger.finished(&job.execution);
        }
    }

    fn start_all(self: &Arc<Self>, jobs: Vec<(AcquiredJob, StopSignal)>, room: Vec<Permit>) {
        for ((job, signal), room) in jobs.into_iter().zip(room) {
            self.spawn(job, signal, room);
        }
    }

    fn spawn(self: &Arc<Self>, job: AcquiredJob, signal: StopSignal, room: Permit) {
        let lane = self.clone();
        self.jobs.spawn(async move { lane.run_job(job, signal, room).await });
    }

    /// From the slot to the answer that goes to the database.
    async fn run_job(&self, job: AcquiredJob, signal: StopSignal, room: Permit) {
        let execution = job.execution;
        let slot = tokio::select! {
            biased;
            () = self.core.stop.cancelled() => None,
            () = signal.token().cancelled() => None,
            slot = self.slots.clone().acquire_owned() => slot.ok(),
        };
        // Kept until the finish is handed over: a slow database holds the acquires back.
        let place = slot.map(|slot| Arc::new(Place { _slot: slot, _room: room }));
        let ending = match &place {
            Some(place) => execute(&self.core, job, signal, place.clone()).await,
            None => Some(Ending::Release),
        };
        match ending {
            Some(ending) if self.core.ledger.finishing(&execution) => {
                // Only a finisher that has ended does not take it, and that is the end of all.
                let _ = self.finishes.send(Finish { execution, ending }).await;
            }
            Some(_) => debug!({ field::JOB_ID } = %execution.job_id, "lost, so nothing is said"),
            None => self.core.ledger.finished(&execution),
        }
    }

    /// Room for one job at least, once there is some; `None` when it is time to stop.
    async fn take_room(&self) -> Option<Vec<Permit>> {
        let first = tokio::select! {
            biased;
            () = self.core.stop.cancelled() => return None,
            room = self.room.clone().acquire_owned() => room.ok()?,
        };
        let mut room = vec![first];
        while room.len() < MOST_JOBS {
            let Ok(more) = self.room.clone().try_acquire_owned() else { break };
            room.push(more);
        }
        Some(room)
    }

    async fn rest(&self, pause: std::time::Duration) {
        tokio::select! {
            () = self.core.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

type Permit = OwnedSemaphorePermit;
