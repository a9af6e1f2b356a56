//! The worker processes: started, and started again when one is killed.

use std::cell::RefCell;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

const GLANCE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(10);

/// The processes. Dropped, they are killed.
pub(crate) struct Workers {
    command: RefCell<Command>,
    children: RefCell<Vec<Child>>,
}

impl Workers {
    pub(crate) fn start(database_url: &str, count: usize, pace: Duration) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find the pipeline's own program")?;
        let mut command = Command::new(program);
        command
            .args(["--pace", &format!("{}ms", pace.as_millis()), "worker"])
            .env("DATABASE_URL", database_url)
            .kill_on_drop(true);
        let workers = Workers { command: RefCell::new(command), children: RefCell::default() };
        for _ in 0..count.max(1) {
            let child = workers.spawn()?;
            workers.children.borrow_mut().push(child);
        }
        Ok(workers)
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        self.command.borrow_mut().spawn().context("start a worker process")
    }

    /// The processes' ids.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.children.borrow().iter().filter_map(Child::id).collect()
    }

    /// Starts those again that have ended; never ends itself.
    pub(crate) async fn watch(&self) -> Infallible {
        loop {
            tokio::time::sleep(GLANCE).await;
            let mut children = self.children.borrow_mut();
            for child in children.iter_mut() {
                if let Ok(Some(status)) = child.try_wait() {
                    eprintln!(
                        "a worker has ended ({status}); its jobs are rescued, and here is another"
                    );
                    match self.spawn() {
                        Ok(fresh) => *child = fresh,
                        Err(error) => eprintln!("{error:#}"),
                    }
                }
            }
        }
    }

    /// Lets them drain.
    pub(crate) async fn stop(self) {
        let mut children = self.children.into_inner();
        children.iter().for_each(terminate);
        for child in &mut children {
            // What does not end is killed when it is dropped.
            let _ = tokio::time::timeout(PATIENCE, child.wait()).await;
        }
    }
}

/// SIGTERM, unless it has ended.
pub(crate) fn terminate(child: &Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}
