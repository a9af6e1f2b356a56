//! What a worker of ours has on its desk: what it holds, its calls, and when it must stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::Ledger;
use crate::run::{Behaviour, Run, in_micros, micros};

/// An execution by the names that finishing wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) job: Uuid,
    pub(super) attempt: i32,
    pub(super) token: Uuid,
}

/// One job as it was acquired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    pub(super) held: Held,
    /// The job's number in the plan.
    pub(super) n: usize,
}

/// What a worker holds, under one lock with the number of its calls.
pub(super) struct Desk {
    pub(super) worker: Uuid,
    ledger: Ledger,
    lease: i64,
    state: Mutex<State>,
}

struct State {
    held: HashMap<Held, CancellationToken>,
    /// All calls up to this one were answered or given up.
    seen_call: i64,
    /// By the worker's own clock, from when it sent what extended its lease.
    deadline: i64,
}

impl Desk {
    pub(super) fn new(run: &Run, ledger: &Ledger) -> Self {
        let state = State { held: HashMap::new(), seen_call: 0, deadline: i64::MAX };
        Desk {
            worker: Uuid::new_v4(),
            ledger: ledger.clone(),
            lease: in_micros(run.lease),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// The number of the next acquire; calls are made one after the other.
    pub(super) fn next_call(&self) -> i64 {
        self.state().seen_call + 1
    }

    /// An acquire was answered: its jobs are on the desk together with the number of the call.
    pub(super) fn acquired(
        &self,
        sent: i64,
        asked: usize,
        tasks: &[Task],
    ) -> Vec<CancellationToken> {
        let got = tasks.len();
        if got < asked || asked < got {
            self.ledger.note("acquire", json!({"begin": sent, "asked": asked, "got": got}));
        }
        let mut state = self.state();
        state.seen_call += 1;
        if state.deadline == i64::MAX {
            state.deadline = sent + self.lease;
        }
        let tokens = tasks.iter().map(|task| {
            let Held { job, attempt, token } = task.held;
            let fields = json!({"job": job, "attempt": attempt, "token": token, "n": task.n});
            self.ledger.note("got", fields);
            state.held.entry(task.held).or_default().clone()
        });
        tokens.collect()
    }

    /// An acquire was not answered: whatever it granted is to be given back.
    pub(super) fn gave_up(&self) {
        self.state().seen_call += 1;
    }

    /// What a heartbeat has to say.
    pub(super) fn list(&self) -> (Vec<Held>, i64) {
        let state = self.state();
        (state.held.keys().copied().collect(), state.seen_call)
    }

    /// A heartbeat sent at this moment was answered.
    pub(super) fn beaten(&self, sent: i64, verdicts: &[(Held, String)]) {
        let mut state = self.state();
        state.deadline = sent + self.lease;
        for (held, verdict) in verdicts {
            let Held { job, attempt, .. } = held;
            let fields = json!({"job": job, "attempt": attempt, "begin": sent, "verdict": verdict});
            self.ledger.note("beat", fields);
            if verdict != "held"
                && let Some(stop) = state.held.get(held)
            {
                stop.cancel();
            }
            if verdict == "lost" {
                state.held.remove(held);
            }
        }
    }

    /// Stops everything when the lease has ended by this worker's own clock.
    pub(super) fn check_deadline(&self) {
        let mut state = self.state();
        if state.deadline < micros() {
            if !state.held.is_empty() {
                self.ledger.note("let_go", json!({"jobs": state.held.len()}));
            }
            for (_, stop) in state.held.drain() {
                stop.cancel();
            }
            // The next acquire begins anew.
            state.deadline = i64::MAX;
        }
    }

    /// Its end was answered, or nobody will wait for one.
    pub(super) fn drop(&self, held: &Held) {
        self.state().held.remove(held);
    }

    /// Whether it is still on the desk.
    pub(super) fn has(&self, held: &Held) -> bool {
        self.state().held.contains_key(held)
    }

    /// What an end was told.
    pub(super) fn told(&self, held: &Held, verdict: &str) {
        let Held { job, attempt, token } = held;
        let fields = json!({"job": job, "attempt": attempt, "token": token, "verdict": verdict});
        self.ledger.note("told", fields);
    }
}

/// Executes each task in a slot of its own, beside whatever else is under way.
pub(super) async fn start_all<F: Future<Output = ()> + Send + 'static>(
    slots: &Arc<Semaphore>,
    tasks: Vec<(Task, CancellationToken)>,
    execute: impl Fn(Task, CancellationToken) -> F,
) -> Result<()> {
    for (task, stop) in tasks {
        let permit = slots.clone().acquire_owned().await?;
        let execution = execute(task, stop);
        tokio::spawn(async move {
            execution.await;
            drop(permit);
        });
    }
    Ok(())
}

/// A handler between its start and its end, both of which are noted whatever happens between.
pub(super) struct Handling {
    ledger: Ledger,
    job: Uuid,
    attempt: i32,
    ends_as: &'static str,
}

impl Handling {
    pub(super) fn start(ledger: &Ledger, job: Uuid, attempt: i32) -> Self {
        ledger.note("start", json!({"job": job, "attempt": attempt}));
        Handling { ledger: ledger.clone(), job, attempt, ends_as: "stopped" }
    }

    /// Does the work; `None` when it was told to stop.
    pub(super) async fn handle(
        &mut self,
        run: &Run,
        n: usize,
        stop: &CancellationToken,
    ) -> Option<Behaviour> {
        let work: Duration = run.work(n, self.attempt);
        tokio::select! {
            () = tokio::time::sleep(work) => {}
            () = stop.cancelled() => return None,
        }
        let behaviour = run.behaviour(n, self.attempt);
        self.ends_as = match behaviour {
            Behaviour::Complete => "complete",
            Behaviour::Fail => "fail",
            Behaviour::Snooze => "snooze",
            Behaviour::Discard => "discard",
        };
        Some(behaviour)
    }

    /// It did not go as it was meant to.
    pub(super) fn breaks(&mut self) {
        self.ends_as = "broken";
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        let fields = json!({"job": self.job, "attempt": self.attempt, "as": self.ends_as});
        self.ledger.note("end", fields);
    }
}
