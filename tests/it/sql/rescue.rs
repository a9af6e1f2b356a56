//! What rescue closes besides lost leases, how much at a time, and for whom it never waits.

use std::slice::from_ref;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_with, complete, enqueue, enqueue_many, finish, run, state, value,
};

const EXPIRE: &str = "update workers set lease_ends_at = clock_timestamp() - interval '1 ms'";
const RESCUE: &str = "select done || ' ' || more from rescue(1000)";

/// Everything that runs has run so much longer.
async fn age_executions(client: &tokio_postgres::Client, by: &str) {
    run(
        client,
        &format!(
            "update executions set started_at = started_at - interval '{by}';
             update grants set expires_at = expires_at - interval '{by}'"
        ),
    )
    .await;
}

#[tokio::test]
async fn a_time_out_past_the_grace_is_a_failure() {
    let db = Db::new().await;
    let client = db.connect().await;
    let short = enqueue(&client, "'k', timeout => '10 s', priority => 0").await;
    let long = enqueue(&client, "'k', timeout => '60 s', priority => 1").await;
    let endless = enqueue(&client, "'k', priority => 2").await;
    let worker = Uuid::new_v4();
    let got = acquire(&client, worker, 10).await;
    age_executions(&client, "14 s").await;
    // Overdue, but within the grace of 5 s; the worker is well.
    assert_eq!(value::<String>(&client, RESCUE).await, "0 false");
    age_executions(&client, "2 s").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(finish(&client, "heartbeat", &got, "").await, ["lost", "held", "held"]);
    // It backs off as any failure does.
    assert_eq!(state(&client, short).await, "scheduled");
    let row = format!(
        "select e.outcome || ' ' || j.failures || ' ' || (j.run_at > clock_timestamp())::text
         from executions e join jobs j on j.id = e.job_id where e.job_id = '{short}'"
    );
    assert_eq!(value::<String>(&client, &row).await, "timed_out 1 true");
    // The grant now ends with the longer one.
    let expires = format!(
        "select g.expires_at = e.started_at + interval '60 s' from grants g, executions e
         where e.job_id = '{long}'"
    );
    assert!(value::<bool>(&client, &expires).await);
    assert_eq!(complete(&client, &got[1..2]).await, ["completed"]);
    age_executions(&client, "60 s").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "0 false");
    assert!(value::<bool>(&client, "select expires_at is null from grants").await);
    assert_eq!(state(&client, endless).await, "running");
    assert_eq!(complete(&client, &got).await, ["stale", "repeated", "completed"]);
    db.finish().await;
}

#[tokio::test]
async fn time_outs_use_up_max_attempts() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k', timeout => '1 s', max_attempts => 1").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    age_executions(&client, "7 s").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(state(&client, job).await, "discarded");
    db.finish().await;
}

#[tokio::test]
async fn a_pass_takes_no_more_than_it_may_and_says_that_more_is_left() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 12)").await;
    acquire(&client, Uuid::new_v4(), 12).await;
    run(&client, EXPIRE).await;
    let pass = "select done || ' ' || more from rescue(5)";
    for wanted in ["5 true", "5 true", "2 false", "0 false"] {
        assert_eq!(value::<String>(&client, pass).await, wanted);
    }
    run(&client, "update jobs set timeout = '1 s'").await;
    acquire(&client, Uuid::new_v4(), 12).await;
    age_executions(&client, "7 s").await;
    for wanted in ["5 true", "5 true", "2 false", "0 false"] {
        assert_eq!(value::<String>(&client, pass).await, wanted);
    }
    db.finish().await;
}

#[tokio::test]
async fn a_handlers_open_transaction_delays_nobody_elses_rescue() {
    let db = Db::new().await;
    let (client, handler) = (db.connect().await, db.connect().await);
    run(&client, "select enqueue('k', timeout => '1 s') from generate_series(1, 6)").await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(acquire(&client, Uuid::new_v4(), 2).await);
    }
    let held = workers[1][0].worker;
    run(&client, EXPIRE).await;
    let overdue = format!(
        "update executions set started_at = started_at - interval '7 s' where worker = '{held}';
         update grants set expires_at = expires_at - interval '7 s' where worker = '{held}'"
    );
    run(&client, &overdue).await;
    // One execution is being completed, one worker's row is held.
    run(&handler, "begin").await;
    assert_eq!(complete(&handler, from_ref(&workers[0][0])).await, ["completed"]);
    run(&handler, &format!("select from workers where id = '{held}' for update")).await;
    let started = Instant::now();
    assert_eq!(
        value::<String>(&client, "select done || ' ' || more from rescue(1)").await,
        "1 true"
    );
    // The other one overdue, its neighbour's second, and both of the third worker.
    assert_eq!(value::<String>(&client, RESCUE).await, "4 false");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    run(&handler, "rollback").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(value::<i64>(&client, "select count(*) from grants").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_cascade_that_is_not_free_is_left_for_the_next_pass() {
    let db = Db::new().await;
    let (client, operator) = (db.connect().await, db.connect().await);
    let graph = json!([
        {"kind": "p", "ref": "p", "max_attempts": 1},
        {"kind": "c", "depends_on": ["p"]},
        {"kind": "q", "ref": "q", "max_attempts": 1},
        {"kind": "d", "depends_on": ["q"]},
        {"kind": "plain"},
    ]);
    let jobs = enqueue_many(&client, &graph).await;
    assert_eq!(acquire(&client, Uuid::new_v4(), 10).await.len(), 3);
    run(&client, EXPIRE).await;
    let hold = format!("begin; select from blocked where job_id = '{}' for update", jobs[1].job_id);
    run(&operator, &hold).await;
    let started = Instant::now();
    assert_eq!(value::<String>(&client, RESCUE).await, "2 false");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(state(&client, jobs[0].job_id).await, "running");
    assert_eq!(state(&client, jobs[3].job_id).await, "cancelled");
    assert_eq!(state(&client, jobs[4].job_id).await, "ready");
    run(&operator, "rollback").await;
    assert_eq!(value::<String>(&client, RESCUE).await, "1 false");
    assert_eq!(state(&client, jobs[1].job_id).await, "cancelled");
    db.finish().await;
}

#[tokio::test]
async fn promote_passes_held_jobs_by_and_takes_them_later() {
    let db = Db::new().await;
    let (client, operator) = (db.connect().await, db.connect().await);
    let promote = "select done || ' ' || more from promote(1000)";
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(enqueue(&client, "'k', run_at => clock_timestamp() + interval '1 h'").await);
    }
    assert_eq!(value::<String>(&client, promote).await, "0 false");
    let due = "update scheduled set run_at = run_at - interval '2 h';
        update jobs set run_at = run_at - interval '2 h'";
    run(&client, due).await;
    run(
        &operator,
        &format!(
            "begin; select from scheduled where job_id = '{}' for update;
             select from jobs where id = '{}' for no key update",
            jobs[0], jobs[1]
        ),
    )
    .await;
    run(&client, "set statement_timeout = '5 s'").await;
    assert_eq!(value::<String>(&client, promote).await, "1 false");
    assert_eq!(acquire(&client, Uuid::new_v4(), 5).await[0].job_id, jobs[2]);
    run(&operator, "rollback").await;
    assert_eq!(
        value::<String>(&client, "select done || ' ' || more from promote(1)").await,
        "1 true"
    );
    assert_eq!(value::<String>(&client, promote).await, "1 false");
    assert_eq!(acquire_with(&client, Uuid::new_v4(), "'{default}', 5").await.len(), 2);
    db.finish().await;
}

#[tokio::test]
async fn what_others_hold_does_not_starve_the_rest_of_a_small_pass() {
    let db = Db::new().await;
    let (client, handler) = (db.connect().await, db.connect().await);
    for _ in 0..6 {
        enqueue(&client, "'k', timeout => '10 s'").await;
    }
    let held = acquire(&client, Uuid::new_v4(), 3).await;
    let free = acquire(&client, Uuid::new_v4(), 3).await;
    run(&handler, "begin").await;
    assert_eq!(complete(&handler, &held).await, ["completed"; 3]);
    run(&client, EXPIRE).await;
    for _ in 0..3 {
        assert_eq!(value::<i64>(&client, "select done from rescue(1)").await, 1);
    }
    for one in &free {
        assert_eq!(state(&client, one.job_id).await, "ready");
    }
    run(&handler, "rollback").await;
    db.finish().await;
}

#[tokio::test]
async fn a_held_time_out_goes_behind_the_others() {
    let db = Db::new().await;
    let (client, handler) = (db.connect().await, db.connect().await);
    for _ in 0..2 {
        enqueue(&client, "'k', timeout => '10 s'").await;
    }
    let worker = Uuid::new_v4();
    let held = acquire(&client, worker, 1).await;
    let free = acquire(&client, worker, 1).await;
    age_executions(&client, "1 minute").await;
    run(&handler, "begin").await;
    complete(&handler, &held).await;
    assert_eq!(value::<i64>(&client, "select done from rescue(1)").await, 0);
    assert_eq!(value::<i64>(&client, "select done from rescue(1)").await, 1);
    assert_eq!(state(&client, free[0].job_id).await, "scheduled");
    run(&handler, "rollback").await;
    db.finish().await;
}

#[tokio::test]
async fn many_held_cascades_do_not_hold_up_a_pass() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    for _ in 0..80 {
        let parent = enqueue(&client, "'p', max_attempts => 1").await;
        enqueue(&client, &format!("'c', depends_on => '{{{parent}}}'")).await;
    }
    assert_eq!(acquire(&client, Uuid::new_v4(), 80).await.len(), 80);
    run(&other, "begin; select from blocked for update").await;
    run(&client, EXPIRE).await;
    let began = Instant::now();
    assert_eq!(value::<i64>(&client, "select done from rescue(1000)").await, 0);
    // Each of them alone waits 50 ms.
    let took = began.elapsed();
    assert!(took < Duration::from_millis(3500), "{took:?}");
    run(&other, "rollback").await;
    assert_eq!(value::<i64>(&client, "select done from rescue(1000)").await, 80);
    db.finish().await;
}
