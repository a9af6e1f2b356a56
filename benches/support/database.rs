//! A fresh Rowlock database, filled and looked at.

use rowlock::config::Settings;
use rowlock::db::{self, Options, Pool};
use rowlock::engine::{Engine, Wakeups};
use rowlock::model::{AcquiredJob, NewJob};
use rowlock::store::acquire::AcquireCall;
use rowlock::store::finish::Completion;
use rowlock::{Client, embedded};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::rate;

/// The queue of all jobs whose queue does not matter.
pub(crate) const QUEUE: &str = "bench";

/// Jobs of one call of a fill: as many as a call may have.
const FILL_BATCH: usize = 10_000;

/// A fresh Rowlock database and an engine on it.
pub(crate) struct Bench {
    /// The verbs.
    pub(crate) engine: Engine,
    /// A connection beside the pool, for looking.
    pub(crate) client: tokio_postgres::Client,
    /// Where it is, for other processes.
    pub(crate) url: String,
    name: String,
}

/// Jobs that do nothing, without a word of args.
pub(crate) fn noop() -> NewJob {
    let args = RawValue::from_string("{}".to_owned()).expect("JSON");
    NewJob::from_raw("noop", args).queue(QUEUE)
}

/// The cluster that `rowlock postgres run --durable` offers.
pub(crate) fn cluster_url() -> String {
    std::env::var("ROWLOCK_TEST_DATABASE_URL")
        .expect("run me with: rowlock postgres run --durable -- cargo bench")
}

/// One plain connection.
pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    db::connect(&url.into()).await.expect("connects")
}

/// An engine that only polls, with a pool of so many connections, which open when needed.
pub(crate) fn open_engine(url: &str, pool_size: u32) -> Engine {
    let mut settings = Settings::default();
    settings.database.pool_size = pool_size;
    let options = Options::new(url.into(), &settings.database);
    Engine::new(Pool::new(&options).expect("a pool"), &settings.queue, Wakeups::polling())
}

impl Bench {
    /// Makes the database, with the schema in it and a pool of so many connections.
    pub(crate) async fn new(pool_size: u32) -> Bench {
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let url = create_database(&name).await;
        let mut client = connect(&url).await;
        let schema = Settings::default().database.schema;
        db::migrate::run(&mut client, &schema).await.expect("migrates");
        client.batch_execute("set search_path = rowlock").await.expect("search_path");
        Bench { engine: open_engine(&url, pool_size), client, url, name }
    }

    /// The same with the pool that a program gets by default.
    pub(crate) async fn plain() -> Bench {
        Bench::new(Settings::default().database.pool_size).await
    }

    /// Drops the database, whoever is still connected.
    pub(crate) async fn end(self) {
        let Bench { engine, client, name, .. } = self;
        drop((engine, client));
        drop_database(&name).await;
    }

    /// Enqueues so many jobs from two connections, each made by its number.
    pub(crate) async fn fill(&self, count: usize, job: fn(usize) -> NewJob) {
        let mut fillers = JoinSet::new();
        for filler in 0..2 {
            let connection = connect(&self.url).await;
            fillers.spawn(async move {
                for start in (filler * FILL_BATCH..count).step_by(2 * FILL_BATCH) {
                    let jobs: Vec<_> = (start..count.min(start + FILL_BATCH)).map(job).collect();
                    Client::default().enqueue(&connection, &jobs).await.expect("enqueues");
                }
            });
        }
        fillers.join_all().await;
    }

    /// Acquires up to so many jobs of a queue.
    pub(crate) async fn acquire(
        &self,
        worker: Uuid,
        queue: &str,
        max_jobs: i32,
    ) -> Vec<AcquiredJob> {
        let call = AcquireCall { max_jobs, ..AcquireCall::new(worker, vec![queue.to_owned()]) };
        self.engine.acquire(call).await.expect("acquires")
    }

    /// Completes all of them.
    pub(crate) async fn complete(&self, worker: Uuid, jobs: &[AcquiredJob]) {
        let entries: Vec<Completion> = jobs.iter().map(|job| (job.execution, None)).collect();
        let verdicts = self.engine.complete(worker, entries).await.expect("completes");
        assert!(verdicts.iter().all(|verdict| verdict.as_str() == "completed"), "{verdicts:?}");
    }

    /// Jobs a second from the start of the first execution to the end of the last one of `upto`,
    /// by the order of their ends; from the end of execution `after` where that is not 0.
    pub(crate) async fn drain_rate(&self, after: usize, upto: usize) -> f64 {
        let sql = "with ends as (
                select finished_at, row_number() over (order by finished_at) as n
                from executions where outcome = 'completed')
            select extract(epoch from (select finished_at from ends where n = $2::bigint)
                - case when $1::bigint = 0 then (select min(started_at) from executions)
                    else (select finished_at from ends where n = $1::bigint) end)::float8";
        let places = [after, upto].map(|place| i64::try_from(place).expect("a count"));
        let row = self.client.query_one(sql, &[&places[0], &places[1]]).await.expect("a time");
        let seconds: Option<f64> = row.get(0);
        let seconds = seconds.unwrap_or_else(|| panic!("{upto} jobs were not completed"));
        rate(upto - after, std::time::Duration::from_secs_f64(seconds))
    }

    /// One number from the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.expect("counts").get(0)
    }

    /// Fails unless so many jobs are completed and so many wait.
    pub(crate) async fn expect(&self, completed: usize, ready: usize) {
        let completed_jobs = "select count(*) from jobs where state = 'completed'";
        let found = (self.count(completed_jobs).await, self.ready().await);
        let wanted = (i64::try_from(completed).expect("few"), i64::try_from(ready).expect("few"));
        assert_eq!(found, wanted, "jobs completed, and ready");
    }

    /// How many jobs are ready.
    pub(crate) async fn ready(&self) -> i64 {
        self.count("select count(*) from ready").await
    }

    /// Fails unless every invariant holds.
    pub(crate) async fn verify(&self) {
        let violations =
            self.count("select coalesce(sum(violations), 0)::bigint from verify()").await;
        assert_eq!(violations, 0, "invariants are broken");
    }
}

/// Makes a database on the cluster, and says where it is.
pub(crate) async fn create_database(name: &str) -> String {
    let offered = cluster_url();
    let admin = connect(&offered).await;
    admin.batch_execute(&format!("create database {name}")).await.expect("a database");
    offered.replacen(&format!("/{}", embedded::DATABASE), &format!("/{name}"), 1)
}

/// Drops a database of the cluster.
pub(crate) async fn drop_database(name: &str) {
    let admin = connect(&cluster_url()).await;
    admin.batch_execute(&format!("drop database {name} with (force)")).await.expect("drops");
}
