//! The heartbeat: extends the lease on a connection of its own, and stops what must be stopped.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::HEARTBEAT_JOBS;
use super::core::Core;
use super::pause::Pause;
use super::stop::StopReason;
use crate::db::{Error, Pool};
use crate::model::{Execution, HeartbeatVerdict};
use crate::store::heartbeat::heartbeat;
use crate::telemetry::field;

/// Beats until dropped. `pool` has one connection, which nobody else uses.
pub(super) async fn beat(core: Arc<Core>, pool: Pool) {
    let lease = core.settings.lease;
    let mut pause = Pause::new((lease / 10).min(Duration::from_secs(1)));
    // A little before a third has passed: else acquires would renew the row, where less than two
    // thirds of the lease are left.
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
/// database or the heartbeat do; goes on as long as anything of the worker does.
pub(super) async fn watch_lease(core: Weak<Core>) {
    while let Some(wait) = core.upgrade().map(|core| until_lease_end(&core)) {
        tokio::time::sleep(wait).await;
    }
}

fn until_lease_end(core: &Core) -> Duration {
    let now = Instant::now();
    let lost = core.ledger.expire(now);
    if 0 < lost {
        warn!({ field::WORKER_ID } = %core.id, "the lease has ended: {lost} job(s) lost");
    }
    let until = core.ledger.trusted_until().filter(|until| now < *until);
    until.map_or(core.settings.lease / 10, |until| until - now)
}

async fn once(core: &Core, pool: &Pool) -> Result<(), Error> {
    let connection = pool.get().await?;
    let sent = Instant::now();
    let held = core.ledger.snapshot();
    let lease = core.settings.lease;
    let parts = parts(&held.executions);
    // Reconciliation needs the whole list in one call: what is not named is given back.
    let seen_call = (parts.len() == 1).then_some(held.seen_call);
    for part in parts {
        let verdicts = heartbeat(&connection, core.id, part, lease, seen_call).await?;
        core.ledger.trust_until(sent + lease);
        for (execution, verdict) in part.iter().zip(verdicts) {
            obey(core, execution, verdict);
        }
    }
    Ok(())
}

/// The list in as many parts as calls are needed, one at least. Slots are bounded below that, so
/// several are needed only where finishes are held up.
fn parts(held: &[Execution]) -> Vec<&[Execution]> {
    if held.is_empty() { vec![held] } else { held.chunks(HEARTBEAT_JOBS).collect() }
}

fn obey(core: &Core, execution: &Execution, verdict: HeartbeatVerdict) {
    let reason = match verdict {
        HeartbeatVerdict::Held => return,
        HeartbeatVerdict::Cancel => StopReason::Cancelled,
        HeartbeatVerdict::Lost => StopReason::Lost,
    };
    if core.ledger.stop(execution, reason) {
        info!({ field::JOB_ID } = %execution.job_id, "stopping: {}", reason.as_str());
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::Token;

    #[test]
    fn no_call_names_more_than_it_may() {
        let one = Execution { job_id: Uuid::nil(), attempt: 1, token: Token::new(Uuid::nil()) };
        let sizes = |held: usize| -> Vec<usize> {
            parts(&vec![one; held]).iter().map(|part| part.len()).collect()
        };
        assert_eq!(sizes(0), [0]);
        assert_eq!(sizes(10_000), [10_000]);
        assert_eq!(sizes(10_001), [10_000, 1]);
    }
}
