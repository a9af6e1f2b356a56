//! What an edge may ask for: a policy of its own, any of several parents, their results; and what a
//! retried parent takes back.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire_job, cancel, column, complete, discard, drain, enqueue, enqueue_many, finish, retry,
    run, state, states, value,
};

async fn graph(client: &Client, jobs: &Value) -> Vec<Uuid> {
    enqueue_many(client, jobs).await.iter().map(|job| job.job_id).collect()
}

async fn complete_job(client: &Client, job: Uuid) {
    assert_eq!(complete(client, &[acquire_job(client, job).await]).await, ["completed"]);
}

async fn discard_job(client: &Client, job: Uuid) {
    assert_eq!(discard(client, &[acquire_job(client, job).await]).await, ["discarded"]);
}

/// Two parents and a child of both that waits for any.
fn either(policy: &str) -> Value {
    json!([{"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "depends_on": ["a", "b"], "wait_for": "any", "on_parent_failure": policy}])
}

#[tokio::test]
async fn each_edge_may_have_a_policy_of_its_own() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "must"}, {"kind": "a", "ref": "may"},
        {"kind": "b", "depends_on": ["must", {"job": "may", "on_parent_failure": "continue"}]}]);
    for (fails, expected) in [(1, "ready"), (0, "cancelled")] {
        let jobs = graph(&client, &call).await;
        discard_job(&client, jobs[fails]).await;
        complete_job(&client, jobs[1 - fails]).await;
        assert_eq!(state(&client, jobs[2]).await, expected);
    }
    let outside = enqueue(&client, "'a'").await;
    let call = json!([{"kind": "b", "on_parent_failure": "cancel",
        "depends_on": [{"job": outside, "on_parent_failure": "hold"}]}]);
    let child = graph(&client, &call).await;
    discard_job(&client, outside).await;
    assert_eq!(states(&client, &child).await, ["blocked"], "held");
    db.finish().await;
}

#[tokio::test]
async fn any_parent_releases_and_the_rest_run_on() {
    let db = Db::new().await;
    let client = db.connect().await;
    for first in [0, 1] {
        let jobs = graph(&client, &either("cancel")).await;
        complete_job(&client, jobs[first]).await;
        assert_eq!(states(&client, &jobs[1 - first..=1 - first]).await, ["ready"]);
        complete_job(&client, jobs[2]).await;
        complete_job(&client, jobs[1 - first]).await;
    }
    // The child stays what it is when the rest fails.
    let jobs = graph(&client, &either("cancel")).await;
    complete_job(&client, jobs[0]).await;
    discard_job(&client, jobs[1]).await;
    assert_eq!(state(&client, jobs[2]).await, "ready");
    drain(&client).await;
    db.finish().await;
}

#[tokio::test]
async fn one_that_waits_for_any_falls_with_the_last_parent_only() {
    let db = Db::new().await;
    let client = db.connect().await;
    for (policy, last) in [("cancel", "cancelled"), ("hold", "blocked")] {
        let jobs = graph(&client, &either(policy)).await;
        discard_job(&client, jobs[0]).await;
        let held: Option<Uuid> =
            value(&client, &format!("select cause from jobs where id = '{}'", jobs[2])).await;
        assert_eq!((state(&client, jobs[2]).await.as_str(), held), ("blocked", None));
        discard_job(&client, jobs[1]).await;
        assert_eq!(state(&client, jobs[2]).await, last);
    }
    let jobs = graph(&client, &either("continue")).await;
    discard_job(&client, jobs[0]).await;
    assert_eq!(state(&client, jobs[2]).await, "ready");
    // Below a chain of such, at any depth.
    let call = json!([{"kind": "a", "ref": "a"}, {"kind": "a", "ref": "b"},
        {"kind": "c", "ref": "c", "depends_on": ["a", "b"], "wait_for": "any"},
        {"kind": "d", "ref": "d", "depends_on": ["b", "c"], "wait_for": "any"},
        {"kind": "e", "ref": "e", "depends_on": ["d"]}]);
    let jobs = graph(&client, &call).await;
    cancel(&client, &jobs[..2]).await;
    assert_eq!(states(&client, &jobs).await, vec!["cancelled"; 5]);
    db.finish().await;
}

#[tokio::test]
async fn any_of_parents_that_existed_before() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parents = [enqueue(&client, "'a'").await, enqueue(&client, "'a'").await];
    let call = json!([{"kind": "b", "depends_on": parents, "wait_for": "any"}]);
    let before = graph(&client, &call).await[0];
    assert_eq!(state(&client, before).await, "blocked");
    // Not attached yet when the parent completes.
    run(
        &client,
        &format!("begin; set local rowlock.notify = 'off'; select enqueue_many('{call}'); commit"),
    )
    .await;
    let late: Uuid = value(&client, "select child from links limit 1").await;
    complete_job(&client, parents[0]).await;
    let after = graph(&client, &call).await[0];
    assert_eq!(states(&client, &[before, after]).await, ["ready", "ready"]);
    run(&client, "select maintain()").await;
    assert_eq!(state(&client, late).await, "ready");
    assert_eq!(drain(&client).await, 4);
    db.finish().await;
}

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
async fn results_are_inputs_by_ref_or_id() {
    let db = Db::new().await;
    let client = db.connect().await;
    let outside = enqueue(&client, "'o'").await;
    let done = enqueue(&client, "'o'").await;
    let give = async |job: Uuid, result: &str| {
        let execution = [acquire_job(&client, job).await];
        let results = format!(", results => array['{result}']::jsonb[]");
        assert_eq!(finish(&client, "complete", &execution, &results).await, ["completed"]);
    };
    give(done, "[1]").await;
    let call = json!([
        {"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "depends_on": ["a", {"job": "b", "on_parent_failure": "continue"}, outside, done]},
    ]);
    let jobs = graph(&client, &call).await;
    give(jobs[0], r#"{"rows": 7}"#).await;
    discard_job(&client, jobs[1]).await;
    give(outside, "null").await;
    assert_eq!(state(&client, jobs[2]).await, "ready");
    let inputs: Vec<Value> =
        column(&client, &format!("select to_jsonb(i) from inputs('{}') i", jobs[2])).await;
    let input = |name: &str, parent: Uuid, state: &str, result: Value| json!({"ref": name, "parent": parent, "state": state, "result": result});
    let mut expected = vec![
        input("a", jobs[0], "completed", json!({"rows": 7})),
        input("b", jobs[1], "discarded", json!(null)),
        input(&outside.to_string(), outside, "completed", json!(null)),
        input(&done.to_string(), done, "completed", json!([1])),
    ];
    expected.sort_by_key(|input| input["ref"].as_str().expect("a name").to_owned());
    let mut got = inputs;
    got.sort_by_key(|input| input["ref"].as_str().expect("a name").to_owned());
    assert_eq!(got, expected);
    drain(&client).await;
    db.finish().await;
}
