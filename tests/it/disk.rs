//! A disk that is full, and has room again. Only root may mount the small one: without that right
//! the test says so, and shows nothing.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::distr::Alphanumeric;
use rowlock::embedded;
use rowlock::worker::{Job, Outcome};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{column, run, value};
use crate::harness::{Service, wait_until};
use crate::sql::crash::Victim;
use crate::worker::{enqueue, execution, job, reaches, start, state, worker_at};

const DEADLINE: Duration = Duration::from_secs(30);
const JOBS: usize = 5;
/// Of text that cannot be compressed: more than the free room of a table's pages.
const LARGE: usize = 200_000;
const FULL: &str = "No space left on device";

/// A small file system of its own, unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// For the owner of a cluster, beside it; none where it cannot be mounted.
    fn mount(cluster: &Path) -> Option<Disk> {
        let path = cluster.with_extension("disk");
        let owner = fs::metadata(cluster.join("data")).expect("the cluster is there");
        let options = format!("size=40m,mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        fs::create_dir(&path).expect("the folder above is ours");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path);
        let output = command.output().expect("there is a mount");
        if !output.status.success() {
            eprintln!("SKIPPED, no disk: {}", String::from_utf8_lossy(&output.stderr));
            fs::remove_dir(&path).expect("it is empty");
            return None;
        }
        let disk = Disk(path);
        fs::create_dir(disk.tables()).expect("there is room");
        chown(disk.tables(), Some(owner.uid()), Some(owner.gid())).expect("we are root");
        Some(disk)
    }

    fn tables(&self) -> PathBuf {
        self.0.join("tables")
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("there is some room");
        for size in [1 << 20, 4096] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

fn large_text() -> String {
    let characters = rand::rng().sample_iter(Alphanumeric).take(LARGE);
    characters.map(char::from).collect()
}

/// How often the server has said that there is no room.
fn refusals(victim: &Victim) -> usize {
    let log = fs::read(victim.cluster.log_file()).expect("the server has a log");
    String::from_utf8_lossy(&log).matches(FULL).count()
}

/// Puts the queue's database on that disk; the log of the server stays where it is.
async fn move_database(victim: &Victim, disk: &Disk) {
    let url = victim.cluster.url("postgres");
    let client = rowlock::db::connect(&url.as_str().into()).await.expect("connects");
    let path = disk.tables().display().to_string();
    run(&client, &format!("create tablespace small location '{path}'")).await;
    let database = embedded::DATABASE;
    run(&client, &format!("alter database {database} set tablespace small")).await;
}

async fn attempts(client: &Client, id: Uuid) -> Vec<i32> {
    let sql = format!("select attempt from rowlock.executions where job_id = '{id}'");
    column(client, &sql).await
}

#[tokio::test]
async fn a_full_disk_refuses_for_now_and_takes_no_outcome_along() {
    let victim = Victim::new().await;
    let Some(disk) = Disk::mount(victim.cluster.data_dir()) else {
        return victim.end().await;
    };
    move_database(&victim, &disk).await;
    let url = victim.cluster.url(embedded::DATABASE);
    let client = victim.connect().await.expect("connects");
    let service = Service::start(&["--database-url", &url]).await;
    let gate = Arc::new(Semaphore::new(0));
    let own = gate.clone();
    let running = start(worker_at(&url).queue("default", JOBS).on("k", move |_: Job| {
        let gate = own.clone();
        async move {
            gate.acquire().await.expect("it is never closed").forget();
            Outcome::complete_with(&large_text())
        }
    }));
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(enqueue(&client, job("k")).await);
    }
    for id in &jobs {
        reaches(&client, *id, "running").await;
    }

    disk.fill();
    // Pages have some room of their own, so the first calls may still be taken.
    let body = json!({"kind": "k", "queue": "other", "args": {"text": large_text()}}).to_string();
    wait_until("there is no room for a job", DEADLINE, || async {
        let (status, answer) = service.request("POST", "/v1/jobs", &body).await;
        assert!(matches!(status, 201 | 503), "{status}: {answer}");
        status == 503
    })
    .await;
    let before = refusals(&victim);
    gate.add_permits(JOBS);
    wait_until("there is no room for results", DEADLINE, || async {
        before + 2 * JOBS <= refusals(&victim)
    })
    .await;
    for id in &jobs {
        assert_eq!(state(&client, *id).await, "running");
    }

    disk.free();
    for id in &jobs {
        reaches(&client, *id, "completed").await;
        assert_eq!(attempts(&client, *id).await, [1]);
        let (outcome, error, result) = execution(&client, *id, 1).await;
        assert_eq!((outcome.as_deref(), error), (Some("completed"), None));
        assert_eq!(result.expect("a result").as_str().map(str::len), Some(LARGE));
    }
    wait_until("there is room for jobs again", DEADLINE, || async {
        service.request("POST", "/v1/jobs", &body).await.0 == 201
    })
    .await;
    running.stop().await;
    drop(service);
    let broken = "select count(*) from rowlock.verify() where violations > 0";
    assert_eq!(value::<i64>(&client, broken).await, 0);
    drop(client);
    victim.end().await;
}
