//! Life and end of a worker: start everything, wait for the stop, drain.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use super::core::Core;
use super::finisher;
use super::lane::Lane;
use super::outcome::Finish;
use super::pause::Pause;
use super::room::Ahead;
use super::stop::StopReason;
use super::{Error, MOST_HELD, Worker, heart};
use crate::config;
use crate::db::{self, Options, Pool, Recovery};
use crate::doctor::{self, Duty};
use crate::engine::{Engine, Wakeups};
use crate::shutdown::Shutdown;
use crate::telemetry::field;

/// Ended executions that wait to be told; behind them, handlers keep their slots.
const FINISH_CAPACITY: usize = 1024;

/// Jobs fetched ahead for one queue at their own pace: some acquires' worth.
const MOST_AHEAD: usize = 2_000;

impl Worker {
    /// Runs until `shutdown` stops, then drains: nothing is acquired any more, what was not
    /// started is given back at once, and what runs may end within the drain time (a second
    /// signal cuts it short). What has not ended by then is told to stop and given back.
    ///
    /// A run that is dropped instead starts nothing more. What it has in hand is left to its lease:
    /// what ends before is still told, and what does not is told to stop then.
    ///
    /// A database that goes away is waited for.
    ///
    /// # Errors
    ///
    /// When there is no queue or handler, there are too many slots, or the database refuses the first call.
    pub async fn run(self, shutdown: &Shutdown) -> Result<(), Error> {
        self.check()?;
        let stop = shutdown.token().child_token();
        let _guard = stop.clone().drop_guard();
        let core = Arc::new(self.core(shutdown, &stop)?);
        tokio::select! {
            looked = doctor::at_start(core.engine.pool(), &self.options, Duty::Worker) => looked?,
            () = stop.cancelled() => return Ok(()),
        }
        let (finishes, finish_receiver) = mpsc::channel(FINISH_CAPACITY);
        let jobs = TaskTracker::new();
        let lanes = self.lanes(&core, finishes, &jobs);
        let finisher = tokio::spawn(finisher::run(core.clone(), finish_receiver));
        register(&core, &lanes).await?;
        info!({ field::WORKER_ID } = %core.id, name = core.settings.name, "working");

        let mut keepers = JoinSet::new();
        keepers.spawn(heart::beat(core.clone(), heart_pool(&self.options)?));
        // Not among these: handlers outlive a run that is dropped, and their lease ends too.
        let watch = tokio::spawn(heart::watch_lease(Arc::downgrade(&core)));
        let mut acquiring = JoinSet::new();
        for lane in lanes.into_values() {
            acquiring.spawn(lane.clone().give_back_late());
            let queue = [lane.queue().to_owned()];
            let sleeper = core.engine.wakeups().sleeper(&queue, core.kinds.as_deref());
            acquiring.spawn(lane.run(sleeper));
        }
        acquiring.join_all().await;
        drain(&core, &jobs, shutdown).await;
        // Every sender has gone with its lane and jobs, so it ends when all is said, or by then.
        if tokio::time::timeout(core.settings.lease, finisher).await.is_ok() {
            watch.abort();
        } else {
            // Without heartbeats the lease ends, and the finisher with it.
            warn!("{} finish(es) could not be told; they will be rescued", core.ledger.len());
        }
        info!({ field::WORKER_ID } = %core.id, "stopped");
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        if self.queues.is_empty() {
            return Err(Error::NoQueue);
        }
        if self.handlers.is_empty() && self.fallback.is_none() {
            return Err(Error::NoHandler);
        }
        let slots: usize = self.queues.values().fold(0, |sum, slots| sum.saturating_add(*slots));
        let ahead = self.settings.prefetch.unwrap_or(0).saturating_mul(self.queues.len());
        let held = slots.saturating_add(ahead);
        if MOST_HELD < held {
            return Err(Error::TooManySlots(held));
        }
        match self.queues.iter().find(|(_, slots)| **slots == 0) {
            Some((queue, _)) => Err(Error::NoSlots(queue.clone())),
            None => Ok(()),
        }
    }

    fn core(&self, shutdown: &Shutdown, stop: &CancellationToken) -> Result<Core, Error> {
        let settings = config::Settings::default().queue;
        let engine = if self.wakeups {
            Engine::open(&self.options, &settings, shutdown)?
        } else {
            Engine::new(Pool::new(&self.options)?, &settings, Wakeups::polling())
        };
        let capacity: usize = self.queues.values().sum();
        Ok(Core {
            id: Uuid::now_v7(),
            engine,
            schema: Arc::new(self.options.schema().clone()),
            kinds: self.fallback.is_none().then(|| self.handlers.keys().cloned().collect()),
            handlers: self.handlers.clone(),
            fallback: self.fallback.clone(),
            capacity: i32::try_from(capacity).unwrap_or(i32::MAX),
            settings: self.settings.clone(),
            ledger: Default::default(),
            stop: stop.clone(),
        })
    }

    fn lanes(
        &self,
        core: &Arc<Core>,
        finishes: mpsc::Sender<Finish>,
        jobs: &TaskTracker,
    ) -> HashMap<String, Arc<Lane>> {
        let slots: usize = self.queues.values().sum();
        let share = (MOST_HELD - slots) / self.queues.len();
        let ahead =
            self.settings.prefetch.map_or(Ahead::Paced(share.min(MOST_AHEAD)), Ahead::Fixed);
        let lane = |(queue, slots): (&String, &usize)| {
            let (finishes, jobs) = (finishes.clone(), jobs.clone());
            let lane = Lane::new(core.clone(), queue.clone(), *slots, ahead, finishes, jobs);
            (queue.clone(), Arc::new(lane))
        };
        self.queues.iter().map(lane).collect()
    }
}

/// The first acquire names every queue, so that the worker's row does. Waits for a database that
/// is away; a refusal is the end.
async fn register(core: &Core, lanes: &HashMap<String, Arc<Lane>>) -> Result<(), Error> {
    let mut pause = Pause::new(core.settings.poll);
    loop {
        let error = match core.acquire(lanes.keys().cloned().collect(), 1).await {
            Ok(jobs) => {
                for job in jobs {
                    let lane = lanes.get(&job.0.queue).expect("only these queues were asked for");
                    lane.start(job);
                }
                return Ok(());
            }
            Err(error) => error,
        };
        // One that took too long may have met others that start at the same time.
        if matches!(error.recovery(), Recovery::GiveUp) && !matches!(error, db::Error::Timeout(_)) {
            return Err(error.into());
        }
        warn!("the database does not answer yet: {}", error.chain());
        tokio::select! {
            () = core.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause.next()) => {}
        }
    }
}

async fn drain(core: &Core, jobs: &TaskTracker, shutdown: &Shutdown) {
    jobs.close();
    tokio::select! {
        () = jobs.wait() => return,
        () = shutdown.hurrying() => {}
        () = tokio::time::sleep(core.settings.drain) => {}
    }
    warn!("{} job(s) still run: told to stop, and given back", jobs.len());
    core.ledger.stop_all(StopReason::Draining);
    // Each ends within the grace that a told handler has.
    let patience = core.settings.stop_grace + Duration::from_secs(1);
    if tokio::time::timeout(patience, jobs.wait()).await.is_err() {
        warn!("{} job(s) did not end", jobs.len());
    }
}

/// One connection, for the heartbeat alone: a pool that is busy must not cost the lease.
fn heart_pool(options: &Options) -> Result<Pool, Error> {
    let mut options = options.clone();
    options.settings.pool_size = 1;
    Ok(Pool::new(&options)?)
}
