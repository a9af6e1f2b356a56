//! Keeps the processes of a run alive: whatever dies is started again, as in production.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::run::Run;
use crate::{operator, plan, producers, workers};

/// The argument by which this program knows that it is one of these processes.
pub(crate) const CHILD: &str = "child";

const RESTART_PAUSE: Duration = Duration::from_millis(150);
const STEP: Duration = Duration::from_millis(20);

/// What a process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Role {
    Producer,
    Worker,
    Operator,
    Service,
}

/// What a process is told in its argument.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) run: Run,
    pub(crate) role: Role,
    pub(crate) slot: usize,
    pub(crate) incarnation: usize,
}

/// A process that runs.
#[derive(Clone, Debug)]
pub(crate) struct Living {
    pub(crate) role: Role,
    /// As in the ledgers.
    pub(crate) name: String,
    pub(crate) pid: Pid,
}

/// All processes of a run, killed when it is dropped.
pub(crate) struct Supervisor {
    run: Run,
    living: Arc<Mutex<Vec<Living>>>,
    keepers: Vec<(Role, tokio::task::JoinHandle<()>)>,
}

impl Supervisor {
    /// Starts everything.
    pub(crate) fn start(run: &Run) -> Supervisor {
        let living = Arc::default();
        let mut supervisor = Supervisor { run: run.clone(), living, keepers: Vec::new() };
        supervisor.keep(Role::Service, 0);
        (0..run.trades.len()).for_each(|slot| supervisor.keep(Role::Worker, slot));
        (0..plan::DOORS.len()).for_each(|slot| supervisor.keep(Role::Producer, slot));
        supervisor.keep(Role::Operator, 0);
        supervisor
    }

    fn keep(&mut self, role: Role, slot: usize) {
        let keeper = Keeper { run: self.run.clone(), role, slot, living: self.living.clone() };
        self.keepers.push((role, tokio::spawn(keeper.keep())));
    }

    /// Those with this role that run at this moment.
    pub(crate) fn living(&self, role: Role) -> Vec<Living> {
        let mut living = self.living.lock().expect("not poisoned").clone();
        living.retain(|one| one.role == role);
        living.sort_by(|one, other| one.name.cmp(&other.name));
        living
    }

    /// Waits until every producer and the operator have done all they had to.
    pub(crate) async fn produced(&self, patience: Duration) -> Result<()> {
        let end = Instant::now() + patience;
        let busy = |(role, keeper): &(Role, tokio::task::JoinHandle<()>)| {
            matches!(role, Role::Producer | Role::Operator) && !keeper.is_finished()
        };
        while self.keepers.iter().any(busy) {
            ensure!(Instant::now() < end, "the producers have not ended in time");
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }

    /// Ends all processes.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for (_, keeper) in &self.keepers {
            keeper.abort();
        }
        for one in self.living.lock().expect("not poisoned").drain(..) {
            // It may have ended by itself.
            let _ = kill(one.pid, Signal::SIGKILL);
        }
    }
}

/// Starts one process again and again.
struct Keeper {
    run: Run,
    role: Role,
    slot: usize,
    living: Arc<Mutex<Vec<Living>>>,
}

impl Keeper {
    async fn keep(self) {
        for incarnation in 0.. {
            let mut child = self.spawn(incarnation).expect("a process can be started");
            // Waiting would close it, and with it the child.
            let _input = child.stdin.take();
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
            let pid = Pid::from_raw(pid);
            let name = self.name(incarnation);
            let living = Living { role: self.role, name, pid };
            self.living.lock().expect("not poisoned").push(living);
            let status = child.wait().await.expect("it can be waited for");
            self.living.lock().expect("not poisoned").retain(|one| one.pid != pid);
            if status.success() && matches!(self.role, Role::Producer | Role::Operator) {
                return;
            }
            tokio::time::sleep(RESTART_PAUSE).await;
        }
    }

    fn name(&self, incarnation: usize) -> String {
        match self.role {
            Role::Producer => producers::name(self.slot),
            Role::Worker => workers::name(self.slot, incarnation),
            Role::Operator => operator::NAME.to_owned(),
            Role::Service => format!("service.{incarnation}"),
        }
    }

    fn spawn(&self, incarnation: usize) -> Result<Child> {
        let mut command = match self.role {
            Role::Service => self.service(),
            _ => {
                let (run, role, slot) = (self.run.clone(), self.role, self.slot);
                let task = serde_json::to_string(&Task { run, role, slot, incarnation })?;
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(CHILD).arg(task);
                command
            }
        };
        let log = self.run.folder.join(format!("{}.log", self.name(incarnation)));
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        // Standard input ends with this process, and then so does the child.
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        command.spawn().with_context(|| format!("start {}", self.name(incarnation)))
    }

    fn service(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rowlock"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROWLOCK_")) {
            command.env_remove(name);
        }
        command.env("DATABASE_URL", &self.run.url).arg("serve");
        command.args(["--listen", &self.run.service, "--pool-size", "12", "--log", "warn"]);
        command.args(["--maintenance-interval", "300ms", "--application-name", "service"]);
        command
    }
}
