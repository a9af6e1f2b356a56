//! Cancel and retry of whole workflows, while others hold some of their jobs; and their end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_job, complete, discard, drain, enqueue, enqueue_many, ids, refused, run,
    states, value,
};

/// Enqueues these jobs as a workflow; its id and theirs.
async fn workflow(client: &Client, jobs: &Value) -> (Uuid, Vec<Uuid>) {
    let id = Uuid::now_v7();
    let call = json!({"workflow": {"name": "n", "id": id}, "jobs": jobs});
    let jobs = enqueue_many(client, &call).await;
    (id, jobs.iter().map(|job| job.job_id).collect())
}

/// A chain of so many.
fn chain(length: usize) -> Value {
    let job = |place: usize| {
        let parents = if place == 0 { vec![] } else { vec![format!("{}", place - 1)] };
        json!({"kind": "step", "ref": place.to_string(), "depends_on": parents})
    };
    (0..length).map(job).collect()
}

/// How many jobs became what.
async fn verdicts(client: &Client, verb: &str, id: Uuid) -> BTreeMap<String, i64> {
    let sql = format!("select verdict, count(*) from {verb}_workflow('{id}') group by verdict");
    let rows = client.query(&sql, &[]).await.expect("it answers");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn counted<const N: usize>(counts: [(&str, i64); N]) -> BTreeMap<String, i64> {
    counts.map(|(verdict, jobs)| (verdict.to_owned(), jobs)).into()
}

async fn hold(holder: &Client, job: Uuid) {
    run(holder, &format!("begin; select from jobs where id = '{job}' for no key update")).await;
}

#[tokio::test]
async fn cancel_answers_for_every_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (id, jobs) = workflow(&client, &chain(5)).await;
    complete(&client, &[acquire_job(&client, jobs[0]).await]).await;
    let running = acquire_job(&client, jobs[1]).await;
    let expected = counted([("finished", 1), ("cancelling", 1), ("cancelled", 3)]);
    assert_eq!(verdicts(&client, "cancel", id).await, expected);
    assert_eq!(verdicts(&client, "cancel", id).await, expected);
    assert_eq!(complete(&client, &[running]).await, ["cancelled"]);
    let sql = format!("select state from workflow_status('{id}')");
    assert_eq!(value::<String>(&client, &sql).await, "cancelled");
    for verb in ["cancel", "retry"] {
        assert_eq!(verdicts(&client, verb, Uuid::now_v7()).await, counted([]));
        run(&client, "begin isolation level repeatable read").await;
        refused(&client, "RL025", &format!("select {verb}_workflow('{id}')")).await;
        run(&client, "rollback").await;
    }
    // All of it again, in its order.
    let expected = counted([("completed", 1), ("retried", 4)]);
    assert_eq!(verdicts(&client, "retry", id).await, expected);
    assert_eq!(states(&client, &jobs[1..4]).await, ["ready", "blocked", "blocked"]);
    assert_eq!(drain(&client).await, 4);
    db.finish().await;
}

#[tokio::test]
async fn what_others_hold_stops_nothing_else_from_being_cancelled() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    let jobs: Value = (0..100).map(|_| json!({"kind": "k"})).collect();
    let (id, jobs) = workflow(&client, &jobs).await;
    hold(&holder, jobs[40]).await;
    let expected = counted([("cancelled", 99), ("busy", 1)]);
    assert_eq!(verdicts(&client, "cancel", id).await, expected);
    run(&holder, "commit").await;
    assert_eq!(states(&client, &jobs[39..42]).await, ["cancelled", "ready", "cancelled"]);
    assert_eq!(verdicts(&client, "cancel", id).await, counted([("cancelled", 100)]));
    db.finish().await;
}

/// A child that was retried before its parent would wait for it no more.
#[tokio::test]
async fn no_job_is_retried_before_one_that_it_waits_for() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    // The ids run against the chain.
    let mut jobs = chain(30);
    jobs.as_array_mut().expect("jobs").reverse();
    let (id, mut jobs) = workflow(&client, &jobs).await;
    jobs.reverse();
    verdicts(&client, "cancel", id).await;
    hold(&holder, jobs[10]).await;
    assert_eq!(verdicts(&client, "retry", id).await, counted([("retried", 10), ("busy", 20)]));
    run(&holder, "commit").await;
    assert_eq!(states(&client, &jobs[9..12]).await, ["blocked", "cancelled", "cancelled"]);
    let expected = counted([("unfinished", 10), ("retried", 20)]);
    assert_eq!(verdicts(&client, "retry", id).await, expected);
    let waiting = "select count(*) from blocked where remaining = 1";
    assert_eq!(value::<i64>(&client, waiting).await, 29);
    for job in jobs {
        let all = acquire(&client, Uuid::new_v4(), 30).await;
        assert_eq!(all.iter().map(|one| one.job_id).collect::<Vec<_>>(), [job]);
        complete(&client, &all).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn retry_takes_back_what_fell_and_leaves_what_others_caused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let outside = enqueue(&client, "'outside'").await;
    let jobs = json!([
        {"kind": "a", "ref": "a"},
        {"kind": "b", "depends_on": ["a"]},
        {"kind": "held", "depends_on": ["a"], "on_parent_failure": "hold"},
        {"kind": "other", "depends_on": [outside]}]);
    let (id, jobs) = workflow(&client, &jobs).await;
    discard(&client, &[acquire_job(&client, outside).await]).await;
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    assert_eq!(states(&client, &jobs[1..]).await, ["cancelled", "blocked", "cancelled"]);
    let expected = counted([("retried", 2), ("unfinished", 1), ("unchanged", 1)]);
    assert_eq!(verdicts(&client, "retry", id).await, expected);
    assert_eq!(states(&client, &jobs).await, ["ready", "blocked", "blocked", "cancelled"]);
    assert_eq!(drain(&client).await, 3);
    db.finish().await;
}

/// Handlers that hold what they complete, in a workflow of the largest size.
#[tokio::test]
async fn the_largest_workflow_is_cancelled_and_retried_beside_its_workers() {
    let db = Db::new().await;
    let (client, worker) = (db.connect().await, db.connect().await);
    let mut jobs: Vec<Value> = (0..9_999)
        .map(|place| {
            json!({"kind": "k", "ref": format!("r{place}"),
            "depends_on": if place < 100 { vec![] } else { vec![format!("r{}", place - 100)] }})
        })
        .collect();
    jobs.push(json!({"kind": "alone"}));
    let (id, _) = workflow(&client, &json!(jobs)).await;
    let held = acquire(&worker, Uuid::new_v4(), 40).await;
    run(&worker, "begin").await;
    complete(&worker, &held).await;
    let began = Instant::now();
    let answer = verdicts(&client, "cancel", id).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    assert_eq!(answer.values().sum::<i64>(), 10_000);
    // At least what they hold and the children of it, at most those chains.
    assert!((40..=80).contains(&answer["busy"]), "{answer:?}");
    run(&worker, "commit").await;
    let answer = verdicts(&client, "cancel", id).await;
    assert_eq!(answer, counted([("finished", 40), ("cancelled", 9_960)]));
    let answer = verdicts(&client, "retry", id).await;
    assert_eq!(answer, counted([("completed", 40), ("retried", 9_960)]));
    assert_eq!(value::<i64>(&client, "select count(*) from ready").await, 101);
    db.finish().await;
}

#[tokio::test]
async fn it_goes_with_the_last_of_its_jobs() {
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = json!([{"kind": "k"}, {"kind": "k"}, {"kind": "k", "ref": "x"}]);
    let (id, jobs) = workflow(&client, &jobs).await;
    let got = acquire(&client, Uuid::new_v4(), 3).await;
    complete(&client, &got[..2]).await;
    discard(&client, &got[2..]).await;
    let forget = |jobs: &[Uuid]| format!("select forget({})", ids(jobs));
    run(&client, &forget(&jobs[..2])).await;
    let sql = format!(
        "select format('%s %s/%s, %s pruned', state, done, jobs, pruned) from workflow_status('{id}')"
    );
    assert_eq!(value::<String>(&client, &sql).await, "failed 3/3, 2 pruned");
    run(&client, &forget(&jobs[2..])).await;
    assert_eq!(value::<i64>(&client, "select count(*) from workflows").await, 0);
    db.finish().await;
}
