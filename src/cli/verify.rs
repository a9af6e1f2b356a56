//! `rowlock verify`: every invariant of the model, checked.

use std::process::ExitCode;

use rowlock::engine::Finding;
use serde_json::{Value, json};

use super::database::Database;
use super::show;

/// Arguments of `rowlock verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: Database,
}

/// Prints a line an invariant; fails when one is violated.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let engine = args.database.patient_engine().await?;
    let findings = engine.verify().await?;
    if args.json {
        show::lines(findings.iter().map(finding_json))?;
    } else {
        let header = ["invariant", "violations", "sample"];
        show::table(&header, findings.iter().map(finding_row).collect(), "nothing to check")?;
    }
    let violated = findings.iter().any(|finding| 0 < finding.violations);
    Ok(if violated { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn finding_row(finding: &Finding) -> Vec<String> {
    let sample = show::or_dash(finding.sample.as_deref());
    vec![finding.invariant.clone(), finding.violations.to_string(), sample]
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "invariant": finding.invariant, "violations": finding.violations, "sample": finding.sample,
    })
}
