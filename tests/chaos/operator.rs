//! The operator: a process that cancels some jobs, whatever they are doing.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::database::connect;
use crate::ledger::{self, Ledger};
use crate::plan::{self, Manner};
use crate::run::{Run, until};

/// The name of its ledger.
pub(crate) const NAME: &str = "operator";

const PAUSE: Duration = Duration::from_millis(100);
const TRIES: usize = 30;
const PATIENCE: Duration = Duration::from_secs(10);
/// Some have begun by then, some are waiting, some have ended.
const DELAY: i64 = 40_000;

/// Cancels what the plan says, each a moment after its call is due.
pub(crate) async fn run(run: Run) -> Result<()> {
    let done: HashSet<u64> = ledger::lines(&run.folder, NAME)
        .filter(|line| line["e"] == "cancelled")
        .filter_map(|line| line["n"].as_u64())
        .collect();
    let ledger = Ledger::open(&run.folder, NAME);
    for call in plan::calls(&run) {
        if call.manner == Manner::Keyed {
            continue;
        }
        for job in call.jobs.iter().filter(|job| plan::is_cancelled(&run, job.n)) {
            if done.contains(&(job.n as u64)) {
                continue;
            }
            until(call.due(&run) + DELAY * (job.n as i64 % 5)).await;
            ledger.note("asked", json!({"n": job.n, "job": run.id(job.n, 0)}));
            let mut tries = 0;
            loop {
                match cancel(&run, job.n).await {
                    // In the moment in which it comes, if need be.
                    Ok(verdict) if verdict == "unknown" && tries < TRIES => {
                        tries += 1;
                        tokio::time::sleep(PAUSE / 10).await;
                    }
                    Ok(verdict) => {
                        let fields =
                            json!({"n": job.n, "job": run.id(job.n, 0), "verdict": verdict});
                        ledger.note("cancelled", fields);
                        break;
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }
    }
    Ok(())
}

async fn cancel(run: &Run, n: usize) -> Result<String> {
    let client = connect(&run.url, NAME).await?;
    let sql = "select verdict from rowlock.cancel(array[$1::uuid])";
    let id = run.id(n, 0);
    let asking = async { client.query_one(sql, &[&id]).await };
    Ok(tokio::time::timeout(PATIENCE, asking).await??.get(0))
}
