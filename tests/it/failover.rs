//! The primary dies, and a synchronous standby takes over.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock::embedded::{self, Cluster, Profile};
use rowlock::worker::{Job, Outcome};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_postgres::{Client, Config};
use uuid::Uuid;

use crate::harness::sql::{run, value};
use crate::harness::{Service, wait_until};
use crate::worker::{enqueue, execution, job, reaches, start, worker_at};

const DEADLINE: Duration = Duration::from_secs(60);
/// From the promotion to the first job that is taken.
const BACK: Duration = Duration::from_secs(15);
const PRODUCERS: usize = 4;
const ACKNOWLEDGED: usize = 200;

/// A primary and its standby, each in a folder of its own.
struct Pair {
    primary: Cluster,
    standby: Cluster,
    folders: [PathBuf; 2],
}

impl Pair {
    async fn start() -> Pair {
        let folder = embedded::fresh_data_dir(Profile::Throwaway);
        let copy = folder.with_extension("standby");
        let primary = launch(&folder).await;
        let schema = "rowlock".parse().expect("a schema name");
        let mut client = connect(&primary).await;
        rowlock::db::migrate::run(&mut client, &schema).await.expect("installs");
        drop(client);
        let socket = socket(&primary);
        primary.stop().await.expect("stops");

        succeeds(Command::new("cp").arg("-a").args([&folder, &copy]));
        // Sockets are its own.
        let _ = fs::remove_file(copy.join("socket-folder"));
        let _ = fs::remove_dir_all(copy.join("socket"));
        // Any file is such a signal, whose owner is the server's user.
        let [version, signal] = ["data/PG_VERSION", "data/standby.signal"].map(|it| copy.join(it));
        succeeds(Command::new("cp").arg("-a").args([version, signal]));
        let settings = copy.join("data/postgresql.auto.conf");
        let mut settings = OpenOptions::new().append(true).open(settings).expect("is there");
        let whence =
            format!("host={socket} port=5432 user={} application_name=standby", embedded::ROLE);
        let settings_text =
            format!("primary_conninfo = '{whence}'\nwal_retrieve_retry_interval = 100ms\n");
        settings.write_all(settings_text.as_bytes()).expect("is written");

        let primary = launch(&folder).await;
        let standby = launch(&copy).await;
        let client = connect(&primary).await;
        run(&client, "alter system set synchronous_standby_names = 'standby'").await;
        run(&client, "select pg_reload_conf()").await;
        let follows = "select count(*) = 1 from pg_stat_replication where sync_state = 'sync'";
        wait_until("the standby follows", DEADLINE, || async { value(&client, follows).await })
            .await;
        Pair { primary, standby, folders: [folder, copy] }
    }

    /// Both of them; whoever connects wants the one that can write.
    fn url(&self) -> String {
        let [first, second] = [&self.primary, &self.standby].map(socket);
        format!(
            "host={first},{second} port=5432,5432 user={} dbname={} \
             target_session_attrs=read-write",
            embedded::ROLE,
            embedded::DATABASE
        )
    }

    /// Ends the primary as a crash does, while the standby is behind, and makes that one primary.
    async fn fail_over(&self) -> Client {
        let (primary, client) = (connect(&self.primary).await, connect(&self.standby).await);
        let receiver = value(&client, "select pid from pg_stat_wal_receiver").await;
        kill(Pid::from_raw(receiver), Signal::SIGSTOP).expect("a signal");
        let waits = "select count(*) > 0 from pg_stat_activity where wait_event = 'SyncRep'";
        wait_until("a commit waits for it", DEADLINE, || async { value(&primary, waits).await })
            .await;
        let pid = Pid::from_raw(self.primary.pid());
        kill(pid, Signal::SIGQUIT).expect("a signal");
        wait_until("the primary has ended", DEADLINE, || async { kill(pid, None).is_err() }).await;
        // What lies in its socket is as good as on its way.
        for signal in [Signal::SIGTERM, Signal::SIGCONT] {
            kill(Pid::from_raw(receiver), signal).expect("a signal");
        }
        assert!(value::<bool>(&client, "select pg_promote()").await);
        client
    }

    async fn end(self) {
        self.standby.destroy().await.expect("is deleted");
        for folder in self.folders {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

async fn launch(folder: &std::path::Path) -> Cluster {
    embedded::start(&embedded::Options::durable(folder)).await.expect("starts")
}

async fn connect(cluster: &Cluster) -> Client {
    let url = cluster.url(embedded::DATABASE);
    rowlock::db::connect(&url.as_str().into()).await.expect("connects")
}

fn socket(cluster: &Cluster) -> String {
    let config: Config = cluster.url(embedded::DATABASE).parse().expect("a url");
    match &config.get_hosts()[0] {
        tokio_postgres::config::Host::Unix(folder) => folder.display().to_string(),
        tokio_postgres::config::Host::Tcp(name) => panic!("{name} is no socket"),
    }
}

fn succeeds(command: &mut Command) {
    assert!(command.status().expect("it can be run").success(), "{command:?}");
}

/// Enqueues one job after the other, each again until it is acknowledged.
async fn produce(service: &Service, told: &Mutex<Vec<Uuid>>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let id = Uuid::now_v7();
        let body = json!({"kind": "k", "queue": "other", "id": id}).to_string();
        loop {
            match service.request("POST", "/v1/jobs", &body).await.0 {
                200 | 201 => break,
                503 | 504 if !over.load(Ordering::Relaxed) => {}
                503 | 504 => return,
                status => panic!("{status}: {}", service.log()),
            }
        }
        told.lock().expect("not poisoned").push(id);
    }
}

#[tokio::test]
async fn a_failover_to_a_synchronous_standby_loses_nothing_acknowledged() {
    let pair = Pair::start().await;
    let url = pair.url();
    let service = Service::start(&["--database-url", &url]).await;
    let gate = Arc::new(Semaphore::new(0));
    let own = gate.clone();
    let running = start(worker_at(&url).queue("default", 1).on("k", move |_: Job| {
        let gate = own.clone();
        async move {
            gate.acquire().await.expect("it is never closed").forget();
            Ok::<_, String>(Outcome::Complete)
        }
    }));
    let client = connect(&pair.primary).await;
    let held = enqueue(&client, job("k")).await;
    reaches(&client, held, "running").await;

    let (told, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let count = || told.lock().expect("not poisoned").len();
    let producing = join_all((0..PRODUCERS).map(|_| produce(&service, &told, &over)));
    let striking = async {
        wait_until("many are acknowledged", DEADLINE, || async { ACKNOWLEDGED < count() }).await;
        let client = pair.fail_over().await;
        let before = count();
        wait_until("jobs are taken again", BACK, || async { before < count() }).await;
        // Each producer had a call under way.
        let more = before + 2 * PRODUCERS;
        wait_until("all producers go on", DEADLINE, || async { more < count() }).await;
        over.store(true, Ordering::Relaxed);
        client
    };
    let (_, client) = tokio::join!(producing, striking);

    let told = told.into_inner().expect("not poisoned");
    let query = "select count(*) from rowlock.jobs where id = any($1)";
    let there: i64 = client.query_one(query, &[&told]).await.expect("counts").get(0);
    assert_eq!(usize::try_from(there), Ok(told.len()), "acknowledged jobs are lost");
    // Its lease came along, and so its worker may end it.
    gate.add_permits(1);
    reaches(&client, held, "completed").await;
    assert_eq!(execution(&client, held, 1).await.0.as_deref(), Some("completed"));
    running.stop().await;
    drop(service);
    let broken = "select count(*) from rowlock.verify() where violations > 0";
    assert_eq!(value::<i64>(&client, broken).await, 0);
    drop(client);
    pair.end().await;
}
