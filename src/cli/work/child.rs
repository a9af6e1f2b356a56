//! One run of the command.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rowlock::worker::{Job, Outcome};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::{TOLD, tail};

/// How long the pipes of a command that has ended are read: its own children may hold them open.
const PIPES_PATIENCE: Duration = Duration::from_secs(1);

/// The command to run, and how to end it.
#[derive(Clone)]
pub(super) struct Program {
    command: Arc<[OsString]>,
    with_inputs: bool,
    kill_after: Duration,
}

impl Program {
    pub(super) fn new(
        command: Vec<OsString>,
        shell: bool,
        with_inputs: bool,
        kill_after: Duration,
    ) -> Self {
        let command = if shell {
            vec!["sh".into(), "-c".into(), command.join(&OsString::from(" "))]
        } else {
            command
        };
        Program { command: command.into(), with_inputs, kill_after }
    }

    /// Runs the command for one job.
    ///
    /// # Errors
    ///
    /// The words of the failed execution.
    pub(super) async fn run(&self, job: &Job) -> Result<Outcome, String> {
        let told = self.told(job).await?;
        let mut child = self.spawn(job).map_err(|error| {
            format!("{} could not be started: {error}", self.command[0].display())
        })?;
        // Its own process group has its id.
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feeding = tokio::spawn(async move {
            if let Some(mut stdin) = stdin {
                // A command that does not read its args is no fault.
                let _ = stdin.write_all(told.as_bytes()).await;
            }
        });
        let result = tokio::spawn(async move { tail::last_json(stdout?).await });
        let errors = tokio::spawn(async move {
            match stderr {
                Some(stderr) => tail::errors(stderr).await,
                None => String::new(),
            }
        });
        let status = self.wait(&mut child, group, job).await;
        feeding.abort();
        let status = status.map_err(|error| format!("the command was lost: {error}"))?;
        if status.success() {
            let result = patient(result).await.flatten();
            return Ok(result.map_or(Outcome::Complete, Outcome::CompleteWith));
        }
        let errors = patient(errors).await.unwrap_or_default();
        Err(if errors.is_empty() { status.to_string() } else { format!("{status}: {errors}") })
    }

    /// What the command reads.
    async fn told(&self, job: &Job) -> Result<String, String> {
        if !self.with_inputs {
            return Ok(job.raw_args().to_owned());
        }
        let inputs = job.inputs().await.map_err(|error| format!("its inputs: {error}"))?;
        if let Some(input) = inputs.iter().find(|input| input.omitted) {
            return Err(format!(
                "the result of {:?} is too large beside the others",
                input.reference
            ));
        }
        let inputs: BTreeMap<_, _> =
            inputs.iter().map(|input| (&input.reference, &input.result)).collect();
        let inputs = serde_json::to_string(&inputs).map_err(|error| error.to_string())?;
        Ok(format!(r#"{{"args":{},"inputs":{inputs}}}"#, job.raw_args()))
    }

    fn spawn(&self, job: &Job) -> std::io::Result<Child> {
        let (program, arguments) = self.command.split_first().expect("clap requires a command");
        let (id, attempt) = (job.id().to_string(), job.attempt().to_string());
        let told = TOLD.into_iter().zip([&id, &attempt, job.kind(), job.queue()]);
        Command::new(program)
            .args(arguments)
            .envs(told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is ours; what it means for the command, the drain decides.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for the end; told to stop, asks the group first and then does not ask.
    async fn wait(
        &self,
        child: &mut Child,
        group: Option<Pid>,
        job: &Job,
    ) -> std::io::Result<ExitStatus> {
        tokio::select! {
            status = child.wait() => return status,
            () = job.stopping().cancelled() => {}
        }
        signal(group, Signal::SIGTERM);
        let ended = tokio::time::timeout(self.kill_after, child.wait()).await;
        // What it started and left behind goes too.
        signal(group, Signal::SIGKILL);
        match ended {
            Ok(status) => status,
            Err(_) => child.wait().await,
        }
    }
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // It may have ended by now.
        let _ = killpg(group, signal);
    }
}

async fn patient<T>(reading: tokio::task::JoinHandle<T>) -> Option<T> {
    tokio::time::timeout(PIPES_PATIENCE, reading).await.ok()?.ok()
}
