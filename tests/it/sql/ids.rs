//! Ids that the caller chooses: a repeated one is the same job, never a second.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    Enqueued, column, drain, enqueue, enqueue_many, pid, refused, run, state, value,
};
use crate::harness::{Db, blocked_on_lock};

#[tokio::test]
async fn a_repeated_id_is_the_same_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let id = Uuid::now_v7();
    let same =
        format!("'a', '{{\"x\": 1.50}}', priority => 3, run_at => '2020-01-01Z', id => '{id}'");
    assert_eq!(enqueue(&client, &same).await, id);
    assert_eq!(enqueue(&client, &same).await, id);
    run(&client, "set timezone = 'Asia/Kathmandu'; set datestyle = 'German'").await;
    assert_eq!(enqueue(&client, &same).await, id);
    drain(&client).await;
    assert_eq!(enqueue(&client, &same).await, id);
    assert_eq!(state(&client, id).await, "completed");
    for other in ["'b'", "'a', '{\"x\": 2}'", "'a', queue => 'q'", "'a', unique_key => 'k'"] {
        let call = format!("select enqueue({other}, id => '{id}')");
        let error = refused(&client, "RL409", &call).await;
        assert!(error.message().starts_with("id "), "{error:?}");
        assert_eq!(error.detail(), Some(id.to_string().as_str()));
    }
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 1);
    assert_eq!(value::<i64>(&client, "select count(*) from unique_keys").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn an_id_of_the_database_is_not_the_callers() {
    let db = Db::new().await;
    let client = db.connect().await;
    let made = enqueue(&client, "'a'").await;
    refused(&client, "RL409", &format!("select enqueue('a', id => '{made}')")).await;
    db.finish().await;
}

#[tokio::test]
async fn one_id_twice_in_a_call_is_one_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    let call = json!([
        {"kind": "a", "id": id, "ref": "one"}, {"kind": "b"}, {"kind": "a", "id": id, "ref": "two"},
        {"kind": "c", "id": other, "depends_on": ["two"]}, {"kind": "d", "depends_on": [id, "one"]},
    ]);
    let answer = enqueue_many(&client, &call).await;
    let created: Vec<bool> = answer.iter().map(|job| job.created).collect();
    assert_eq!(created, [true, true, false, true, true]);
    assert_eq!((answer[0].job_id, answer[2].job_id), (id, id));
    let counts: Vec<i32> = column(&client, "select remaining from blocked").await;
    assert_eq!(counts, [1, 1], "both children wait for the one job, once");
    let different = json!([{"kind": "a", "id": Uuid::now_v7()}, {"kind": "b", "id": other}]);
    let error = refused(&client, "RL409", &format!("select enqueue_many('{different}')")).await;
    assert_eq!(error.message(), "id of job 2 belongs to another job");
    assert_eq!(drain(&client).await, 4);
    db.finish().await;
}

/// Two transactions with one new id: the second waits for the first to end.
async fn race_of_two(end: &str) -> (Vec<Enqueued>, Uuid) {
    let db = Db::new().await;
    let (first, second) = (db.connect().await, db.connect().await);
    let (id, beside) = (Uuid::now_v7(), Uuid::now_v7());
    let call = json!([{"kind": "a", "id": id, "unique_key": "k"}, {"kind": "b", "id": beside}]);
    run(&first, "begin").await;
    enqueue(&first, &format!("'b', id => '{beside}'")).await;
    let waiter = pid(&second).await;
    let waiting = tokio::spawn(async move { enqueue_many(&second, &call).await });
    blocked_on_lock(&first, waiter).await;
    run(&first, end).await;
    let answer = waiting.await.expect("joins");
    assert_eq!(value::<i64>(&first, "select count(*) from jobs").await, 2);
    assert_eq!(value::<Uuid>(&first, "select job_id from unique_keys where key = 'k'").await, id);
    assert_eq!(drain(&first).await, 2);
    db.finish().await;
    (answer, beside)
}

#[tokio::test]
async fn of_two_at_once_the_later_finds_the_job_of_the_first() {
    let (answer, beside) = race_of_two("commit").await;
    assert_eq!((answer[0].created, answer[1].created), (true, false));
    assert_eq!(answer[1].job_id, beside);
}

#[tokio::test]
async fn of_two_at_once_the_later_creates_what_the_first_rolled_back() {
    let (answer, _) = race_of_two("rollback").await;
    assert_eq!((answer[0].created, answer[1].created), (true, true));
}

/// A call is repeated while its first transaction, which also runs the job and ends it, is open;
/// before that one commits it does what is `next`. A session, and the id.
async fn repeat_beside_an_end(db: &Db, next: &str) -> (Client, Uuid) {
    let (first, second) = (db.connect().await, db.connect().await);
    let id = Uuid::now_v7();
    let call = format!("select enqueue('a', unique_key => 'k', id => '{id}')");
    run(&first, &format!("begin; {call}")).await;
    assert_eq!(drain(&first).await, 1);
    run(&first, next).await;
    let waiter = pid(&second).await;
    let (repeated, ()) = tokio::join!(value::<Uuid>(&second, &call), async {
        blocked_on_lock(&first, waiter).await;
        run(&first, "commit").await;
    });
    assert_eq!(repeated, id);
    (second, id)
}

#[tokio::test]
async fn a_repeat_finds_its_job_though_the_key_is_anothers_by_then() {
    let db = Db::new().await;
    let (client, id) = repeat_beside_an_end(&db, "select enqueue('a', unique_key => 'k')").await;
    let next: Uuid = value(&client, "select id from jobs where state = 'ready'").await;
    assert_ne!(next, id);
    let holder: Vec<Uuid> = column(&client, "select job_id from unique_keys").await;
    assert_eq!(holder, [next]);
    assert_eq!(drain(&client).await, 1);
    db.finish().await;
}

#[tokio::test]
async fn a_repeat_leaves_no_key_with_a_job_that_ended_while_it_waited() {
    let db = Db::new().await;
    // The key is free when the repeat gets there.
    let (client, id) = repeat_beside_an_end(&db, "select").await;
    assert_eq!(state(&client, id).await, "completed");
    let fresh = enqueue(&client, "'a', unique_key => 'k'").await;
    assert_ne!(fresh, id, "the key is held by a job that has ended");
    assert_eq!(drain(&client).await, 1);
    db.finish().await;
}

#[tokio::test]
async fn an_id_stored_since_a_repeatable_snapshot_asks_for_a_new_transaction() {
    let db = Db::new().await;
    let (late, other) = (db.connect().await, db.connect().await);
    let call = format!("select enqueue('a', id => '{}')", Uuid::now_v7());
    run(&late, "begin isolation level repeatable read; select count(*) from jobs").await;
    run(&other, &call).await;
    refused(&late, "40001", &call).await;
    run(&late, "rollback").await;
    run(&late, &format!("begin isolation level repeatable read; {call}; commit")).await;
    assert_eq!(value::<i64>(&late, "select count(*) from jobs").await, 1);
    db.finish().await;
}

#[tokio::test]
async fn ids_in_reverse_order_do_not_deadlock() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p', queue => 'parents'").await;
    let later: String = value(&client, "select to_json(now() + '1 day') #>> '{}'").await;
    // Ready, scheduled and blocked: each has a table of its own.
    for more in [json!({}), json!({"run_at": later}), json!({"depends_on": [parent]})] {
        let ids: Vec<Uuid> = (0..200).map(|_| Uuid::now_v7()).collect();
        let job = |id: &Uuid| {
            let mut job = more.clone();
            job["kind"] = "a".into();
            job["id"] = json!(id);
            job
        };
        let forward: Value = ids.iter().map(job).collect();
        let backward: Value = ids.iter().rev().map(job).collect();
        let mut calls = Vec::new();
        for call in [&forward, &backward, &forward, &backward] {
            let (client, call) = (db.connect().await, call.clone());
            calls.push(tokio::spawn(async move { enqueue_many(&client, &call).await }));
        }
        let mut created = 0;
        for call in calls {
            let answer = call.await.expect("no call is refused");
            created += answer.iter().filter(|job| job.created).count();
        }
        assert_eq!(created, 200, "{more}");
    }
    assert_eq!(drain(&client).await, 200);
    db.finish().await;
}

#[tokio::test]
async fn an_id_repeated_with_other_parents_is_refused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (one, two) = (enqueue(&client, "'a'").await, enqueue(&client, "'a'").await);
    let id = uuid::Uuid::now_v7();
    let call = |parents: &str, policy: &str| {
        format!("'b', id => '{id}', depends_on => {parents}, on_parent_failure => '{policy}'")
    };
    let both = format!("array['{one}', '{two}']::uuid[]");
    assert_eq!(enqueue(&client, &call(&both, "hold")).await, id);
    let swapped = format!("array['{two}', '{one}', '{two}']::uuid[]");
    assert_eq!(enqueue(&client, &call(&swapped, "hold")).await, id);
    let fewer = format!("array['{one}']::uuid[]");
    for other in [call(&fewer, "hold"), call(&both, "cancel"), call("null", "hold")] {
        refused(&client, "RL409", &format!("select enqueue({other})")).await;
    }
    let edges = format!("select count(*) from dependencies where child = '{id}'");
    assert_eq!(value::<i64>(&client, &edges).await, 2);
    // With a policy that nothing asks for, an id without parents is the same job.
    let alone = uuid::Uuid::now_v7();
    for policy in ["cancel", "hold"] {
        let job = format!("'c', id => '{alone}', on_parent_failure => '{policy}'");
        assert_eq!(enqueue(&client, &job).await, alone);
    }
    db.finish().await;
}
