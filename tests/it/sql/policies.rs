//! What an edge may ask for: a policy of its own, any of several parents, their results; and what a
//! retried parent takes back.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    cancel, complete_job, discard_job, drain, enqueue, graph, retry, run, state, states, value,
};

/// A job whose id says that it is old enough to be pruned.
const OLD: &str = "'a', id => id_at(now() - interval '2 days')";

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
async fn a_parent_pruned_before_the_commit_was_enough() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let parents = [enqueue(&client, OLD).await, enqueue(&client, "'a'").await];
    discard_job(&client, parents[1]).await;
    run(&client, "begin").await;
    let call = json!([{"kind": "b", "depends_on": parents, "wait_for": "any"}]);
    let child = graph(&client, &call).await[0];
    complete_job(&other, parents[0]).await;
    run(
        &other,
        "update jobs set finished_at = now() - interval '2 days' where state = 'completed'",
    )
    .await;
    assert_eq!(value::<i64>(&other, "select done from prune(10)").await, 1);
    run(&client, "commit").await;
    assert_eq!(state(&client, child).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn a_parent_that_has_completed_stays_while_its_child_is_enqueued() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let parent = enqueue(&client, OLD).await;
    complete_job(&client, parent).await;
    run(&client, "update jobs set finished_at = now() - interval '2 days'").await;
    run(&client, "begin").await;
    let child = enqueue(&client, &format!("'b', depends_on => '{{{parent}}}'")).await;
    assert_eq!(value::<i64>(&other, "select done from prune(10)").await, 0);
    run(&client, "commit").await;
    assert_eq!(value::<i64>(&other, "select done from prune(10)").await, 0);
    let inputs: i64 = value(&client, &format!("select count(*) from inputs('{child}')")).await;
    assert_eq!((state(&client, child).await.as_str(), inputs), ("ready", 1));
    db.finish().await;
}

#[tokio::test]
async fn a_child_that_needs_no_more_links_loses_them() {
    let db = Db::new().await;
    let client = db.connect().await;
    let outside = enqueue(&client, "'o'").await;
    for policy in ["cancel", "continue"] {
        run(&client, "begin; set local rowlock.notify = 'off'").await;
        let call = json!([{"kind": "a", "ref": "a"}, {"kind": "b", "depends_on": ["a", outside],
            "wait_for": "any", "on_parent_failure": policy}]);
        let jobs = graph(&client, &call).await;
        run(&client, "commit").await;
        match policy {
            "cancel" => complete_job(&client, jobs[0]).await,
            _ => discard_job(&client, jobs[0]).await,
        }
        assert_eq!(state(&client, jobs[1]).await, "ready");
        assert_eq!(value::<i64>(&client, "select count(*) from links").await, 0);
    }
    db.finish().await;
}

#[tokio::test]
async fn a_chain_of_jobs_that_wait_for_any_falls_whole() {
    let db = Db::new().await;
    let client = db.connect().await;
    let chain: Vec<Value> = (0..2_000)
        .map(|n| match n {
            0 => json!({"kind": "a", "ref": "0"}),
            _ => json!({"kind": "a", "ref": n.to_string(), "wait_for": "any",
                "depends_on": [(n - 1).to_string()]}),
        })
        .collect();
    let jobs = graph(&client, &json!(chain)).await;
    discard_job(&client, jobs[0]).await;
    let fallen = format!("select count(*) from jobs where cause = '{}'", jobs[0]);
    assert_eq!(value::<i64>(&client, &fallen).await, 1_999);
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    assert_eq!(value::<i64>(&client, "select count(*) from blocked").await, 1_999);
    db.finish().await;
}
