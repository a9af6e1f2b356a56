//! `rowlock doctor`: an audit of the database.

use std::process::ExitCode;
use std::time::Duration;

use rowlock::config::{DatabaseUrl, defaults, units};
use rowlock::db::Pool;
use rowlock::doctor::{CHECKS, Duty, Finding, Severity, Subject, examine};
use serde_json::{Value, json};

use super::database::Database;
use super::show;

/// Arguments of `rowlock doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One object a line
    #[arg(long)]
    json: bool,
    /// Whose rights are looked at
    #[arg(long = "for", value_name = "WHO", default_value = "service")]
    #[arg(value_parser = duty)]
    duty: Duty,
    /// For how long a session may keep dead rows from being removed
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::duration)]
    bound: Duration,
    /// A direct connection for LISTEN, where the database URL leads through a transaction pooler
    #[arg(long, env = "ROWLOCK_LISTEN_URL", hide_env_values = true, value_name = "URL")]
    listen_url: Option<DatabaseUrl>,
    /// The most connections that a process holds at once
    #[arg(long, env = "ROWLOCK_POOL_SIZE", default_value = defaults::POOL_SIZE)]
    pool_size: u32,
    #[command(flatten)]
    database: Database,
}

fn duty(word: &str) -> Result<Duty, &'static str> {
    let known = [Duty::Service, Duty::Worker].into_iter().find(|duty| duty.as_str() == word);
    known.ok_or("use service or worker")
}

/// Prints what was found, the worst first; fails when something is an error.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut options = args.database.options().await?;
    options.settings.listen_url = args.listen_url;
    options.settings.pool_size = 1;
    let pool = Pool::new(&options)?;
    options.settings.pool_size = args.pool_size;
    let subject = Subject { options, duty: args.duty, bound: args.bound };
    let findings = examine(&pool, &subject).await?;
    let count = |severity| findings.iter().filter(|found| found.severity == severity).count();
    if args.json {
        show::lines(findings.iter().map(finding_json))?;
    } else {
        for Finding { check, severity, found, advice } in &findings {
            show::line(&format!("{:<8} {check}: {found}", severity.as_str()))?;
            show::line(&format!("{:<8} - {advice}", ""))?;
        }
        show::line(&format!(
            "{} checks: {} error(s), {} warning(s), {} more to know",
            CHECKS.len(),
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Info)
        ))?;
    }
    Ok(if count(Severity::Error) == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "check": finding.check, "severity": finding.severity.as_str(),
        "found": finding.found, "advice": finding.advice,
    })
}
