//! The service as a process of its own, and requests to it.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Starting may mean making a cluster on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running `rowlock serve`, killed when dropped.
pub(crate) struct Service {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
}

/// `rowlock` with nothing of this process's settings.
pub(crate) fn rowlock(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rowlock"));
    for (name, _) in std::env::vars() {
        if name == "DATABASE_URL" || (name.starts_with("ROWLOCK_") && name != "ROWLOCK_PG_BIN") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// An example, which Cargo builds along with the tests, next to their folder.
pub(crate) fn example(name: &str) -> Command {
    let own = std::env::current_exe().expect("a test has a path");
    let debug = own.ancestors().nth(2).expect("target/debug/deps is two deep");
    let path = debug.join("examples").join(name);
    assert!(path.is_file(), "{} is not there: cargo build --examples", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Service {
    /// Starts it on a free port and waits until it listens.
    pub(crate) async fn start(arguments: &[&str]) -> Service {
        let mut command = rowlock(&["serve", "--pool-size", "4"]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("rowlock can be run");
        let log = Arc::<Mutex<String>>::default();
        let mut errors = BufReader::new(child.stderr.take().expect("piped")).lines();
        let sink = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                sink.lock().expect("not poisoned").push_str(&(line + "\n"));
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it starts in time");
        let line = line.expect("readable").unwrap_or_default();
        let address = line.strip_prefix("listening on http://").map(str::to_owned);
        let said = || log.lock().expect("not poisoned").clone();
        let address = address.unwrap_or_else(|| panic!("it said {line:?} and {}", said()));
        Service { child, address, log }
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it has written to standard error.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    /// Sends a request and gives its status and body; `None` if the connection ended before.
    pub(crate) async fn try_request(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address).await.ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// The same, where an answer is a must.
    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.try_request(method, path, body).await;
        answer.unwrap_or_else(|| panic!("no answer to {method} {path}: {}", self.log()))
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().expect("a pid"));
        kill(pid, signal).expect("it can be signalled");
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends in time");
        (status.expect("it can be waited for"), self.log())
    }
}
