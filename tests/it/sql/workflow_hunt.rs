//! Workers, an operator who cancels and one who retries, all at one workflow at once: no deadlock,
//! nothing stranded, and no job ran before what it waits for.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, complete, discard, enqueue_many, run, value};

const JOBS: usize = 1_500;
const WORKERS: usize = 3;
const FOR: Duration = Duration::from_secs(4);
const DEADLINE: Duration = Duration::from_secs(60);

/// A random graph, each job after up to three of the two hundred before it; the call in any order.
fn graph(id: Uuid, rng: &mut StdRng) -> Value {
    let mut jobs: Vec<Value> = (0..JOBS)
        .map(|place| {
            let count = if place < 20 { 0 } else { rng.random_range(0..=3) };
            let parents: Vec<String> = (0..count)
                .map(|_| rng.random_range(place.saturating_sub(200)..place).to_string())
                .collect();
            json!({"kind": "k", "ref": place.to_string(), "depends_on": parents})
        })
        .collect();
    for place in (1..jobs.len()).rev() {
        jobs.swap(place, rng.random_range(0..=place));
    }
    json!({"workflow": {"name": "hunted", "id": id}, "jobs": jobs})
}

/// Runs what comes; one in ten is discarded, some transactions stay open for a while.
async fn work(client: Client, seed: u64, until: Instant) -> Client {
    let mut rng = StdRng::seed_from_u64(seed);
    while Instant::now() < until {
        let size = rng.random_range(1..=12);
        let got = acquire(&client, Uuid::new_v4(), size).await;
        if got.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        let (bad, good): (Vec<_>, Vec<_>) = got.into_iter().partition(|_| rng.random_bool(0.1));
        // One verb a transaction: two could deadlock with those of another.
        if !good.is_empty() {
            run(&client, "begin").await;
            complete(&client, &good).await;
            let pause = rng.random_range(0.0..0.02);
            run(&client, &format!("select pg_sleep({pause}); commit")).await;
        }
        if !bad.is_empty() {
            discard(&client, &bad).await;
        }
    }
    client
}

/// Cancels or retries the whole, over and over; gives how many answers were `busy`.
async fn operate(client: Client, verb: &str, id: Uuid, until: Instant) -> i64 {
    let mut busy = 0;
    while Instant::now() < until {
        let sql =
            format!("select count(*) filter (where verdict = 'busy') from {verb}_workflow('{id}')");
        busy += value::<i64>(&client, &sql).await;
        run(&client, "select pg_sleep(0.1)").await;
    }
    busy
}

/// Completed jobs that began before a parent of theirs had ended.
const TOO_EARLY: &str = "select count(*)
    from dependencies d
    join jobs c on c.id = d.child
    join executions ce on ce.job_id = c.id and ce.attempt = c.attempt
    join jobs p on p.id = d.parent
    join executions pe on pe.job_id = p.id and pe.attempt = p.attempt
    where d.policy = 'cancel' and ce.started_at < pe.finished_at";

#[tokio::test]
async fn everybody_at_once_on_one_workflow() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (id, seed) = (Uuid::now_v7(), rand::random::<u64>());
    println!("seed {seed}");
    enqueue_many(&client, &graph(id, &mut StdRng::seed_from_u64(seed))).await;
    let until = Instant::now() + FOR;
    let mut workers = Vec::new();
    for worker in 0..WORKERS as u64 {
        let seed = seed.wrapping_add(worker);
        workers.push(tokio::spawn(work(db.connect().await, seed, until)));
    }
    let cancelling = tokio::spawn(operate(db.connect().await, "cancel", id, until));
    let retrying = tokio::spawn(operate(db.connect().await, "retry", id, until));
    for worker in workers {
        worker.await.expect("a worker meets no error");
    }
    let busy = (cancelling.await.expect("no error"), retrying.await.expect("no error"));
    println!("busy {busy:?}");
    // With nobody in the way all of it comes to its end.
    let end = Instant::now() + DEADLINE;
    let state = format!("select state from workflow_status('{id}')");
    while value::<String>(&client, &state).await != "completed" {
        assert!(Instant::now() < end, "seed {seed}: it does not end");
        run(&client, &format!("select retry_workflow('{id}')")).await;
        let got = acquire(&client, Uuid::new_v4(), 500).await;
        complete(&client, &got).await;
    }
    assert_eq!(value::<i64>(&client, TOO_EARLY).await, 0, "seed {seed}");
    db.finish().await;
}
