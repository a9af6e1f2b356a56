//! `rowlock migrate`: brings the schema up, or prints the SQL that would.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use rowlock::config::{DatabaseUrl, defaults};
use rowlock::db;
use rowlock::db::migrate;
use rowlock::embedded::{self, Status};
use rowlock::model::SchemaName;

/// Arguments of `rowlock migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where Postgres is; without it, the private one, if it runs.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<DatabaseUrl>,
    /// The schema that holds the queue.
    #[arg(long, env = "ROWLOCK_SCHEMA", default_value = defaults::SCHEMA)]
    schema: SchemaName,
    /// The folder of the private Postgres. Default: /var/lib/rowlock/dev for root, else .rowlock/pg
    /// here.
    #[arg(long, env = "ROWLOCK_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print the SQL and change nothing. Without a database: that of a whole installation.
    #[arg(long)]
    dry_run: bool,
}

/// Migrates, or says what that would be.
pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let schema = &args.schema;
    let Some(url) = find_url(args.database_url, args.data_dir).await? else {
        if args.dry_run {
            print!("{}", migrate::plan(schema));
            return Ok(ExitCode::SUCCESS);
        }
        anyhow::bail!("no DATABASE_URL is set, and no Postgres of our own runs");
    };
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

async fn find_url(
    given: Option<DatabaseUrl>,
    data_dir: Option<PathBuf>,
) -> anyhow::Result<Option<DatabaseUrl>> {
    if let Some(url) = given.filter(|url| !url.is_empty()) {
        return Ok(Some(url));
    }
    let data_dir = data_dir.unwrap_or_else(embedded::default_data_dir);
    Ok(match embedded::status(&data_dir).await? {
        Status::Running(cluster) => Some(cluster.url(embedded::DATABASE).as_str().into()),
        Status::Absent | Status::Stopped => None,
    })
}
