//! What a retried parent takes back: the descendants that fell with it and never ran.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    cancel, complete_job, discard_job, drain, enqueue, graph, retry, run, state, states, value,
};

#[tokio::test]
async fn a_retried_parent_takes_back_what_fell_with_it() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b", "depends_on": ["a"]},
        {"kind": "c", "ref": "c", "depends_on": ["b"], "unique_key": "c"},
        {"kind": "x", "ref": "x"}, {"kind": "d", "ref": "d", "depends_on": ["a", "x"]},
        {"kind": "e", "ref": "e", "depends_on": ["d"]},
        {"kind": "f", "ref": "f", "depends_on": ["a"]},
    ]);
    let jobs = graph(&client, &call).await;
    cancel(&client, &jobs[6..]).await;
    discard_job(&client, jobs[3]).await;
    discard_job(&client, jobs[0]).await;
    let expected =
        ["discarded", "cancelled", "cancelled", "discarded", "cancelled", "cancelled", "cancelled"];
    assert_eq!(states(&client, &jobs).await, expected);
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    // d and e have another parent against them; f was cancelled by a person.
    let expected =
        ["ready", "blocked", "blocked", "discarded", "cancelled", "cancelled", "cancelled"];
    assert_eq!(states(&client, &jobs).await, expected);
    assert_eq!(retry(&client, &jobs[3..4]).await, ["retried"]);
    assert_eq!(states(&client, &jobs[4..6]).await, ["blocked", "blocked"]);
    assert_eq!(drain(&client).await, 6);
    assert_eq!(state(&client, jobs[6]).await, "cancelled");
    db.finish().await;
}

#[tokio::test]
async fn a_retry_takes_back_a_long_chain_and_a_wide_tree() {
    let db = Db::new().await;
    let client = db.connect().await;
    let chain: Vec<Value> = (0..5_000)
        .map(|n| match n {
            0 => json!({"kind": "a", "ref": "0"}),
            _ => json!({"kind": "a", "ref": n.to_string(), "depends_on": [(n - 1).to_string()]}),
        })
        .collect();
    let tree: Vec<Value> = (1..10_000)
        .map(|n| match n {
            1 => json!({"kind": "a", "ref": "1"}),
            _ => json!({"kind": "a", "ref": n.to_string(), "depends_on": [(n / 2).to_string()]}),
        })
        .collect();
    for call in [json!(chain), json!(tree)] {
        let jobs = graph(&client, &call).await;
        discard_job(&client, jobs[0]).await;
        let cancelled = "select count(*) from jobs where state = 'cancelled'";
        assert_eq!(value::<i64>(&client, cancelled).await, jobs.len() as i64 - 1);
        assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
        let blocked: i64 = value(&client, "select count(*) from blocked").await;
        assert_eq!(blocked, jobs.len() as i64 - 1);
        cancel(&client, &jobs[..1]).await;
        run(&client, "delete from dependencies; delete from executions; delete from jobs").await;
    }
    db.finish().await;
}

#[tokio::test]
async fn one_that_waits_for_any_comes_back_to_wait() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "ref": "c", "depends_on": ["a", "b"], "wait_for": "any"},
        {"kind": "d", "depends_on": ["c"], "wait_for": "any"}]);
    let jobs = graph(&client, &call).await;
    // One parent is lost and comes back while the other runs.
    discard_job(&client, jobs[0]).await;
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    assert_eq!(states(&client, &jobs).await, ["ready", "ready", "blocked", "blocked"]);
    // Both are lost, and one comes back.
    discard_job(&client, jobs[0]).await;
    discard_job(&client, jobs[1]).await;
    assert_eq!(states(&client, &jobs[2..]).await, ["cancelled", "cancelled"]);
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    assert_eq!(states(&client, &jobs).await, ["ready", "discarded", "blocked", "blocked"]);
    discard_job(&client, jobs[0]).await;
    assert_eq!(states(&client, &jobs[2..]).await, ["cancelled", "cancelled"]);
    // Asked for itself, it runs, and takes along what is below it.
    assert_eq!(retry(&client, &jobs[2..3]).await, ["retried"]);
    assert_eq!(states(&client, &jobs[2..]).await, ["ready", "blocked"]);
    assert_eq!(drain(&client).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn one_that_waits_for_any_still_waits_for_what_is_left() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "depends_on": ["a", "b"], "wait_for": "any"}]);
    let jobs = graph(&client, &call).await;
    discard_job(&client, jobs[0]).await;
    cancel(&client, &jobs[2..]).await;
    assert_eq!(retry(&client, &jobs[2..]).await, ["retried"]);
    assert_eq!(state(&client, jobs[2]).await, "blocked");
    assert_eq!(retry(&client, &jobs[2..]).await, ["unfinished"], "it is not held");
    complete_job(&client, jobs[1]).await;
    assert_eq!(state(&client, jobs[2]).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn a_taken_key_keeps_all_below_it_down() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "a"},
        {"kind": "b", "ref": "b", "depends_on": ["a"], "unique_key": "k"},
        {"kind": "c", "ref": "c", "depends_on": ["b"], "unique_key": "l"},
        {"kind": "d", "depends_on": ["c"]}, {"kind": "e", "depends_on": ["a"]}]);
    let jobs = graph(&client, &call).await;
    discard_job(&client, jobs[0]).await;
    let holder = enqueue(&client, "'other', unique_key => 'k'").await;
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    let down = ["ready", "cancelled", "cancelled", "cancelled", "blocked"];
    assert_eq!(states(&client, &jobs).await, down);
    let keys = "select array_agg(key) from unique_keys";
    assert_eq!(value::<Vec<String>>(&client, keys).await, ["k"], "that of c was given back");
    assert_eq!(retry(&client, &jobs[1..2]).await, ["conflict"]);
    complete_job(&client, holder).await;
    assert_eq!(retry(&client, &jobs[1..2]).await, ["retried"]);
    assert_eq!(states(&client, &jobs).await, ["ready", "blocked", "blocked", "blocked", "blocked"]);
    assert_eq!(drain(&client).await, 5);
    db.finish().await;
}

#[tokio::test]
async fn another_parent_that_holds_goes_on_holding() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "depends_on": ["a", {"job": "b", "on_parent_failure": "hold"}]}]);
    let jobs = graph(&client, &call).await;
    discard_job(&client, jobs[1]).await;
    discard_job(&client, jobs[0]).await;
    assert_eq!(state(&client, jobs[2]).await, "cancelled");
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    complete_job(&client, jobs[0]).await;
    let cause: Uuid =
        value(&client, &format!("select cause from jobs where id = '{}'", jobs[2])).await;
    assert_eq!((state(&client, jobs[2]).await.as_str(), cause), ("blocked", jobs[1]));
    assert_eq!(retry(&client, &jobs[2..]).await, ["released"]);
    assert_eq!(state(&client, jobs[2]).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn a_time_in_the_future_stays() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "a"},
        {"kind": "b", "depends_on": ["a"], "run_at": "2030-01-01T00:00:00Z"}]);
    let jobs = graph(&client, &call).await;
    discard_job(&client, jobs[0]).await;
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    complete_job(&client, jobs[0]).await;
    assert_eq!(state(&client, jobs[1]).await, "scheduled");
    db.finish().await;
}

#[tokio::test]
async fn one_that_ended_before_it_was_attached_waits_when_it_is_retried() {
    let db = Db::new().await;
    let client = db.connect().await;
    for attached in [false, true] {
        let parents = [enqueue(&client, "'a'").await, enqueue(&client, "'a'").await];
        run(&client, "begin; set local rowlock.notify = 'off'").await;
        let call = json!([{"kind": "b", "ref": "b"}, {"kind": "c", "depends_on": ["b", parents[0]]},
            {"kind": "d", "depends_on": [parents[0], parents[1]], "wait_for": "any"}]);
        let jobs = graph(&client, &call).await;
        run(&client, "commit").await;
        // One falls with its parent, one is cancelled by a person.
        discard_job(&client, jobs[0]).await;
        cancel(&client, &jobs[2..]).await;
        assert_eq!(states(&client, &jobs[1..]).await, ["cancelled", "cancelled"]);
        if attached {
            run(&client, "select maintain()").await;
            assert_eq!(value::<i64>(&client, "select count(*) from links").await, 0);
        }
        assert_eq!(retry(&client, &[jobs[0], jobs[2]]).await, ["retried", "retried"]);
        assert_eq!(states(&client, &jobs).await, ["ready", "blocked", "blocked"]);
        complete_job(&client, jobs[0]).await;
        assert_eq!(states(&client, &jobs[1..]).await, ["blocked", "blocked"]);
        run(&client, "select maintain()").await;
        complete_job(&client, parents[0]).await;
        assert_eq!(states(&client, &jobs[1..]).await, ["ready", "ready"]);
        drain(&client).await;
    }
    db.finish().await;
}
