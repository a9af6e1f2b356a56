//! `rowlock serve` as a child process, on a Postgres of its own unless `DATABASE_URL` names one.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rowlock::embedded::{self, DATABASE, Status};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::workers::terminate;

/// The first start makes a cluster, which takes a while on a slow disk.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(40);
const GLANCE: Duration = Duration::from_millis(100);

/// The running service.
pub(crate) struct Service {
    child: Child,
    pub(crate) program: PathBuf,
    pub(crate) port: u16,
    pub(crate) database_url: String,
    /// Whether the Postgres is the service's own.
    pub(crate) embedded: bool,
}

impl Service {
    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(wanted: u16) -> anyhow::Result<Self> {
        let program = find_program()?;
        let given = std::env::var("DATABASE_URL").ok().filter(|url| !url.trim().is_empty());
        let mut child = Command::new(&program)
            .args(["serve", "--log", "warn", "--port-fallback"])
            .args(["--listen", &format!("127.0.0.1:{wanted}")])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let port = port_of(&mut child).await?;
        if port != wanted {
            println!("Port {wanted} is taken; using {port}.");
        }
        wait_until_ready(&mut child, port).await?;
        let embedded = given.is_none();
        let database_url = match given {
            Some(url) => url,
            None => embedded_url().await?,
        };
        println!("Rowlock serves on http://127.0.0.1:{port}");
        Ok(Service { child, program, port, database_url, embedded })
    }

    /// What to type to start it by hand.
    pub(crate) fn command_line(&self) -> String {
        format!("{} serve{}", self.program.display(), self.data_dir_flag())
    }

    /// What finds its Postgres again in a shell without this one's variables.
    pub(crate) fn data_dir_flag(&self) -> String {
        let data_dir = std::env::var_os("ROWLOCK_DATA_DIR").filter(|_| self.embedded);
        data_dir.map(|folder| format!(" --data-dir '{}'", folder.display())).unwrap_or_default()
    }

    /// Lets it drain.
    pub(crate) async fn stop(mut self) {
        terminate(&self.child);
        // What does not end is killed when it is dropped.
        let _ = tokio::time::timeout(STOP_PATIENCE, self.child.wait()).await;
    }
}

/// The `rowlock` of the same build, which is next to the folder of the examples.
fn find_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find the pipeline's own program")?;
    let beside = own.parent().and_then(|examples| Some(examples.parent()?.join("rowlock")));
    if let Some(path) = beside.filter(|path| path.is_file()) {
        return Ok(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("rowlock")).find(|p| p.is_file());
    found.context("there is no `rowlock` beside this program or on the PATH: run `cargo build`")
}

/// The port that it says it listens on.
async fn port_of(child: &mut Child) -> anyhow::Result<u16> {
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(START_PATIENCE, lines.next_line()).await;
    let line = line.with_context(|| {
        format!("rowlock serve does not listen after {} s", START_PATIENCE.as_secs())
    })??;
    let Some(line) = line else {
        bail!("rowlock serve has ended: {}", child.wait().await?);
    };
    let port = line.rsplit(':').next().and_then(|port| port.parse().ok());
    port.with_context(|| format!("rowlock serve said {line:?} instead of where it listens"))
}

async fn wait_until_ready(child: &mut Child, port: u16) -> anyhow::Result<()> {
    let started = Instant::now();
    while !is_ready(port).await.unwrap_or(false) {
        if let Some(status) = child.try_wait()? {
            bail!("rowlock serve has ended: {status}");
        }
        if START_PATIENCE < started.elapsed() {
            bail!("rowlock serve is not ready after {} s", START_PATIENCE.as_secs());
        }
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}

async fn is_ready(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

async fn embedded_url() -> anyhow::Result<String> {
    let data_dir = std::env::var_os("ROWLOCK_DATA_DIR").map(PathBuf::from);
    let data_dir = data_dir.unwrap_or_else(embedded::default_data_dir);
    match embedded::status(&data_dir).await? {
        Status::Running(cluster) => Ok(cluster.url(DATABASE)),
        Status::Absent | Status::Stopped => {
            bail!("the service is ready, and yet no Postgres runs in {}", data_dir.display())
        }
    }
}
