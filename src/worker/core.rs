//! What all tasks of a worker share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::handler::{Handler, Handlers};
use super::ledger::Ledger;
use super::stop::StopSignal;
use crate::db::Error;
use crate::engine::Engine;
use crate::model::{AcquiredJob, SchemaName};
use crate::store::acquire::{AcquireCall, acquire};

/// How a worker behaves.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) lease: Duration,
    pub(super) poll: Duration,
    /// How long running jobs may take to end after a stop was asked for.
    pub(super) drain: Duration,
    /// How long a handler may take to end after it was told to stop.
    pub(super) stop_grace: Duration,
    /// Jobs fetched ahead of the free slots, for each queue; by their pace where `None`.
    pub(super) prefetch: Option<usize>,
}

/// One incarnation of a worker.
pub(super) struct Core {
    pub(super) id: Uuid,
    pub(super) engine: Engine,
    pub(super) schema: Arc<SchemaName>,
    pub(super) handlers: Handlers,
    /// For kinds that have no handler of their own.
    pub(super) fallback: Option<Handler>,
    /// The kinds that can be run; all where `None`.
    pub(super) kinds: Option<Vec<String>>,
    pub(super) capacity: i32,
    pub(super) settings: Settings,
    pub(super) ledger: Ledger,
    /// Nothing is acquired or started any more.
    pub(super) stop: CancellationToken,
}

impl Core {
    /// Takes up to `room` jobs of kinds that have a handler, and enters them in the ledger.
    pub(super) async fn acquire(
        &self,
        queues: Vec<String>,
        room: usize,
    ) -> Result<Vec<(AcquiredJob, StopSignal)>, Error> {
        let connection = self.engine.pool().get().await?;
        let call = self.ledger.begin_call();
        let request = AcquireCall {
            max_jobs: i32::try_from(room).unwrap_or(i32::MAX),
            lease: self.settings.lease,
            kinds: self.kinds.clone(),
            name: Some(self.settings.name.clone()),
            capacity: Some(self.capacity),
            call_number: Some(call.number()),
            ..AcquireCall::new(self.id, queues)
        };
        let sent = Instant::now();
        let jobs = acquire(&connection, &request).await?;
        // An acquire renews the lease only when less than two thirds of it are left.
        self.ledger.trust_until(sent + self.settings.lease * 2 / 3);
        let signals = call.answered(jobs.iter().map(|job| job.execution));
        Ok(jobs.into_iter().zip(signals).collect())
    }
}
