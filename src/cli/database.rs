//! Where the database is, for the commands of people.

use anyhow::bail;
use rowlock::config::{DatabaseUrl, Settings, defaults};
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

    /// The schema that holds the queue
    #[arg(long, env = "ROWLOCK_SCHEMA", default_value = defaults::SCHEMA)]
    schema: SchemaName,

    /// The folder of the private Postgres
    #[arg(long, env = "ROWLOCK_DATA_DIR")]
    data_dir: Option<std::path::PathBuf>,
}

impl Database {
    /// The options to connect with.
    pub(super) async fn options(&self) -> anyhow::Result<Options> {
        let mut settings = Settings::default().database;
        settings.schema = self.schema.clone();
        if let Some(url) = self.database_url.as_ref().filter(|url| !url.is_empty()) {
            return Ok(Options::new(url.clone(), &settings));
        }
        let data_dir = self.data_dir.clone().unwrap_or_else(embedded::default_data_dir);
        match embedded::status(&data_dir).await? {
            Status::Running(cluster) => {
                Ok(Options::new(cluster.url(DATABASE).as_str().into(), &settings))
            }
            Status::Absent | Status::Stopped => bail!(
                "no database: give --database-url or DATABASE_URL, or start the private Postgres \
                 with `rowlock serve` (looked in {})",
                data_dir.display()
            ),
        }
    }

    /// The verbs, without wake-ups.
    pub(super) async fn engine(&self) -> anyhow::Result<Engine> {
        let mut options = self.options().await?;
        options.settings.pool_size = 2;
        let pool = Pool::new(&options)?;
        Ok(Engine::new(pool, &Settings::default().queue, Wakeups::polling()))
    }
}
