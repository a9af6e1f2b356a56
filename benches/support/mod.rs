//! What every bench needs: a database of its own on a durable Postgres, the machine's own figures,
//! medians of several runs, JSON lines and one table.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rowlock::config::Settings;
use rowlock::db::{self, Options, Pool};
use rowlock::embedded;
use rowlock::engine::{Engine, Wakeups};
use rowlock::model::AcquiredJob;
use rowlock::store::acquire::AcquireCall;
use rowlock::store::finish::Completion;
use uuid::Uuid;

/// How often each row is measured; the median stands in the report.
pub(crate) const RUNS: usize = 3;

/// A fresh Rowlock database and an engine on it.
pub(crate) struct Bench {
    /// The verbs.
    pub(crate) engine: Engine,
    /// A connection beside the pool, for looking.
    pub(crate) client: tokio_postgres::Client,
}

impl Bench {
    /// Makes the database on the cluster that `rowlock postgres run --durable` offers.
    pub(crate) async fn new(pool_size: u32) -> Bench {
        let offered = std::env::var("ROWLOCK_TEST_DATABASE_URL")
            .expect("run me with: rowlock postgres run --durable -- cargo bench");
        let name = format!("bench_{}", Uuid::new_v4().simple());
        let admin = connect(&offered).await;
        let fsync: String = admin.query_one("show fsync", &[]).await.expect("fsync").get(0);
        assert_eq!(fsync, "on", "figures without fsync are no figures");
        admin.batch_execute(&format!("create database {name}")).await.expect("a database");
        let url = offered.replacen(&format!("/{}", embedded::DATABASE), &format!("/{name}"), 1);
        let mut settings = Settings::default();
        settings.database.pool_size = pool_size;
        let mut client = connect(&url).await;
        db::migrate::run(&mut client, &settings.database.schema).await.expect("migrates");
        client.batch_execute("set search_path = rowlock").await.expect("search_path");
        let options = Options::new(url.parse().expect("a URL"), &settings.database);
        let pool = Pool::new(&options).expect("a pool");
        let engine = Engine::new(pool, &settings.queue, Wakeups::polling());
        Bench { engine, client }
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

    /// One number from the database.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.expect("counts").get(0)
    }

    /// Fails unless every invariant holds.
    pub(crate) async fn verify(&self) {
        let violations =
            self.count("select coalesce(sum(violations), 0)::bigint from verify()").await;
        assert_eq!(violations, 0, "invariants are broken");
    }
}

async fn connect(url: &str) -> tokio_postgres::Client {
    db::connect(&url.parse().expect("a URL")).await.expect("connects")
}

/// The middle of several figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Things a second.
pub(crate) fn rate(things: usize, took: Duration) -> f64 {
    things as f64 / took.as_secs_f64()
}

/// Milliseconds.
pub(crate) fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// One-row commits a second on a bare table, from so many clients: what the rest is read against.
pub(crate) async fn commits_per_second(clients: usize) -> f64 {
    let url = std::env::var("ROWLOCK_TEST_DATABASE_URL").expect("a cluster");
    let first = connect(&url).await;
    first.batch_execute("create table if not exists one_row (n int)").await.expect("a table");
    let window = Duration::from_secs(1);
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let client = connect(&url).await;
        tasks.push(tokio::spawn(async move {
            let insert = client.prepare("insert into one_row values (1)").await.expect("prepares");
            let (started, mut done) = (Instant::now(), 0_usize);
            while started.elapsed() < window {
                client.execute(&insert, &[]).await.expect("inserts");
                done += 1;
            }
            done
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await.expect("a client");
    }
    first.batch_execute("drop table one_row").await.expect("drops");
    rate(total, window)
}

/// The lines of one bench, written as they come.
pub(crate) struct Report {
    file: File,
    table: comfy_table::Table,
}

impl Report {
    /// A report in `target/bench/<name>.jsonl`; the machine's own figures go to `machine.jsonl`
    /// beside it.
    pub(crate) async fn begin(name: &str, columns: &[&str]) -> Report {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder).expect("target/bench can be made");
        let file = File::create(folder.join(format!("{name}.jsonl"))).expect("a file");
        let mut table = comfy_table::Table::new();
        table.set_header(columns.to_vec());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (one, ten) = (commits_per_second(1).await, commits_per_second(10).await);
        println!("{cores} cores, fsync on, one-row commits a second: {one:.0} (1), {ten:.0} (10)");
        let machine = serde_json::json!({
            "bench": name, "cores": cores, "commits_1": one.round(), "commits_10": ten.round(),
        });
        fs::write(folder.join("machine.jsonl"), format!("{machine}\n")).expect("a file");
        Report { file, table }
    }

    /// One JSON line.
    pub(crate) fn line(&mut self, line: &serde_json::Value) {
        writeln!(self.file, "{line}").expect("writes the report");
    }

    /// One line of the table.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.table.add_row(cells);
    }

    /// Prints the table.
    pub(crate) fn end(self) {
        println!("{}", self.table);
    }
}
