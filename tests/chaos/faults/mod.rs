//! Faults, and the ledger of those that really took place.

mod database;
mod process;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::database::Database;
use crate::ledger::Ledger;
use crate::plan::{Kind, PlannedFault};
use crate::run::{Run, in_micros, micros, until};
use crate::supervisor::Supervisor;
use crate::ways::Between;
use crate::wire::When;

/// The name of the ledger.
pub(crate) const LEDGER: &str = "faults";

/// What a fault needs to know of the run that it strikes.
pub(crate) struct Field {
    pub(crate) run: Run,
    pub(crate) database: Arc<Database>,
    pub(crate) supervisor: Supervisor,
    pub(crate) between: Between,
    pub(crate) ledger: Ledger,
}

/// One that has begun, on what, and when.
struct Strike {
    target: String,
    begin: i64,
}

impl Strike {
    fn on(target: impl Into<String>) -> Strike {
        Strike { target: target.into(), begin: micros() }
    }
}

impl Field {
    pub(crate) fn new(run: &Run, database: &Arc<Database>, between: Between) -> Field {
        let ledger = Ledger::open(&run.folder, LEDGER);
        let supervisor = Supervisor::start(run);
        Field { run: run.clone(), database: database.clone(), supervisor, between, ledger }
    }

    /// Strikes as the schedule says, each at its time whatever the others do.
    pub(crate) async fn strike_all(self: &Arc<Self>, faults: &[PlannedFault]) {
        let mut under_way = Vec::new();
        for fault in faults.iter().copied() {
            until(self.run.starts + in_micros(fault.after)).await;
            let field = self.clone();
            under_way.push(tokio::spawn(async move { field.strike(fault).await }));
        }
        for fault in under_way {
            fault.await.expect("a fault is no panic");
        }
    }

    /// Tries until it has struck, since what it wants may be away at this moment.
    async fn strike(&self, fault: PlannedFault) {
        for turn in 0..20 {
            // What nobody is at work on may be passed over.
            let fault = PlannedFault { pick: fault.pick.wrapping_add(turn), ..fault };
            match self.try_strike(fault).await {
                Ok(Some(strike)) => {
                    let Strike { target, begin } = strike;
                    let fields = json!({"kind": fault.kind, "target": target, "begin": begin});
                    return self.ledger.note("fault", fields);
                }
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        self.ledger.note("missed", json!({"kind": fault.kind}));
    }

    async fn try_strike(&self, fault: PlannedFault) -> Result<Option<Strike>> {
        match fault.kind {
            Kind::KillProducer | Kind::KillWorker | Kind::KillService => {
                process::kill_one(self, fault)
            }
            Kind::PauseWorker => process::pause(self, fault).await,
            Kind::TerminateBackend => database::terminate(self, fault, false).await,
            Kind::TerminateListener => database::terminate(self, fault, true).await,
            Kind::RestartDatabase => database::restart(self).await,
            Kind::KillBackend => database::kill_backend(self, fault).await,
            Kind::ExhaustConnections => database::exhaust(self, fault).await,
            Kind::LongSnapshot => database::snapshot(self, fault).await,
            Kind::LongWriter => database::write(self, fault).await,
            Kind::StepClock => database::step_clock(self, fault).await,
            Kind::CutCommit => Ok(wire::cut_commits(self, fault, When::Before).await),
            Kind::CutAnswer => Ok(wire::cut_commits(self, fault, When::After).await),
            Kind::BlackHole => Ok(wire::black_hole(self, fault).await),
            Kind::SlowWire => Ok(wire::slow(self, fault).await),
            Kind::ResetWire => Ok(wire::reset(self, fault)),
        }
    }
}
