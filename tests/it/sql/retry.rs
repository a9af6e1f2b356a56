//! Retry against what happens to parents at the same time: no child is stranded or let go early.

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire_job, cancel, complete, discard, drain, enqueue, enqueue_many, ids, refused, retry, run,
    state, states, value,
};

/// p and q, and c which waits for both and was cancelled when p was.
async fn cancelled_child(client: &Client) -> (Uuid, Uuid, Uuid) {
    let call = json!([{"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "depends_on": ["p", "q"]}]);
    let jobs = enqueue_many(client, &call).await;
    cancel(client, &[jobs[0].job_id]).await;
    (jobs[0].job_id, jobs[1].job_id, jobs[2].job_id)
}

#[tokio::test]
async fn a_child_is_not_retried_past_a_parent_that_is_completing() {
    let db = Db::new().await;
    let (client, handler) = (db.connect().await, db.connect().await);
    let (_, q, c) = cancelled_child(&client).await;
    let execution = acquire_job(&handler, q).await;
    run(&handler, "begin").await;
    complete(&handler, &[execution]).await;
    let error = refused(&client, "RL429", &format!("select retry({})", ids(&[c]))).await;
    assert_eq!(error.message(), "retry met jobs that are held by other transactions");
    run(&handler, "commit").await;
    assert_eq!(retry(&client, &[c]).await, ["retried"]);
    assert_eq!(state(&client, c).await, "ready", "q has completed and p is waited for no more");
    assert_eq!(drain(&client).await, 1);
    db.finish().await;
}

#[tokio::test]
async fn a_child_is_not_retried_past_a_parent_that_is_being_retried() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let (p, q, c) = cancelled_child(&client).await;
    run(&other, "begin").await;
    assert_eq!(retry(&other, &[p]).await, ["retried"]);
    refused(&client, "RL429", &format!("select retry({})", ids(&[c]))).await;
    run(&other, "commit").await;
    assert_eq!(retry(&client, &[c]).await, ["unfinished"], "its parent took it back");
    complete(&client, &[acquire_job(&client, q).await]).await;
    assert_eq!(state(&client, c).await, "blocked", "it waits for p again");
    assert_eq!(drain(&client).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn a_parent_is_not_retried_past_a_child_that_is_being_retried() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let (p, q, c) = cancelled_child(&client).await;
    run(&other, "begin").await;
    assert_eq!(retry(&other, &[c]).await, ["retried"]);
    refused(&client, "RL429", &format!("select retry({})", ids(&[p]))).await;
    run(&other, "commit").await;
    assert_eq!(retry(&client, &[p]).await, ["retried"]);
    assert_eq!(states(&client, &[p, q, c]).await, ["ready", "ready", "blocked"]);
    assert_eq!(drain(&client).await, 3);
    db.finish().await;
}

#[tokio::test]
async fn a_retry_begins_anew() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'a', max_attempts => 1").await;
    for round in 1..=3 {
        let execution = acquire_job(&client, job).await;
        assert_eq!(execution.attempt, round, "attempts are never used again");
        discard(&client, &[execution]).await;
        assert_eq!(retry(&client, &[job]).await, ["retried"]);
        let clean = "select from jobs where failures = 0 and finished_at is null and reason is null
            and cancel_requested_at is null";
        assert_eq!(client.query(clean, &[]).await.expect("query").len(), 1);
    }
    complete(&client, &[acquire_job(&client, job).await]).await;
    assert_eq!(
        retry(&client, &[job, Uuid::nil(), job]).await,
        ["completed", "unknown", "completed"]
    );
    db.finish().await;
}

#[tokio::test]
async fn a_child_that_went_on_has_nothing_to_do_with_a_retried_parent() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    let child = format!("'c', depends_on => '{{{parent}}}', on_parent_failure => 'continue'");
    let child = enqueue(&client, &child).await;
    cancel(&client, &[parent]).await;
    assert_eq!(state(&client, child).await, "ready");
    assert_eq!(retry(&client, &[parent]).await, ["retried"]);
    assert_eq!(value::<i64>(&client, "select count(*) from dependencies").await, 0);
    let broken = "select coalesce(sum(violations), 0)::bigint from verify()";
    assert_eq!(value::<i64>(&client, broken).await, 0);
    assert_eq!(states(&client, &[parent, child]).await, ["ready", "ready"]);
    db.finish().await;
}
