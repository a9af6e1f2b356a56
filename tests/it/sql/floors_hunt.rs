//! Producers slow and quick, workers, and floors that rise all the while: no job is passed by.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, column, complete, drain, release, run, value};

const FOR: Duration = Duration::from_secs(4);
const PRODUCERS: u64 = 6;
const WORKERS: u64 = 2;

/// Enqueues in transactions of random length, and takes some of it back.
async fn produce(client: Client, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        run(&client, "begin").await;
        for _ in 0..rng.random_range(1..4) {
            let undone = rng.random_bool(0.3);
            if undone {
                run(&client, "savepoint a").await;
            }
            let (jobs, priority) = (rng.random_range(1..40), rng.random_range(4..7));
            let fill = format!(
                "select enqueue('k', priority => {priority}) from generate_series(1, {jobs})"
            );
            run(&client, &fill).await;
            // Not a wait for anything: what is tested is how long it stays open.
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..20))).await;
            if undone {
                run(&client, "rollback to a").await;
            }
        }
        let end = if rng.random_bool(0.2) { "rollback" } else { "commit" };
        run(&client, end).await;
    }
}

/// Acquires and completes; a few go back.
async fn work(client: Client, mut rng: StdRng, end: Instant) {
    let worker = Uuid::new_v4();
    while Instant::now() < end {
        let got = acquire(&client, worker, rng.random_range(1..200)).await;
        let back = if rng.random_bool(0.1) { got.len() / 4 } else { 0 };
        release(&client, &got[..back]).await;
        complete(&client, &got[back..]).await;
    }
}

/// The duty, as a server runs it; gives how often floors rose.
async fn raise(client: Client, end: Instant) -> i64 {
    let sql = "select mark_after, holders_after, server_after, done
               from try_floors($1, $2, $3, 100)";
    let mut notes: (Option<i64>, Vec<String>, Option<String>) = (None, Vec::new(), None);
    let mut rose = 0;
    while Instant::now() < end {
        let row = client.query_one(sql, &[&notes.0, &notes.1, &notes.2]).await.expect("runs");
        notes = (row.get(0), row.get(1), row.get(2));
        rose += row.get::<_, i64>(3);
    }
    rose
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_inserts_late_is_never_passed() {
    let db = Db::new().await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let end = Instant::now() + FOR;
    let mut hunters = Vec::new();
    for n in 0..PRODUCERS + WORKERS {
        let (client, rng) = (db.connect().await, StdRng::seed_from_u64(seed.wrapping_add(n)));
        hunters.push(match n {
            0..PRODUCERS => tokio::spawn(produce(client, rng, end)),
            _ => tokio::spawn(work(client, rng, end)),
        });
    }
    let rose = raise(db.connect().await, end).await;
    for hunter in hunters {
        hunter.await.expect("a hunter ends well");
    }
    let client = db.connect().await;
    let left = drain(&client).await;
    let jobs: i64 = value(&client, "select count(*) from jobs").await;
    println!("{jobs} jobs, {left} of them in the end; floors rose {rose} times");
    assert!(rose >= 5, "floors rose {rose} times only: nothing was tested");
    let skipped: Vec<String> =
        column(&client, "select j::text from jobs j where state <> 'completed'").await;
    assert!(skipped.is_empty(), "{} were skipped: {:?}", skipped.len(), skipped[0]);
    let twice = "select count(*) from (select job_id from executions where outcome = 'completed'
                 group by job_id having count(*) > 1) x";
    assert_eq!(value::<i64>(&client, twice).await, 0);
    db.finish().await;
}
