//! Reprioritize: every state, the order it leaves, and who may be acquiring meanwhile.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_job, column, complete, discard, drain, enqueue, fail, ids, refused, run,
    state, value,
};

async fn reprioritize(client: &Client, jobs: &[Uuid], priority: i32) -> Vec<String> {
    let sql = format!("select verdict from reprioritize({}, {priority})", ids(jobs));
    column(client, &sql).await
}

async fn priority(client: &Client, job: Uuid) -> i32 {
    value(client, &format!("select priority::int from jobs where id = '{job}'")).await
}

#[tokio::test]
async fn reprioritize_answers_for_every_state() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = enqueue(&client, "'a'").await;
    let execution = acquire_job(&client, running).await;
    let discarded = enqueue(&client, "'a'").await;
    discard(&client, &[acquire_job(&client, discarded).await]).await;
    let ready = enqueue(&client, "'a'").await;
    let same = enqueue(&client, "'a', priority => 2").await;
    let scheduled = enqueue(&client, "'a', run_at => now() + interval '1 hour'").await;
    let blocked = enqueue(&client, &format!("'a', depends_on => '{{{running}}}'")).await;
    let jobs = [ready, same, scheduled, blocked, running, discarded, Uuid::nil(), ready];
    let expected = [
        "reprioritized",
        "unchanged",
        "reprioritized",
        "reprioritized",
        "reprioritized",
        "finished",
        "unknown",
        "reprioritized",
    ];
    assert_eq!(reprioritize(&client, &jobs, 2).await, expected);
    for job in [ready, same, scheduled, blocked, running] {
        assert_eq!(priority(&client, job).await, 2);
    }
    assert_eq!(priority(&client, discarded).await, 5);
    // What runs has it at its next attempt, and the child, which has its own, at its first.
    fail(&client, &[execution]).await;
    run(&client, "update scheduled set run_at = now(); update jobs set run_at = now() where state = 'scheduled'; select maintain()").await;
    let next = acquire(&client, Uuid::new_v4(), 10).await;
    assert!(next.iter().any(|execution| execution.job_id == running));
    complete(&client, &next).await;
    assert_eq!(acquire_job(&client, blocked).await.job_id, blocked);
    for bad in ["-1", "10", "null"] {
        refused(&client, "RL422", &format!("select reprioritize('{{}}', {bad})")).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn what_becomes_urgent_is_acquired_first_and_in_its_old_order() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut jobs = Vec::new();
    for n in 0..6 {
        jobs.push(enqueue(&client, &format!("'a', priority => {}", 5 + n % 2)).await);
    }
    // Given in no order: 5 before 6, and first come first served inside each.
    reprioritize(&client, &[jobs[5], jobs[1], jobs[4], jobs[2]], 0).await;
    let order: Vec<Uuid> =
        acquire(&client, Uuid::new_v4(), 10).await.iter().map(|got| got.job_id).collect();
    assert_eq!(order, [jobs[2], jobs[4], jobs[1], jobs[5], jobs[0], jobs[3]]);
    db.finish().await;
}

#[tokio::test]
async fn age_goes_along() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'a', priority => 9").await;
    run(&client, "update ready set ready_at = ready_at - interval '1 hour'").await;
    reprioritize(&client, &[job], 8).await;
    let old: bool =
        value(&client, "select ready_at < now() - interval '50 minutes' from ready").await;
    assert!(old);
    assert_eq!(drain(&client).await, 1);
    db.finish().await;
}

#[tokio::test]
async fn a_job_that_others_hold_is_refused_and_one_being_acquired_is_not_doubled() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let job = enqueue(&client, "'a'").await;
    run(&other, "begin").await;
    let held = acquire(&other, Uuid::new_v4(), 1).await;
    refused(&client, "RL429", &format!("select reprioritize('{{{job}}}', 0)")).await;
    run(&other, "commit").await;
    assert_eq!(reprioritize(&client, &[job], 0).await, ["reprioritized"]);
    assert_eq!(drain(&client).await, 0);
    complete(&client, &held).await;
    assert_eq!(state(&client, job).await, "completed");
    db.finish().await;
}
