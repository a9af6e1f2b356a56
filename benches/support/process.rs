//! Processes beside the bench: this binary again as a worker or producer, and `rowlock serve`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::cores;

/// No child of a bench has as much to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// The argument by which this binary knows that it is a child.
pub(crate) const CHILD: &str = "child";

/// A process that does a task, killed when dropped.
pub(crate) struct Child {
    process: tokio::process::Child,
    started: Instant,
}

impl Child {
    /// Starts this binary again, with a task as JSON in its arguments.
    pub(crate) fn start<T: Serialize>(task: &T) -> Child {
        Child::start_on(task, None)
    }

    /// The same on one core.
    pub(crate) fn start_on<T: Serialize>(task: &T, core: Option<usize>) -> Child {
        let task = serde_json::to_string(task).expect("a task is JSON");
        let program = std::env::current_exe().expect("this binary has a path");
        let mut command = cores::command(program, core);
        command.arg(CHILD).arg(task);
        Child::spawn(command)
    }

    fn spawn(mut command: Command) -> Child {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        Child { process: command.spawn().expect("the process starts"), started: Instant::now() }
    }

    /// Its memory at this moment.
    pub(crate) fn memory(&self) -> Memory {
        memory(&self.pid().to_string())
    }

    /// Asks it to stop.
    pub(crate) fn stop(&self) {
        kill(self.pid(), Signal::SIGTERM).expect("it can be told to stop");
    }

    /// Waits for its end, which must be a good one, and reads what it reports as JSON.
    pub(crate) async fn end<T: DeserializeOwned>(mut self) -> T {
        let mut lines = BufReader::new(self.process.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it ends in time");
        let line = line.expect("it is text").expect("it reports before its end");
        let status = timeout(PATIENCE, self.process.wait()).await.expect("it ends in time");
        let status = status.expect("it can be waited for");
        assert!(status.success(), "a child ended with {status} after {:?}", self.started.elapsed());
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    fn pid(&self) -> Pid {
        let pid = self.process.id().expect("it runs");
        Pid::from_raw(pid.try_into().expect("a process id"))
    }
}

/// A running `rowlock serve`, killed when dropped.
pub(crate) struct Service {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

impl Service {
    /// Starts it on this database with its default settings, and waits until it is ready.
    pub(crate) async fn start(url: &str) -> Service {
        Service::start_on(url, None).await
    }

    /// The same on one core.
    pub(crate) async fn start_on(url: &str, core: Option<usize>) -> Service {
        let mut command = cores::command(env!("CARGO_BIN_EXE_rowlock"), core);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROWLOCK_")) {
            command.env_remove(name);
        }
        command.env("DATABASE_URL", url);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log", "warn"]);
        let mut child = Child::spawn(command);
        let mut lines = BufReader::new(child.process.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts in time");
        let line = line.expect("it is text").unwrap_or_default();
        let address = line.strip_prefix("listening on http://").map(str::to_owned);
        let address = address.unwrap_or_else(|| panic!("the service said {line:?}"));
        Service { child, address }
    }

    /// Its memory at this moment.
    pub(crate) fn memory(&self) -> Memory {
        self.child.memory()
    }

    /// Stops it; it must end well.
    pub(crate) async fn end(mut self) {
        self.child.stop();
        let status = timeout(PATIENCE, self.child.process.wait()).await.expect("it ends in time");
        let status = status.expect("it can be waited for");
        assert!(status.success(), "the service ended with {status}");
    }
}

/// What a process has in memory, in MB.
#[derive(Clone, Copy, Debug, Serialize, serde::Deserialize)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) rss_mb: f64,
    /// At most, since its start.
    pub(crate) most_mb: f64,
}

/// The memory of a process, by its id or `self`.
pub(crate) fn memory(pid: &str) -> Memory {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).expect("the process is there");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024.0 / 1e6
    };
    Memory { rss_mb: field("VmRSS:"), most_mb: field("VmHWM:") }
}

/// Waits until something holds, and says what did not when it takes too long.
pub(crate) async fn until<F: AsyncFnMut() -> bool>(what: &str, mut holds: F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
