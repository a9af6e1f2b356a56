//! Crashes of the server under load: whatever was acknowledged is there, and every invariant holds.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock::embedded::{self, Cluster, Options, Profile};
use tokio_postgres::{Client, Error, NoTls};
use uuid::Uuid;

use crate::harness::sql::{column, pid, run, value};
use crate::harness::wait_until;

const DEADLINE: Duration = Duration::from_secs(60);

/// A durable cluster of the test's own: a killed backend takes all of them down.
pub(crate) struct Victim {
    folder: PathBuf,
    pub(crate) cluster: Cluster,
}

impl Victim {
    pub(crate) async fn new() -> Victim {
        let folder = embedded::fresh_data_dir(Profile::Throwaway);
        let cluster = embedded::start(&Options::durable(&folder)).await.expect("starts");
        let victim = Victim { folder, cluster };
        let mut client = victim.connect().await.expect("connects");
        let schema = "rowlock".parse().expect("a schema name");
        rowlock::db::migrate::run(&mut client, &schema).await.expect("installs");
        victim
    }

    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        let url = self.cluster.url(embedded::DATABASE);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("set search_path = rowlock").await?;
        Ok(client)
    }

    /// Once recovery is through.
    pub(crate) async fn connect_again(&self) -> Client {
        wait_until("it accepts connections", DEADLINE, || async { self.connect().await.is_ok() })
            .await;
        self.connect().await.expect("connects")
    }

    pub(crate) async fn end(self) {
        self.cluster.destroy().await.expect("is deleted");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What clients were told.
#[derive(Default)]
struct Acknowledged {
    enqueued: Mutex<HashSet<Uuid>>,
    completed: Mutex<HashSet<Uuid>>,
}

/// Enqueues, some of it as graphs, until the connection dies.
async fn produce(client: &Client, told: &Acknowledged) -> Result<(), Error> {
    let graph = serde_json::json!([
        {"kind": "p", "ref": "p"},
        {"kind": "c", "depends_on": ["p"]},
        {"kind": "c", "depends_on": ["p"]},
    ]);
    loop {
        let rows = client.query("select job_id from enqueue_many($1)", &[&graph]).await?;
        let parent: Uuid = rows[0].get(0);
        let mut ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let late = "select enqueue('late', depends_on => array[$1::uuid], max_attempts => 1)";
        told.enqueued.lock().expect("not poisoned").extend(ids.drain(..));
        let child: Uuid = client.query_one(late, &[&parent]).await?.get(0);
        told.enqueued.lock().expect("not poisoned").insert(child);
    }
}

/// Acquires and completes until the connection dies.
async fn consume(client: &Client, told: &Acknowledged) -> Result<(), Error> {
    let worker = Uuid::new_v4();
    loop {
        let sql = "select job_id, attempt, token from acquire($1, '{default}', 5)";
        let rows = client.query(sql, &[&worker]).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let attempts: Vec<i32> = rows.iter().map(|row| row.get(1)).collect();
        let tokens: Vec<Uuid> = rows.iter().map(|row| row.get(2)).collect();
        let sql = "select job_id, verdict from complete($1, $2, $3, $4)";
        let verdicts = client.query(sql, &[&worker, &ids, &attempts, &tokens]).await?;
        assert!(verdicts.iter().all(|row| row.get::<_, &str>(1) == "completed"), "{verdicts:?}");
        told.completed.lock().expect("not poisoned").extend(ids);
    }
}

/// Loads the server until every connection of the load has died; `strike` does that.
async fn under_load(victim: &Victim, strike: impl AsyncFnOnce()) -> Acknowledged {
    let told = Acknowledged::default();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push((
            victim.connect().await.expect("connects"),
            victim.connect().await.expect("connects"),
        ));
    }
    let ended = AtomicBool::new(false);
    let load = async {
        let pairs = clients.iter().map(|(producer, consumer)| async {
            tokio::join!(produce(producer, &told), consume(consumer, &told))
        });
        join_all(pairs).await;
        ended.store(true, Ordering::Relaxed);
    };
    let striking = async {
        wait_until("there is enough to lose", DEADLINE, || async {
            300 < told.completed.lock().expect("not poisoned").len()
        })
        .await;
        assert!(!ended.load(Ordering::Relaxed), "the load ended by itself");
        strike().await;
    };
    tokio::join!(load, striking);
    told
}

/// Everything acknowledged is there, nothing is broken, and the queue goes on.
async fn check(client: &Client, told: &Acknowledged) {
    let broken = "select v::text from verify() v where violations > 0";
    let violations: Vec<String> = column(client, broken).await;
    assert!(violations.is_empty(), "{violations:#?}");
    let there: HashSet<Uuid> = column(client, "select id from jobs").await.into_iter().collect();
    let completed: Vec<Uuid> =
        column(client, "select id from jobs where state = 'completed'").await;
    let completed: HashSet<Uuid> = completed.into_iter().collect();
    let lost = |wanted: &Mutex<HashSet<Uuid>>, have: &HashSet<Uuid>| {
        wanted.lock().expect("not poisoned").difference(have).count()
    };
    assert_eq!(lost(&told.enqueued, &there), 0, "enqueued jobs are gone");
    assert_eq!(lost(&told.completed, &completed), 0, "completions are gone");
    run(
        client,
        "update workers set lease_ends_at = now() - interval '1 s'; select * from maintain()",
    )
    .await;
    let running = "select count(*) from jobs where state = 'running'";
    assert_eq!(value::<i64>(client, running).await, 0);
    let violations: Vec<String> = column(client, broken).await;
    assert!(violations.is_empty(), "{violations:#?}");
}

#[tokio::test]
async fn a_killed_backend_takes_no_acknowledged_job_along() {
    let victim = Victim::new().await;
    let told = under_load(&victim, async || {
        // In mid-transaction, with every kind of row written and held.
        let client = victim.connect().await.expect("connects");
        run(&client, "begin; select enqueue('gone') from generate_series(1, 50)").await;
        run(&client, "select * from acquire(gen_random_uuid(), '{default}', 20)").await;
        let backend = pid(&client).await;
        kill(Pid::from_raw(backend), Signal::SIGKILL).expect("kill -9");
    })
    .await;
    let client = victim.connect_again().await;
    check(&client, &told).await;
    let gone = "select count(*) from jobs where kind = 'gone'";
    assert_eq!(value::<i64>(&client, gone).await, 0);
    drop(client);
    victim.end().await;
}

#[tokio::test]
async fn an_immediate_stop_takes_no_acknowledged_job_along() {
    let victim = Victim::new().await;
    let told = under_load(&victim, async || {
        // What `pg_ctl stop -m immediate` sends.
        kill(Pid::from_raw(victim.cluster.pid()), Signal::SIGQUIT).expect("quit");
    })
    .await;
    let Victim { folder, .. } = victim;
    let cluster = embedded::start(&Options::durable(&folder)).await.expect("starts again");
    let victim = Victim { folder, cluster };
    let client = victim.connect_again().await;
    check(&client, &told).await;
    drop(client);
    victim.end().await;
}
