//! Steps of the database's clock delay jobs and repeat attempts; they lose no job, and let no two
//! completions of one through.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::Rng;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::clock::{ahead, behind, replace};
use crate::harness::sql::{
    acquire, complete, complete_job, enqueue, finish, run, state, states, value,
};
use crate::harness::{Db, wait_until};

const HOUR: Duration = Duration::from_secs(3600);
const STEPS: usize = 200;
const JOBS: usize = 600;
const WORKERS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(60);

async fn maintain(client: &Client) {
    // Promotion and rescue take a bounded part each.
    let query = "select coalesce(bool_or(more), false) from maintain(1000)";
    while value(client, query).await {}
}

/// A job in each state that time moves: running with a child, due in half an hour, and ready.
async fn scene(client: &Client, worker: Uuid) -> ([Uuid; 4], crate::harness::sql::Execution) {
    let running = enqueue(client, "'running', priority => 0").await;
    let child = enqueue(client, &format!("'child', depends_on => '{{{running}}}'")).await;
    let held = acquire(client, worker, 1).await.remove(0);
    assert_eq!(held.job_id, running);
    let later = "'later', run_at => chaos.clock() + interval '30 minutes'";
    let later = enqueue(client, later).await;
    let ready = enqueue(client, "'ready'").await;
    ([running, child, later, ready], held)
}

#[tokio::test]
async fn after_a_step_forward_what_ran_runs_again_and_the_old_token_is_worth_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    replace(&client).await;
    let ([running, child, later, ready], held) = scene(&client, Uuid::new_v4()).await;
    ahead(&client, HOUR).await.expect("the clock is set");
    maintain(&client).await;
    // Due by the clock that there is; and the lease is over by it.
    assert_eq!(
        states(&client, &[running, child, later, ready]).await,
        ["ready", "blocked", "ready", "ready"]
    );
    assert_eq!(complete(&client, std::slice::from_ref(&held)).await, ["stale"]);
    assert_eq!(finish(&client, "heartbeat", &[held], "").await, ["lost"]);
    run(&client, "update chaos.step set by = '0'").await;
    for job in [running, later, ready] {
        complete_job(&client, job).await;
    }
    complete_job(&client, child).await;
    maintain(&client).await;
    assert!(acquire(&client, Uuid::new_v4(), 10).await.is_empty(), "nothing fires twice");
    let doubled = "select count(*) from (select 1 from executions where outcome = 'completed'
                   group by job_id having count(*) > 1) d";
    assert_eq!(value::<i64>(&client, doubled).await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_holder_that_beats_before_the_rescue_keeps_its_job_over_a_step_forward() {
    let db = Db::new().await;
    let client = db.connect().await;
    replace(&client).await;
    let ([running, ..], held) = scene(&client, Uuid::new_v4()).await;
    ahead(&client, HOUR).await.expect("the clock is set");
    let held = std::slice::from_ref(&held);
    assert_eq!(finish(&client, "heartbeat", held, "").await, ["held"]);
    maintain(&client).await;
    assert_eq!(complete(&client, held).await, ["completed"]);
    assert_eq!(state(&client, running).await, "completed");
    db.finish().await;
}

#[tokio::test]
async fn after_a_step_back_work_goes_on_and_the_dead_are_found_within_a_lease_of_its_correction() {
    let db = Db::new().await;
    let client = db.connect().await;
    replace(&client).await;
    let ([dead, child, later, ready], old) = scene(&client, Uuid::new_v4()).await;
    let alive = enqueue(&client, "'alive', priority => 0").await;
    let live = acquire(&client, Uuid::new_v4(), 1).await;
    assert_eq!(live[0].job_id, alive);
    behind(&client, HOUR).await.expect("the clock is set");
    maintain(&client).await;
    assert_eq!(states(&client, &[dead, later]).await, ["running", "scheduled"]);
    // A lease that seems to have long to go is extended and ended as any other.
    assert_eq!(finish(&client, "heartbeat", &live, "").await, ["held"]);
    assert_eq!(complete(&client, &live).await, ["completed"]);
    complete_job(&client, ready).await;
    let fresh = enqueue(&client, "'fresh'").await;
    complete_job(&client, fresh).await;
    // Corrected, a lease later: the dead worker is found, and what is due is not before its time.
    ahead(&client, Duration::from_secs(31)).await.expect("the clock is set");
    maintain(&client).await;
    assert_eq!(states(&client, &[dead, later]).await, ["ready", "scheduled"]);
    complete_job(&client, dead).await;
    assert_eq!(complete(&client, &[old]).await, ["stale"]);
    ahead(&client, HOUR).await.expect("the clock is set");
    maintain(&client).await;
    complete_job(&client, child).await;
    complete_job(&client, later).await;
    assert!(acquire(&client, Uuid::new_v4(), 10).await.is_empty(), "nothing fires twice");
    db.finish().await;
}

#[tokio::test]
async fn a_lease_that_was_granted_by_a_fast_clock_ends_a_lease_after_its_correction() {
    let db = Db::new().await;
    let client = db.connect().await;
    replace(&client).await;
    ahead(&client, HOUR).await.expect("the clock is set");
    let dead = enqueue(&client, "'dead', priority => 0").await;
    let old = acquire(&client, Uuid::new_v4(), 1).await;
    enqueue(&client, "'alive', priority => 0").await;
    let live = acquire(&client, Uuid::new_v4(), 1).await;
    behind(&client, Duration::ZERO).await.expect("the clock is set");
    maintain(&client).await;
    assert_eq!(finish(&client, "heartbeat", &live, "").await, ["held"]);
    ahead(&client, Duration::from_secs(29)).await.expect("the clock is set");
    maintain(&client).await;
    assert_eq!(state(&client, dead).await, "running");
    assert_eq!(finish(&client, "heartbeat", &live, "").await, ["held"]);
    ahead(&client, Duration::from_secs(31)).await.expect("the clock is set");
    maintain(&client).await;
    assert_eq!(state(&client, dead).await, "ready");
    assert_eq!(complete(&client, &live).await, ["completed"]);
    assert_eq!(complete(&client, &old).await, ["stale"]);
    complete_job(&client, dead).await;
    db.finish().await;
}

/// Works until told that all is done; by job, how many completions were accepted.
async fn work(client: Client, done: &AtomicBool) -> HashMap<Uuid, usize> {
    let worker = Uuid::new_v4();
    let mut completed = HashMap::new();
    while !done.load(Ordering::Relaxed) {
        let held = acquire(&client, worker, 3).await;
        if held.is_empty() {
            tokio::time::sleep(Duration::from_millis(2)).await;
            continue;
        }
        if rand::rng().random_bool(0.3) {
            finish(&client, "heartbeat", &held, "").await;
        }
        let verdicts = complete(&client, &held).await;
        for (execution, verdict) in held.iter().zip(verdicts) {
            if verdict == "completed" {
                *completed.entry(execution.job_id).or_default() += 1;
            }
        }
    }
    completed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_steps_under_load_lose_nothing_and_double_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    replace(&client).await;
    // A step may cost an attempt of everything that runs.
    let some =
        "select count(enqueue('k', to_jsonb(n), max_attempts => 1000, run_at => chaos.clock()
                + make_interval(mins => n % 50))) from generate_series(1, $1::int) n";
    let count = i32::try_from(JOBS).expect("small");
    client.execute(some, &[&count]).await.expect("enqueued");
    let done = AtomicBool::new(false);
    let stepping = async {
        let began = Instant::now();
        for _ in 0..STEPS {
            let seconds = rand::rng().random_range(0..=2 * HOUR.as_secs());
            if seconds < HOUR.as_secs() {
                behind(&client, HOUR - Duration::from_secs(seconds))
                    .await
                    .expect("the clock is set");
            } else {
                ahead(&client, Duration::from_secs(seconds) - HOUR)
                    .await
                    .expect("the clock is set");
            }
            maintain(&client).await;
        }
        assert!(began.elapsed() < DEADLINE, "{:?}", began.elapsed());
        // The last one is no step back, so that what was begun before it comes to its end.
        ahead(&client, 2 * HOUR).await.expect("the clock is set");
        wait_until("all jobs have ended", DEADLINE, || async {
            maintain(&client).await;
            value::<i64>(&client, "select count(*) from jobs where finished_at is null").await == 0
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let mut workers = Vec::new();
    for _ in 0..WORKERS {
        workers.push(work(db.connect().await, &done));
    }
    let ((), told) = tokio::join!(stepping, futures_util::future::join_all(workers));
    let mut completions: HashMap<Uuid, usize> = HashMap::new();
    for (job, count) in told.into_iter().flatten() {
        *completions.entry(job).or_default() += count;
    }
    assert_eq!(completions.len(), JOBS);
    assert!(completions.values().all(|count| *count == 1), "one completion a job is accepted");
    let states = "select count(*) from jobs where state = 'completed'";
    assert_eq!(value::<i64>(&client, states).await, i64::from(count));
    // Otherwise no step ever hit anything.
    let lost = "select count(*) from executions where outcome = 'lost'";
    assert!(0 < value::<i64>(&client, lost).await);
    db.finish().await;
}
