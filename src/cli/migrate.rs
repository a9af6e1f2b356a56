//! `rowlock migrate`: brings the schema up, or prints the SQL that would.

use std::process::ExitCode;

use anyhow::Context;
use rowlock::db;
use rowlock::db::migrate;

use super::database::Database;

/// Arguments of `rowlock migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: Database,
    /// Print the SQL and change nothing. Without a database: that of a whole installation.
    #[arg(long)]
    dry_run: bool,
}

/// Migrates, or says what that would be.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let schema = args.database.schema();
    if args.dry_run && args.database.find().await?.is_none() {
        print!("{}", migrate::plan(schema));
        return Ok(ExitCode::SUCCESS);
    }
    let url = args.database.url().await?;
    let connecting = db::connect(&url).await;
    let mut client = connecting.with_context(|| format!("cannot connect to {url}"))?;
    if args.dry_run {
        print!("{}", migrate::plan_for(&client, schema).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let report = migrate::run(&mut client, schema).await?;
    if report.is_unchanged() {
        println!("schema {schema} is at version {}, nothing to do", report.version);
    } else {
        for migration in &report.applied {
            println!("applied {migration}");
        }
        println!("schema {schema} is at version {}", report.version);
    }
    Ok(ExitCode::SUCCESS)
}
