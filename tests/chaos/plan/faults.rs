//! The schedule of faults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::run::Run;

/// What is done to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    KillProducer,
    KillWorker,
    KillService,
    /// SIGSTOP for longer than the lease, then SIGCONT: a zombie.
    PauseWorker,
    TerminateBackend,
    TerminateListener,
    RestartDatabase,
    /// SIGKILL of one backend, upon which the server takes all of them down.
    KillBackend,
    ExhaustConnections,
    LongSnapshot,
    LongWriter,
    /// The clock that the queue's functions read jumps, and is set right again.
    StepClock,
    /// Commits that the server never sees.
    CutCommit,
    /// Commits whose answer nobody sees.
    CutAnswer,
    /// Nothing comes through for longer than a lease, and then all of it does.
    BlackHole,
    SlowWire,
    ResetWire,
}

/// How often each kind stands in one round of the deck.
const DECK: &[(Kind, usize)] = &[
    (Kind::KillProducer, 3),
    (Kind::KillWorker, 5),
    (Kind::KillService, 2),
    (Kind::PauseWorker, 4),
    (Kind::TerminateBackend, 4),
    (Kind::TerminateListener, 2),
    (Kind::RestartDatabase, 1),
    (Kind::KillBackend, 1),
    (Kind::ExhaustConnections, 1),
    (Kind::LongSnapshot, 1),
    (Kind::LongWriter, 1),
    (Kind::StepClock, 2),
    (Kind::CutCommit, 2),
    (Kind::CutAnswer, 4),
    (Kind::BlackHole, 2),
    (Kind::SlowWire, 1),
    (Kind::ResetWire, 2),
];

/// One fault to come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlannedFault {
    pub(crate) kind: Kind,
    /// Since production began.
    pub(crate) after: Duration,
    /// How long it lasts, where it is up to us.
    pub(crate) lasts: Duration,
    /// Chooses the target among those there are.
    pub(crate) pick: u64,
}

/// The faults of a run, in order; of these kinds only, unless there are none.
pub(crate) fn schedule(run: &Run, only: &[Kind]) -> Vec<PlannedFault> {
    let mut chance = Chance::new(run.seed, 7);
    let mut deck = Vec::new();
    let mut faults = Vec::new();
    for number in 0..run.faults {
        if deck.is_empty() {
            deck = DECK
                .iter()
                .filter(|(kind, _)| only.is_empty() || only.contains(kind))
                .flat_map(|(kind, times)| std::iter::repeat_n(*kind, *times))
                .collect();
            chance.shuffle(&mut deck);
        }
        let kind = deck.pop().expect("it was filled");
        let jitter = run.spacing.mul_f64(chance.between(0, 600) as f64 / 1000.0);
        let lasts = match kind {
            Kind::PauseWorker | Kind::BlackHole => {
                run.lease.mul_f64(chance.between(130, 250) as f64 / 100.0)
            }
            Kind::LongSnapshot | Kind::LongWriter => Duration::from_secs(6),
            Kind::SlowWire => Duration::from_secs(4),
            _ => Duration::from_millis(chance.between(500, 1500) as u64),
        };
        let after = run.calm + run.spacing * u32::try_from(number).expect("few") + jitter;
        faults.push(PlannedFault { kind, after, lasts, pick: chance.next() });
    }
    faults
}
