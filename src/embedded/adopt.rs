//! Telling a running cluster from the traces of a dead one.
//!
//! `postmaster.pid` outlives a crash, and its process id may by then belong to anybody. So a
//! cluster runs when the server on its socket names our own `data_directory`; the process id only
//! decides whether an answer is worth waiting for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Config, NoTls};

use super::layout::{Layout, PORT};
use super::owner::Owner;
use super::{Error, ROLE};

/// Crash recovery and shutdown checkpoints take this long at most on a development machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// A process id that no kernel hands out.
const NO_PROCESS: i32 = i32::MAX;

#[derive(Debug)]
pub(super) enum Found {
    Running { pid: i32, socket_dir: PathBuf },
    Nothing,
}

/// The lines of `postmaster.pid` that matter here.
#[derive(Debug, PartialEq, Eq)]
struct PidFile {
    pid: i32,
    /// Absent while the server is still starting.
    socket_dir: Option<PathBuf>,
}

/// Finds the running cluster, waiting out a start or a stop that is under way.
pub(super) async fn look(layout: &Layout) -> Result<Found, Error> {
    let started = Instant::now();
    loop {
        let Some(PidFile { pid, socket_dir }) = read_pid_file(layout) else {
            return Ok(Found::Nothing);
        };
        if let Some(socket_dir) = socket_dir
            && let Some(answer) = ask_data_directory(&socket_dir).await
        {
            let ours = answer.canonicalize().is_ok_and(|answer| answer == layout.data());
            return Ok(if ours { Found::Running { pid, socket_dir } } else { Found::Nothing });
        }
        if !is_postmaster(pid, layout) {
            return Ok(Found::Nothing);
        }
        if ANSWER_DEADLINE < started.elapsed() {
            let seconds = ANSWER_DEADLINE.as_secs();
            return Err(Error::Unresponsive { pid, seconds, log: layout.log() });
        }
        sleep(POLL).await;
    }
}

/// Clears the traces of a dead server, so that an innocent process with its id cannot keep
/// Postgres from starting. Only under the launch lock and after [`look`] found nothing.
///
/// The pid file is kept and only its process id replaced: Postgres reads the rest of it to make
/// sure that no orphaned backend still works on the same shared memory.
pub(super) fn clear_traces(layout: &Layout, socket_dir: &Path, owner: &Owner) -> Result<(), Error> {
    if let Ok(text) = fs::read_to_string(layout.pid_file())
        && let Some((_, rest)) = text.split_once('\n')
    {
        layout.write(&layout.pid_file(), &format!("{NO_PROCESS}\n{rest}"), owner)?;
    }
    for name in [format!(".s.PGSQL.{PORT}"), format!(".s.PGSQL.{PORT}.lock")] {
        let path = socket_dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("delete", path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Signals the postmaster and waits until it has gone.
pub(super) async fn shut_down(layout: &Layout, pid: i32, signal: Signal) -> Result<(), Error> {
    let ours = || read_pid_file(layout).is_some_and(|file| file.pid == pid);
    if !ours() || !is_postmaster(pid, layout) {
        return Ok(());
    }
    // It may have exited since, which is what we want.
    let _ = kill(Pid::from_raw(pid), signal);
    let started = Instant::now();
    while ours() && is_postmaster(pid, layout) {
        if STOP_DEADLINE < started.elapsed() {
            let seconds = STOP_DEADLINE.as_secs();
            return Err(Error::NotStopping { pid, seconds, log: layout.log() });
        }
        sleep(POLL).await;
    }
    Ok(())
}

fn read_pid_file(layout: &Layout) -> Option<PidFile> {
    parse_pid_file(&fs::read_to_string(layout.pid_file()).ok()?)
}

fn parse_pid_file(text: &str) -> Option<PidFile> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok().filter(|pid| 0 < *pid && *pid != NO_PROCESS)?;
    let socket_dir = lines.nth(3).filter(|line| !line.is_empty()).map(PathBuf::from);
    Some(PidFile { pid, socket_dir })
}

/// Asks the server behind a socket which folder it serves; `None` when nobody answers.
async fn ask_data_directory(socket_dir: &Path) -> Option<PathBuf> {
    let mut config = Config::new();
    config.host_path(socket_dir).port(PORT).user(ROLE).dbname("postgres");
    let ask = async {
        let (client, connection) = config.connect(NoTls).await.ok()?;
        let connection = tokio::spawn(connection);
        let row = client.query_one("select current_setting('data_directory')", &[]).await;
        drop(client);
        let _ = connection.await;
        row.ok()?.try_get::<_, String>(0).ok()
    };
    timeout(CONNECT_TIMEOUT, ask).await.ok().flatten().map(PathBuf::from)
}

/// Whether a process is alive and is the server of this folder.
fn is_postmaster(pid: i32, layout: &Layout) -> bool {
    // EPERM means another user's process, and ours is always in reach.
    if kill(Pid::from_raw(pid), None).is_err() {
        return false;
    }
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return named_postgres_by_ps(pid);
    };
    let Some((name, state)) = parse_stat(&stat) else { return false };
    if state == 'Z' || state == 'X' {
        return false;
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(current_dir) => current_dir == layout.data() || current_dir == layout.home,
        // A container may deny root this link.
        Err(_) => name == "postgres" || name == "postmaster",
    }
}

/// Program name and state from `/proc/<pid>/stat`.
fn parse_stat(stat: &str) -> Option<(&str, char)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, fields) = rest.rsplit_once(')')?;
    Some((name, fields.trim_start().chars().next()?))
}

/// For systems without `/proc`.
fn named_postgres_by_ps(pid: i32) -> bool {
    let output = Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.is_ok_and(|text| !text.trim_start().starts_with('Z') && text.contains("postgres"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_are_read_in_every_stage() {
        let ready = "4242\n/data\n1700000000\n5432\n/run/x\n\n  1 2\nready   \n";
        let file = parse_pid_file(ready).expect("a pid file");
        assert_eq!(file, PidFile { pid: 4242, socket_dir: Some("/run/x".into()) });
        let starting = parse_pid_file("4242\n/data\n1700000000\n5432\n").expect("a pid file");
        assert_eq!(starting.socket_dir, None);
        assert_eq!(parse_pid_file(""), None);
        assert_eq!(parse_pid_file("-7\n/data\n"), None);
        assert_eq!(parse_pid_file(&format!("{NO_PROCESS}\n/data\n")), None);
    }

    #[test]
    fn stat_is_read_whatever_the_program_is_called() {
        assert_eq!(parse_stat("7 (postgres) S 1 7"), Some(("postgres", 'S')));
        assert_eq!(parse_stat("7 (a) (b) Z 1 7"), Some(("a) (b", 'Z')));
        assert_eq!(parse_stat(""), None);
    }
}
