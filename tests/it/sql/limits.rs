//! Limits that a call meets as a whole, and refusals that say which fault it was.

use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, acquire_with, enqueue, enqueue_many, refused, run, value};

#[tokio::test]
async fn kinds_are_counted_and_named() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = |kinds: &str| {
        format!("select * from acquire(gen_random_uuid(), '{{default}}', kinds => {kinds})")
    };
    for (code, kinds) in [
        ("RL413", "array_fill('k'::text, array[1001])"),
        ("RL422", "array['k', null]"),
        ("RL422", "array['k', '']"),
        ("RL422", "array[repeat('k', 129)]"),
    ] {
        refused(&client, code, &call(kinds)).await;
    }
    run(&client, &call("array_fill(repeat('k', 128), array[1000])")).await;
    db.finish().await;
}

#[tokio::test]
async fn a_ref_has_1_to_128_characters() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = |length: usize| {
        format!("select enqueue_many('[{{\"kind\": \"k\", \"ref\": \"{}\"}}]')", "é".repeat(length))
    };
    for length in [0, 129] {
        let error = refused(&client, "RL422", &call(length)).await;
        assert_eq!(error.message(), "ref of job 1 is not valid");
    }
    let longest = "é".repeat(128);
    let jobs = json!([{"kind": "k", "ref": longest}]);
    assert_eq!(enqueue_many(&client, &jobs).await[0].reference, Some(longest));
    db.finish().await;
}

#[tokio::test]
async fn a_call_brings_64_mib_at_most() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = |jobs: i32| {
        format!(
            "select count(*) from enqueue_batch(
                 array_fill('k'::text, array[{jobs}]),
                 array_fill(to_jsonb(repeat('x', 250000)), array[{jobs}]),
                 array_fill('q'::text, array[{jobs}]), null, null, null, null, null, null)"
        )
    };
    refused(&client, "RL413", &call(280)).await;
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 0);
    run(&client, &call(20)).await;
    db.finish().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_kept_says_why() {
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue(&client, "'k'").await;
    let one = acquire(&client, Uuid::new_v4(), 1).await.remove(0);
    let deep = format!("'{}{}'", "[".repeat(70), "]".repeat(70));
    for (code, message, result) in [
        ("RL422", "result is nested too deep", deep.as_str()),
        ("RL422", "result has a number out of range", "'[1e5000]'"),
        ("RL413", "result is too large", "to_jsonb(repeat('x', 300000))"),
    ] {
        let call = format!(
            "select complete_or_raise('{}', '{}', {}, '{}', {result})",
            one.worker, one.job_id, one.attempt, one.token
        );
        let error = refused(&client, code, &call).await;
        assert_eq!(error.message(), message);
    }
    db.finish().await;
}

#[tokio::test]
async fn unwatching_what_is_not_watched_is_no_warning() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "set client_min_messages = warning").await;
    run(&client, "select watch('{a,b}')").await;
    assert!(!value::<bool>(&client, "select unwatch('{a,c}')").await);
    assert!(value::<bool>(&client, "select unwatch('{b}')").await);
    assert!(!value::<bool>(&client, "select unwatch('{b}')").await);
    let held =
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
    assert_eq!(value::<i64>(&client, held).await, 0);
    refused(&client, "RL422", "select unwatch('{\"\"}')").await;
    let many = "select unwatch(array(select 'q' || n from generate_series(1, 257) n))";
    refused(&client, "RL413", many).await;
    refused(&client, "RL422", "select settled(null)").await;
    db.finish().await;
}

#[tokio::test]
async fn maintain_waits_five_seconds_for_all_duties_together() {
    let db = Db::new().await;
    let (client, server) = (db.connect().await, db.connect().await);
    let lock = "begin; select pg_advisory_xact_lock(duty_key(d))
                from unnest('{link,promote,rescue,prune,floors}'::text[]) d";
    run(&server, lock).await;
    let began = Instant::now();
    let left: i64 = value(&client, "select count(*) filter (where more) from maintain()").await;
    assert_eq!(left, 5);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    run(&server, "rollback").await;
    db.finish().await;
}

#[tokio::test]
async fn producers_on_new_queues_in_opposite_order_never_wait() {
    let db = Db::new().await;
    let (one, two) = (db.connect().await, db.connect().await);
    for client in [&one, &two] {
        run(client, "set lock_timeout = '1 s'; begin").await;
    }
    for (client, queue) in [(&one, "a"), (&two, "b"), (&one, "b"), (&two, "a")] {
        enqueue(client, &format!("'k', queue => '{queue}'")).await;
    }
    for client in [&one, &two] {
        run(client, "commit").await;
    }
    let got = acquire_with(&one, Uuid::new_v4(), "'{a,b}', 10").await;
    assert_eq!(got.len(), 4);
    db.finish().await;
}
