//! The heartbeat: extends the lease on a connection of its own, and stops what must be stopped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::core::Core;
use super::pause::Pause;
use super::stop::StopReason;
use crate::db::{Error, Pool};
use crate::model::HeartbeatVerdict;
use crate::store::heartbeat::heartbeat;
use crate::telemetry::field;

/// Beats until dropped. `pool` has one connection, which nobody else uses.
pub(super) async fn beat(core: Arc<Core>, pool: Pool) {
    let lease = core.settings.lease;
    let mut pause = Pause::new((lease / 10).min(Duration::from_secs(1)));
    // A little before a third has passed: an acquire renews the row with its own single queue
    // where less than two thirds of the lease are left.
    let mut wait = lease.mul_f64(0.3);
    loop {
        tokio::time::sleep(wait).await;
        let late = || Err(Error::unavailable("the heartbeat took too long"));
        let answer = tokio::time::timeout(lease / 3, once(&core, &pool)).await;
        wait = match answer.unwrap_or_else(|_| late()) {
            Ok(()) => {
                pause.reset();
                lease.mul_f64(0.3)
            }
            Err(error) => {
                warn!({ field::WORKER_ID } = %core.id, "heartbeat failed: {}", error.chain());
                pause.next()
            }
        };
    }
}

/// Stops everything at the moment when the lease ends by this process's own clock, whatever the
/// database or the heartbeat do.
pub(super) async fn watch_lease(core: Arc<Core>) {
    loop {
        let now = Instant::now();
        let lost = core.ledger.expire(now);
        if 0 < lost {
            warn!({ field::WORKER_ID } = %core.id, "the lease has ended: {lost} job(s) lost");
        }
        let until = core.ledger.trusted_until().filter(|until| now < *until);
        let wait = until.map_or(core.settings.lease / 10, |until| until - now);
        tokio::time::sleep(wait).await;
    }
}

async fn once(core: &Core, pool: &Pool) -> Result<(), Error> {
    let connection = pool.get().await?;
    let sent = Instant::now();
    let held = core.ledger.snapshot();
    let lease = core.settings.lease;
    let verdicts =
        heartbeat(&connection, core.id, &held.executions, lease, Some(held.seen_call)).await?;
    core.ledger.trust_until(sent + lease);
    for (execution, verdict) in held.executions.iter().zip(verdicts) {
        let reason = match verdict {
            HeartbeatVerdict::Held => continue,
            HeartbeatVerdict::Cancel => StopReason::Cancelled,
            HeartbeatVerdict::Lost => StopReason::Lost,
        };
        if core.ledger.stop(execution, reason) {
            info!({ field::JOB_ID } = %execution.job_id, "stopping: {}", reason.as_str());
        }
    }
    Ok(())
}
