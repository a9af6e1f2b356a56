//! One queue of a worker: its acquires, and the runners that take job after job.
//!
//! A runner goes on to the next job when its handler has ended; while it waits for one, another
//! takes its part. So a thousand short jobs cost few tasks and wake-ups, and one long job holds up
//! nobody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::core::Core;
use super::execute::execute;
use super::outcome::{Ending, Finish};
use super::pause::Pause;
use super::room::{Ahead, News, Place, Ready, Room};
use crate::db::Error;
use crate::engine::{Next, Sleeper};
use crate::telemetry::field;

/// How long a job that was fetched ahead may wait for a slot.
const PATIENCE: Duration = Duration::from_secs(1);

/// A queue with so many slots.
pub(super) struct Lane {
    core: Arc<Core>,
    queue: String,
    room: Arc<Room>,
    finishes: mpsc::Sender<Finish>,
    jobs: TaskTracker,
}

/// An acquire that has ended: how many it asked for, and what came.
type Answer = (usize, Result<Vec<Ready>, Error>);

impl Lane {
    pub(super) fn new(
        core: Arc<Core>,
        queue: String,
        slots: usize,
        ahead: Ahead,
        finishes: mpsc::Sender<Finish>,
        jobs: TaskTracker,
    ) -> Self {
        let threads = tokio::runtime::Handle::current().metrics().num_workers();
        let room = Room::new(slots, ahead, threads, core.stop.clone());
        Lane { core, queue, room, finishes, jobs }
    }

    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Acquires as long as there is room, and waits where there is nothing, until the stop.
    pub(super) async fn run(self: Arc<Self>, mut sleeper: Sleeper) {
        let mut calls = FuturesUnordered::new();
        let mut pause = Pause::new(self.core.settings.poll);
        // Whether the last answer was as full as could be: only then a second call is worth it.
        let mut backlog = false;
        // After a failure there is no call until then.
        let mut rests_until = None;
        loop {
            let news = match calls.len() {
                _ if rests_until.is_some() => News::Slot,
                0 => News::Room,
                1 if backlog => News::FullRoom,
                _ => News::Slot,
            };
            if !self.core.stop.is_cancelled()
                && let Some(asked) = self.room.ask(news)
            {
                calls.push(self.acquire(asked));
                continue;
            }
            let (asked, answer) = tokio::select! {
                Some(answer) = calls.next() => answer,
                () = self.room.changed(news) => {
                    self.start_runners();
                    continue;
                }
                () = until(rests_until) => {
                    rests_until = None;
                    continue;
                }
                () = self.core.stop.cancelled(), if calls.is_empty() => break,
            };
            rests_until = None;
            match answer {
                Ok(jobs) if jobs.is_empty() => {
                    backlog = false;
                    self.room.answered(asked, jobs);
                    pause.reset();
                    if calls.is_empty() {
                        self.sleep(&mut sleeper).await;
                    }
                }
                Ok(jobs) => {
                    backlog = asked <= jobs.len();
                    sleeper.found(backlog);
                    pause.reset();
                    self.room.answered(asked, jobs);
                    self.start_runners();
                }
                Err(error) => {
                    backlog = false;
                    self.room.answered(asked, Vec::new());
                    warn!({ field::QUEUE } = self.queue, "acquire failed: {}", error.chain());
                    rests_until = Some(Instant::now() + pause.next());
                }
            }
        }
        self.give_back(self.room.take_all());
        debug!({ field::QUEUE } = self.queue, "no more is acquired");
    }

    /// Gives back what was fetched ahead and still waits, until the stop: others may be idle.
    pub(super) async fn give_back_late(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.core.stop.cancelled() => return,
                () = tokio::time::sleep(PATIENCE / 4) => {}
            }
            self.give_back(self.room.take_late(PATIENCE));
        }
    }

    /// Starts a job that came by another call than this lane's own.
    pub(super) fn start(self: &Arc<Self>, job: Ready) {
        self.room.answered(0, vec![job]);
        self.start_runners();
    }

    async fn acquire(&self, asked: usize) -> Answer {
        (asked, self.core.acquire(vec![self.queue.clone()], asked).await)
    }

    /// After a look that found nothing. Slots may become free for jobs that wait in hand.
    async fn sleep(self: &Arc<Self>, sleeper: &mut Sleeper) -> Next {
        let mut asleep = std::pin::pin!(sleeper.wait(self.core.settings.poll, &self.core.stop));
        loop {
            tokio::select! {
                next = &mut asleep => return next,
                () = self.room.changed(News::Slot) => self.start_runners(),
            }
        }
    }

    fn start_runners(self: &Arc<Self>) {
        for _ in 0..self.room.hire() {
            let lane = self.clone();
            self.jobs.spawn(async move { lane.run_jobs().await });
        }
    }

    /// A runner, until there is no job for it.
    async fn run_jobs(self: Arc<Self>) {
        while let Some((job, place)) = self.room.next() {
            self.run_job(job, place).await;
        }
    }

    /// From the slot to the answer that goes to the database.
    async fn run_job(self: &Arc<Self>, (job, signal): Ready, place: Arc<Place>) {
        let execution = job.execution;
        let began = Instant::now();
        let ending = if signal.reason().is_some() {
            Some(Ending::Release)
        } else {
            let mut running = std::pin::pin!(execute(&self.core, job, signal, place.clone()));
            match futures_util::poll!(running.as_mut()) {
                std::task::Poll::Ready(ending) => ending,
                std::task::Poll::Pending => {
                    if self.room.suspended() {
                        self.start_runners();
                    }
                    let ending = running.await;
                    self.room.resumed();
                    ending
                }
            }
        };
        self.room.note(began.elapsed());
        match ending {
            Some(ending) => self.finish(Finish { execution, ending }).await,
            None => self.core.ledger.finished(&[execution]),
        }
        // Kept until the finish is handed over: a slow database holds the acquires back.
        drop(place);
    }

    /// Among the jobs, so that a stop waits for it as long as for these and no longer.
    fn give_back(self: &Arc<Self>, jobs: Vec<Ready>) {
        if jobs.is_empty() {
            return;
        }
        let lane = self.clone();
        let ends = jobs.into_iter().map(|(job, _)| job.execution);
        self.jobs.spawn(async move {
            for execution in ends {
                lane.finish(Finish { execution, ending: Ending::Release }).await;
            }
        });
    }

    async fn finish(&self, finish: Finish) {
        if self.core.ledger.finishing(&finish.execution) {
            // Only a finisher that has ended does not take it, and that is the end of all.
            let _ = self.finishes.send(finish).await;
        } else {
            debug!({ field::JOB_ID } = %finish.execution.job_id, "lost, so nothing is said");
        }
    }
}

/// Never, without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
