//! `rowlock postgres`: the private Postgres, by hand.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, bail};
use clap::Subcommand;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock::embedded::{self, Cluster, DATABASE, Options, Profile, Status};
use tokio::signal::unix::{SignalKind, signal};

/// Arguments of `rowlock postgres`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the cluster. Default: /var/lib/rowlock/dev for root, else .rowlock/pg here.
    #[arg(long, env = "ROWLOCK_DATA_DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Say whether it runs, and where. Exits 3 when it does not.
    Status,
    /// Start it, or find it running.
    Start,
    /// Stop it; open transactions are rolled back.
    Stop,
    /// Open psql on it; further arguments are psql's.
    Psql {
        /// Handed to psql as they are.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a command with a cluster of its own, deleted afterwards.
    ///
    /// The command finds it in DATABASE_URL and ROWLOCK_TEST_DATABASE_URL. Its exit code is ours.
    Run {
        /// Make commits durable, as in production. Without it, speed comes first.
        #[arg(long)]
        durable: bool,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

const NOT_RUNNING: u8 = 3;

/// Runs one action.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let data_dir = args.data_dir.unwrap_or_else(embedded::default_data_dir);
    match args.action {
        Action::Status => show_status(data_dir).await,
        Action::Start => {
            let cluster = embedded::start(&Options::durable(data_dir)).await?;
            let how = if cluster.adopted() { "already running" } else { "started" };
            println!("{how}, process {}", cluster.pid());
            print_whereabouts(&cluster);
            Ok(ExitCode::SUCCESS)
        }
        Action::Stop => match embedded::status(&data_dir).await? {
            Status::Running(cluster) => {
                cluster.stop().await?;
                println!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            Status::Absent | Status::Stopped => {
                println!("not running");
                Ok(ExitCode::SUCCESS)
            }
        },
        Action::Psql { args } => open_psql(data_dir, args).await,
        Action::Run { durable, command } => run_with_cluster(durable, command).await,
    }
}

async fn show_status(data_dir: PathBuf) -> anyhow::Result<ExitCode> {
    let shown = data_dir.display();
    match embedded::status(&data_dir).await? {
        Status::Absent => println!("no cluster in {shown}"),
        Status::Stopped => println!("not running, cluster in {shown}"),
        Status::Running(cluster) => {
            println!("running, process {}", cluster.pid());
            print_whereabouts(&cluster);
            return Ok(ExitCode::SUCCESS);
        }
    }
    Ok(ExitCode::from(NOT_RUNNING))
}

fn print_whereabouts(cluster: &Cluster) {
    println!("folder  {}", cluster.data_dir().display());
    println!("log     {}", cluster.log_file().display());
    println!("url     {}", cluster.url(DATABASE));
    println!("psql    {}", cluster.psql_line());
}

async fn open_psql(data_dir: PathBuf, args: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let Status::Running(cluster) = embedded::status(&data_dir).await? else {
        bail!("no server runs in {}; start it with `rowlock postgres start`", data_dir.display());
    };
    // Server packages bring psql along; some bundles do not, and then PATH may have one.
    let beside = embedded::find_binaries().ok().map(|found| found.bin_dir.join("psql"));
    let psql = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("psql"));
    let error = std::process::Command::new(&psql).arg(cluster.url(DATABASE)).args(args).exec();
    Err(error).with_context(|| format!("run {}", psql.display()))
}

async fn run_with_cluster(durable: bool, command: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let profile = if durable { Profile::Durable } else { Profile::Throwaway };
    // Registered before the start, so that no signal can leave a cluster behind.
    let mut signals = Signals::register()?;
    let temporary = embedded::start_temporary(profile).await?;
    let status = run_command(temporary.cluster(), &command, &mut signals).await;
    temporary.destroy().await?;
    Ok(exit_code(status?))
}

async fn run_command(
    cluster: &Cluster,
    command: &[OsString],
    signals: &mut Signals,
) -> anyhow::Result<ExitStatus> {
    let (program, args) = command.split_first().context("a command is required")?;
    let url = cluster.url(DATABASE);
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .env("DATABASE_URL", &url)
        .env("ROWLOCK_TEST_DATABASE_URL", &url)
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            received = signals.next() => {
                // On Ctrl-C the terminal has told the command already.
                let told = received == Signal::SIGINT && std::io::stdin().is_terminal();
                if let Some(pid) = child.id().filter(|_| !told) {
                    // It may have ended in the meantime.
                    let _ = kill(Pid::from_raw(pid.try_into()?), received);
                }
            }
        }
    }
}

/// A shell's convention: 128 and the signal for a command that was killed.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn register() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hangup.recv() => Signal::SIGHUP,
        }
    }
}
