//! Where the database is, for the commands of people.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rowlock::config::{DatabaseSettings, DatabaseUrl, Pooler, Settings, defaults};
use rowlock::db::{Options, Pool};
use rowlock::embedded::{self, DATABASE, Status};
use rowlock::engine::{Engine, Wakeups};
use rowlock::model::SchemaName;

/// Which database, and which schema in it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Database {
    /// Where Postgres is; without it, the private one if that runs
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<DatabaseUrl>,

    /// What stands between here and Postgres
    #[arg(long, env = "ROWLOCK_POOLER", default_value = defaults::POOLER)]
    pooler: Pooler,

    /// The schema that holds the queue
    #[arg(long, env = "ROWLOCK_SCHEMA", default_value = defaults::SCHEMA)]
    schema: SchemaName,

    /// The folder of the private Postgres
    #[arg(long, env = "ROWLOCK_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl Database {
    /// The schema that holds the queue.
    pub(super) fn schema(&self) -> &SchemaName {
        &self.schema
    }

    /// Where Postgres is: what was given, else the private one if that runs.
    pub(super) async fn find(&self) -> anyhow::Result<Option<DatabaseUrl>> {
        if let Some(url) = self.database_url.as_ref().filter(|url| !url.is_empty()) {
            return Ok(Some(url.clone()));
        }
        Ok(match embedded::status(&self.data_dir()).await? {
            Status::Running(cluster) => Some(cluster.url(DATABASE).as_str().into()),
            Status::Absent | Status::Stopped => None,
        })
    }

    /// The same, where there must be one.
    pub(super) async fn url(&self) -> anyhow::Result<DatabaseUrl> {
        self.find().await?.with_context(|| {
            format!(
                "no database: give --database-url or DATABASE_URL, or start the private Postgres \
                 with `rowlock serve` (looked in {})",
                self.data_dir().display()
            )
        })
    }

    /// The options to connect with.
    pub(super) async fn options(&self) -> anyhow::Result<Options> {
        let mut settings = Settings::default().database;
        settings.schema = self.schema.clone();
        settings.pooler = self.pooler;
        Ok(Options::new(self.url().await?, &settings))
    }

    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(embedded::default_data_dir)
    }

    /// The verbs, without wake-ups.
    pub(super) async fn engine(&self) -> anyhow::Result<Engine> {
        self.engine_with(&Settings::default().database).await
    }

    /// The same for what reads everything, and may take a day.
    pub(super) async fn patient_engine(&self) -> anyhow::Result<Engine> {
        let mut settings = Settings::default().database;
        settings.statement_timeout = Duration::ZERO;
        settings.call_timeout = Duration::from_secs(24 * 3600);
        self.engine_with(&settings).await
    }

    async fn engine_with(&self, settings: &DatabaseSettings) -> anyhow::Result<Engine> {
        let mut options = self.options().await?;
        options.settings.statement_timeout = settings.statement_timeout;
        options.settings.call_timeout = settings.call_timeout;
        options.settings.pool_size = 2;
        let pool = Pool::new(&options)?;
        Ok(Engine::new(pool, &Settings::default().queue, Wakeups::polling()))
    }
}
