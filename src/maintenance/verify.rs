//! The check of every invariant, now and then: what should not be possible is told.

use std::collections::BTreeSet;
use std::time::Duration;

use metrics::gauge;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::pace::jittered;
use crate::db::{Error, Pool};
use crate::shutdown::Shutdown;
use crate::store::verify::{Finding, try_verify};

/// A service that is restarted over and over does not read all of the database each time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Starts the loop; it ends when a stop is asked for, in the middle of a check too.
///
/// Sets `rowlock_invariant_violations` for every invariant. An interval of zero starts nothing.
pub fn start_verify(pool: &Pool, interval: Duration, shutdown: &Shutdown) {
    if interval.is_zero() {
        return;
    }
    let mut watch = Watch { pool: pool.clone(), violated: BTreeSet::new() };
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        tokio::select! {
            () = stop.stopping() => {}
            () = watch.run(interval) => {}
        }
    });
}

/// What was last found, so that each violation is told once.
struct Watch {
    pool: Pool,
    violated: BTreeSet<String>,
}

impl Watch {
    async fn run(&mut self, interval: Duration) {
        let mut pause = FIRST_PAUSE.min(interval);
        loop {
            sleep(jittered(pause)).await;
            pause = interval;
            match self.work().await {
                Ok(findings) => findings.iter().flatten().for_each(|finding| self.tell(finding)),
                Err(error) => warn!("the invariants could not be checked: {}", error.chain()),
            }
        }
    }

    async fn work(&self) -> Result<Option<Vec<Finding>>, Error> {
        let mut connection = self.pool.get().await?;
        let transaction = connection.begin().await?;
        let outcome = try_verify(&transaction).await;
        transaction.end(outcome).await
    }

    fn tell(&mut self, finding: &Finding) {
        let Finding { invariant, violations, sample } = finding;
        gauge!("rowlock_invariant_violations", "invariant" => invariant.clone())
            .set(*violations as f64);
        if *violations == 0 {
            if self.violated.remove(invariant) {
                info!(invariant, "holds again: {invariant}");
            }
        } else if self.violated.insert(invariant.clone()) {
            let sample = sample.as_deref().unwrap_or("none");
            error!(
                invariant,
                violations,
                sample,
                "violated in {violations} case(s), such as {sample}: {invariant}"
            );
        }
    }
}
