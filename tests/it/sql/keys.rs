//! Unique keys: one live job has it, whoever asks at the same time.

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    acquire, acquire_job, cancel, complete, discard, discard_job, drain, enqueue, enqueue_many,
    pid, refused, retry, run, state, value,
};
use crate::harness::{Db, blocked_on_lock};

async fn holder(client: &Client) -> Option<Uuid> {
    value(client, "select (select job_id from unique_keys where key = 'k')").await
}

/// A second producer of the same key waits for the first one's end.
async fn race_of_two(end: &str) -> (Uuid, Uuid) {
    let db = Db::new().await;
    let (first, second) = (db.connect().await, db.connect().await);
    run(&first, "begin").await;
    let job = enqueue(&first, "'a', unique_key => 'k'").await;
    let waiter = pid(&second).await;
    let waiting = tokio::spawn(async move { enqueue(&second, "'a', unique_key => 'k'").await });
    blocked_on_lock(&first, waiter).await;
    run(&first, end).await;
    let answer = waiting.await.expect("joins");
    assert_eq!(holder(&first).await, Some(answer));
    assert_eq!(drain(&first).await, 1);
    db.finish().await;
    (job, answer)
}

#[tokio::test]
async fn a_key_in_a_transaction_that_commits_gives_its_job() {
    let (job, answer) = race_of_two("commit").await;
    assert_eq!(job, answer);
}

#[tokio::test]
async fn a_key_in_a_transaction_that_rolls_back_is_free() {
    let (job, answer) = race_of_two("rollback").await;
    assert_ne!(job, answer);
}

#[tokio::test]
async fn a_key_is_free_once_its_job_has_ended() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut seen = Vec::new();
    for end in ["completed", "cancelled", "discarded", "stopped"] {
        let job = enqueue(&client, "'a', unique_key => 'k'").await;
        assert_eq!(enqueue(&client, "'b', unique_key => 'k'").await, job, "while it is ready");
        if end == "cancelled" {
            assert_eq!(cancel(&client, &[job]).await, ["cancelled"]);
        } else {
            let execution = acquire_job(&client, job).await;
            assert_eq!(enqueue(&client, "'b', unique_key => 'k'").await, job, "while it runs");
            match end {
                "completed" => assert_eq!(complete(&client, &[execution]).await, ["completed"]),
                "discarded" => assert_eq!(discard(&client, &[execution]).await, ["discarded"]),
                _ => {
                    assert_eq!(cancel(&client, &[job]).await, ["cancelling"]);
                    assert_eq!(holder(&client).await, Some(job), "until it stops");
                    assert_eq!(complete(&client, &[execution]).await, ["cancelled"]);
                }
            }
        }
        assert_eq!(holder(&client).await, None);
        assert!(!seen.contains(&job));
        seen.push(job);
    }
    db.finish().await;
}

#[tokio::test]
async fn a_key_twice_in_a_call_is_one_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "child", "depends_on": ["two"]},
        {"kind": "a", "unique_key": "k", "ref": "one"},
        {"kind": "b", "unique_key": "k", "ref": "two"},
    ]);
    let answer = enqueue_many(&client, &call).await;
    assert_eq!((answer[1].created, answer[2].created), (true, false));
    assert_eq!(answer[1].job_id, answer[2].job_id);
    assert_eq!(state(&client, answer[0].job_id).await, "blocked");
    assert_eq!(drain(&client).await, 2);
    assert_eq!(state(&client, answer[0].job_id).await, "completed");
    db.finish().await;
}

#[tokio::test]
async fn a_ref_whose_key_is_held_is_an_outside_parent() {
    let db = Db::new().await;
    let client = db.connect().await;
    let holder = enqueue(&client, "'a', unique_key => 'k', priority => 2").await;
    let call = json!([
        {"kind": "again", "unique_key": "k", "ref": "p", "depends_on": ["root"]},
        {"kind": "child", "depends_on": ["p", holder]},
        {"kind": "root", "ref": "root"},
    ]);
    let answer = enqueue_many(&client, &call).await;
    let created: Vec<bool> = answer.iter().map(|job| job.created).collect();
    assert_eq!((created, answer[0].job_id), (vec![false, true, true], holder));
    assert_eq!(state(&client, holder).await, "ready", "an edge of a job not created is ignored");
    let sql = "select priority::int from jobs where kind = 'child'";
    assert_eq!(value::<i32>(&client, sql).await, 2, "inherited from the outside parent");
    let sql = "select array_agg(parent) from dependencies";
    assert_eq!(value::<Vec<Uuid>>(&client, sql).await, [holder]);
    assert_eq!(drain(&client).await, 3);
    db.finish().await;
}

#[tokio::test]
async fn a_chosen_id_cannot_have_a_key_that_is_held() {
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue(&client, "'a', unique_key => 'k'").await;
    let call = format!("select enqueue('a', unique_key => 'k', id => '{}')", Uuid::now_v7());
    let error = refused(&client, "RL409", &call).await;
    assert!(error.message().starts_with("unique_key "), "{error:?}");
    assert_eq!(error.detail(), Some("k"));
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 1);
    db.finish().await;
}

#[tokio::test]
async fn a_key_committed_since_a_repeatable_snapshot_is_a_serialization_failure() {
    let db = Db::new().await;
    let (late, other) = (db.connect().await, db.connect().await);
    for level in ["repeatable read", "serializable"] {
        run(&late, &format!("begin isolation level {level}; select count(*) from jobs")).await;
        let job = enqueue(&other, "'a', unique_key => 'k'").await;
        refused(&late, "40001", "select enqueue('a', unique_key => 'k')").await;
        run(&late, "rollback").await;
        assert_eq!(enqueue(&late, "'a', unique_key => 'k'").await, job);
        drain(&other).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn a_key_freed_since_a_repeatable_snapshot_is_taken() {
    let db = Db::new().await;
    let (late, other) = (db.connect().await, db.connect().await);
    let old = enqueue(&other, "'a', unique_key => 'k'").await;
    run(&late, "begin isolation level repeatable read; select count(*) from jobs").await;
    drain(&other).await;
    let call = json!([{"kind": "b", "unique_key": "k"}, {"kind": "c", "unique_key": "l"}]);
    let answer = enqueue_many(&late, &call).await;
    run(&late, "commit").await;
    assert!(answer.iter().all(|job| job.created && job.job_id != old), "{answer:?}");
    assert_eq!(holder(&other).await, Some(answer[0].job_id));
    assert_eq!(drain(&other).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn keys_in_reverse_order_do_not_deadlock() {
    let db = Db::new().await;
    let keys: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
    let mut calls = Vec::new();
    for round in 0..4 {
        let client = db.connect().await;
        let mut jobs: Vec<_> =
            keys.iter().map(|key| json!({"kind": "a", "unique_key": key})).collect();
        if round % 2 == 1 {
            jobs.reverse();
        }
        calls.push(tokio::spawn(async move { enqueue_many(&client, &jobs.into()).await }));
    }
    let mut created = 0;
    for call in calls {
        let answer = call.await.expect("no call is refused");
        created += answer.iter().filter(|job| job.created).count();
    }
    assert_eq!(created, 200);
    db.finish().await;
}

#[tokio::test]
async fn a_retry_takes_the_key_back_or_answers_conflict() {
    let db = Db::new().await;
    let client = db.connect().await;
    let first = enqueue(&client, "'a', unique_key => 'k'").await;
    cancel(&client, &[first]).await;
    let second = enqueue(&client, "'a', unique_key => 'k'").await;
    assert_eq!(retry(&client, &[first, second]).await, ["conflict", "unfinished"]);
    assert_eq!(
        (state(&client, first).await, holder(&client).await),
        ("cancelled".into(), Some(second))
    );
    cancel(&client, &[second]).await;
    let verdicts = retry(&client, &[second, first]).await;
    let winner = holder(&client).await.expect("one of them has it");
    let expected = if winner == second { ["retried", "conflict"] } else { ["conflict", "retried"] };
    assert_eq!(verdicts, expected);
    assert_eq!(enqueue(&client, "'a', unique_key => 'k'").await, winner);
    db.finish().await;
}

#[tokio::test]
async fn a_retry_takes_a_key_that_is_freed_while_it_waits_for_another() {
    let db = Db::new().await;
    let (client, ender, operator) = (db.connect().await, db.connect().await, db.connect().await);
    let mut dead = Vec::new();
    for key in ["a", "b"] {
        dead.push(enqueue(&client, &format!("'k', unique_key => '{key}'")).await);
        discard_job(&client, dead[dead.len() - 1]).await;
    }
    enqueue(&client, "'k', unique_key => 'a', priority => 9").await;
    enqueue(&client, "'k', unique_key => 'b', priority => 0").await;
    let urgent = acquire(&ender, Uuid::new_v4(), 1).await;
    run(&ender, "begin").await;
    complete(&ender, &urgent).await;
    let waiter = pid(&operator).await;
    let (verdicts, ()) = tokio::join!(retry(&operator, &dead), async {
        blocked_on_lock(&client, waiter).await;
        // It has met the holder of the first key, and waits for that of the second.
        assert_eq!(drain(&client).await, 1);
        run(&ender, "commit").await;
    });
    assert_eq!(verdicts, ["retried", "retried"]);
    assert_eq!(value::<i64>(&client, "select count(*) from unique_keys").await, 2);
    assert_eq!(drain(&client).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn a_rolled_back_savepoint_leaves_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    run(&client, "begin; savepoint s").await;
    let arguments = format!("'a', unique_key => 'k', depends_on => '{{{parent}}}'");
    enqueue(&client, &arguments).await;
    run(&client, "rollback to s").await;
    assert_eq!(holder(&client).await, None);
    let kept = enqueue(&client, &arguments).await;
    run(&client, "savepoint t").await;
    enqueue(&client, &format!("'b', depends_on => '{{{parent}}}'")).await;
    run(&client, "rollback to t; commit").await;
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 2);
    assert_eq!(state(&client, kept).await, "blocked");
    assert_eq!(value::<i64>(&client, "select count(*) from links").await, 0, "it was linked");
    assert_eq!(drain(&client).await, 2);
    db.finish().await;
}
