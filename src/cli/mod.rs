//! The command line: one file and one variant per subcommand.

mod database;
mod doctor;
mod enqueue;
mod explain;
mod jobs;
mod migrate;
mod operate;
mod postgres;
mod serve;
mod show;
mod stats;
mod token;
mod verify;
mod work;
mod workflow;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The exit code for what is not there; 1 is any other failure and 2 wrong usage.
const NOT_FOUND: u8 = 3;

/// A Postgres-only job queue.
#[derive(Debug, Parser)]
#[command(name = "rowlock", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    ///
    /// Without DATABASE_URL it starts a Postgres of its own, and stops it at the end.
    Serve(Box<serve::Args>),
    /// Bring the schema up, or print the SQL that would.
    Migrate(migrate::Args),
    /// Run a command for each job of some queues.
    ///
    /// The command gets the args as JSON on standard input, and ROWLOCK_JOB_ID, ROWLOCK_ATTEMPT,
    /// ROWLOCK_KIND and ROWLOCK_QUEUE in its environment. The last line of its standard output
    /// that is JSON is the result; exit code 0 completes the job. A stop ends the command too; but
    /// when this process itself is killed by SIGKILL, the command runs on, and its job runs again
    /// elsewhere once the lease has ended.
    Work(work::Args),
    /// Enqueue a job and print its id.
    Enqueue(enqueue::Args),
    /// List jobs, newest first.
    Jobs(jobs::ListArgs),
    /// Show one job with its executions. Exits 3 when there is none.
    Job(jobs::ShowArgs),
    /// Show depth, latency, outcomes and workers.
    Stats(stats::Args),
    /// Check every invariant. Exits 1 when one is violated.
    Verify(verify::Args),
    /// Examine the database: what is unsafe or slow, who causes it, what to do.
    ///
    /// Exits 1 when something is an error.
    Doctor(doctor::Args),
    /// Cancel jobs that wait, and ask those that run to stop.
    Cancel(operate::Args),
    /// Let discarded and cancelled jobs run again.
    Retry(operate::Args),
    /// Give jobs another priority.
    Reprioritize(operate::ReprioritizeArgs),
    /// Say why a job is not running. Exits 3 when there is none.
    Explain(explain::Args),
    /// List workflows, newest first.
    Workflows(workflow::ListArgs),
    /// Draw a workflow, again and again until it has ended; or cancel or retry it.
    ///
    /// Exits 3 when there is none, 1 when others kept some of its jobs from being cancelled or
    /// retried.
    Workflow(workflow::Args),
    /// Create, list, rotate and revoke the tokens of the HTTP API, as the owner of the schema.
    ///
    /// A token is shown once, when it is made. `rowlock serve` wants one from everybody where
    /// ROWLOCK_TOKEN or ROWLOCK_TOKENS=true is set.
    Token(token::Args),
    /// Look after the private Postgres.
    Postgres(postgres::Args),
}

/// Runs the subcommand that was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Work(args) => work::run(args).await,
        Command::Enqueue(args) => enqueue::run(args).await,
        Command::Jobs(args) => jobs::list(args).await,
        Command::Job(args) => jobs::show(args).await,
        Command::Stats(args) => stats::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Cancel(args) => operate::cancel(args).await,
        Command::Retry(args) => operate::retry(args).await,
        Command::Reprioritize(args) => operate::reprioritize(args).await,
        Command::Explain(args) => explain::run(args).await,
        Command::Workflows(args) => workflow::list(args).await,
        Command::Workflow(args) => workflow::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Postgres(args) => postgres::run(args).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, CommandFactory};

    use super::*;

    const PAGE: &str = include_str!("../../docs/CONFIGURATION.md");

    /// A line of the page's tables.
    fn line(arg: &Arg) -> String {
        let code = |text: Option<String>| text.map_or("none".to_owned(), |it| format!("`{it}`"));
        let takes_value = arg.get_action().takes_values();
        let default = arg.get_default_values().first().filter(|_| takes_value);
        let default = default.map(|value| value.to_string_lossy().into_owned());
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        let flag = arg.get_long().map(|flag| format!("--{flag}"));
        let help = arg.get_help().expect("every flag is explained").to_string();
        let help = help.trim_end_matches('.');
        format!("| {} | {} | {} | {help} |", code(variable), code(flag), code(default))
    }

    #[test]
    fn the_page_on_configuration_has_every_setting_of_serve() {
        let mut command = Cli::command();
        command.build();
        let serve = command.find_subcommand("serve").expect("it is there");
        let flags = serve.get_arguments().filter(|arg| arg.get_id() != "help");
        let own: Vec<String> = flags.map(line).collect();
        let listed: Vec<&str> = PAGE
            .lines()
            .skip_while(|line| *line != "## The service")
            .take_while(|line| *line != "## Elsewhere")
            .filter(|line| line.starts_with("| `") || line.starts_with("| none"))
            .collect();
        assert_eq!(listed, own);
    }

    #[test]
    fn the_page_on_configuration_has_the_variables_of_every_command() {
        let mut command = Cli::command();
        command.build();
        let mut seen = 0;
        for subcommand in command.get_subcommands() {
            for arg in subcommand.get_arguments().filter(|arg| arg.get_env().is_some()) {
                // The words may be others, variable, flag and default may not.
                let line = line(arg);
                let cells: String = line.split_inclusive(" | ").take(3).collect();
                assert!(PAGE.contains(&cells), "{} takes {cells}", subcommand.get_name());
                seen += 1;
            }
        }
        assert!(10 < seen, "only {seen} variables were found");
    }

    #[test]
    fn the_page_and_the_help_name_what_a_command_of_work_is_told() {
        let mut command = Cli::command();
        let work = command.find_subcommand_mut("work").expect("it is there");
        let help = work.render_long_help().to_string();
        for name in work::TOLD {
            assert!(help.contains(name), "{name} is not in {help}");
            assert!(PAGE.contains(&format!("| `{name}` |")), "{name} is not on the page");
        }
    }
}
