//! `rowlock work`: a command as a worker.
//!
//! The command is run once a job. It gets the args as JSON on standard input, with `--inputs` an
//! object of them and of what the parents gave, and the job's id,
//! attempt, kind and queue in its environment. The last line of its standard output that is JSON
//! is the result. Exit code 0 completes the job; any other fails it, with the end of its standard
//! error as the words.
//!
//! Each command has a process group of its own, which a stop ends as a whole. When `rowlock work`
//! itself is killed by SIGKILL, its commands run on, and their jobs run again elsewhere.

mod child;
mod tail;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use rowlock::config::{DatabaseUrl, LogSettings, defaults, units};
use rowlock::shutdown::Shutdown;
use rowlock::telemetry;
use rowlock::worker::{Job, Worker};

use super::database::Database;
use child::Program;

/// What the environment of a command tells it, beside what `rowlock work` itself was given.
pub(super) const TOLD: [&str; 4] =
    ["ROWLOCK_JOB_ID", "ROWLOCK_ATTEMPT", "ROWLOCK_KIND", "ROWLOCK_QUEUE"];

/// Arguments of `rowlock work`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The queues
    #[arg(required = true, value_name = "QUEUE")]
    queues: Vec<String>,
    /// How many jobs of each queue at once
    #[arg(long, short, default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// Only jobs of this kind; may be repeated. All kinds unless given
    #[arg(long, short)]
    kind: Vec<String>,
    /// Hand the command to `sh -c` as one line
    #[arg(long)]
    shell: bool,
    /// Give the command an object of the args and of the parents' results, by what the graph named
    /// them: {"args": ..., "inputs": {"REF": ...}}
    #[arg(long)]
    inputs: bool,
    /// The worker's name, for people
    #[arg(long)]
    name: Option<String>,
    /// How long the worker may be silent before its jobs are taken back (1s to 1d)
    #[arg(long, env = "ROWLOCK_LEASE", default_value = defaults::LEASE)]
    #[arg(value_parser = units::duration)]
    lease: Duration,
    /// How often to look for jobs without having been woken
    #[arg(long, env = "ROWLOCK_POLL", default_value = defaults::POLL)]
    #[arg(value_parser = units::duration)]
    poll: Duration,
    /// How long running commands may take to end after a stop was asked for
    #[arg(long, env = "ROWLOCK_DRAIN", default_value = defaults::DRAIN)]
    #[arg(value_parser = units::duration)]
    drain: Duration,
    /// A direct connection for LISTEN, where the database URL leads through a transaction pooler
    #[arg(long, env = "ROWLOCK_LISTEN_URL", hide_env_values = true, value_name = "URL")]
    listen_url: Option<DatabaseUrl>,
    /// How long a command may take to end after SIGTERM before it gets SIGKILL
    #[arg(long, default_value = "3s", value_parser = units::duration)]
    kill_after: Duration,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: LogSettings,
}

/// Works until a signal, then drains.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    telemetry::init(&args.log)?;
    let shutdown = Shutdown::new();
    shutdown.on_signals()?;
    let mut options = args.database.options().await?;
    options.settings.listen_url = args.listen_url;
    let program = Program::new(args.command, args.shell, args.inputs, args.kill_after);
    let mut worker = Worker::with_options(options)
        .lease(args.lease)
        .poll(args.poll)
        .drain(args.drain)
        // The command's own grace ends first, and by default both before the database would close
        // the execution as timed out.
        .stop_grace(args.kill_after + Duration::from_secs(1));
    for queue in args.queues {
        worker = worker.queue(queue, usize::from(args.concurrency));
    }
    if let Some(name) = args.name {
        worker = worker.name(name);
    }
    let handler = move |job: Job| {
        let program = program.clone();
        async move { program.run(&job).await }
    };
    let worker = if args.kind.is_empty() {
        worker.on_any(handler)
    } else {
        args.kind.into_iter().fold(worker, |worker, kind| worker.on(kind, handler.clone()))
    };
    worker.run(&shutdown).await?;
    shutdown.drain(args.drain).await;
    Ok(ExitCode::SUCCESS)
}
