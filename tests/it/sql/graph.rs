//! Graphs in one call: refs, cycles, what is counted, what is inherited.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    Enqueued, acquire, acquire_job, column, complete, drain, enqueue, enqueue_many, refused, run,
    states, value,
};

async fn priorities(client: &Client, jobs: &[Enqueued]) -> Vec<i32> {
    let list: Vec<String> = jobs.iter().map(|job| job.job_id.to_string()).collect();
    let sql = format!(
        "select j.priority::int from unnest('{{{}}}'::uuid[]) with ordinality g(id, n)
         join jobs j using (id) order by n",
        list.join(",")
    );
    column(client, &sql).await
}

#[tokio::test]
async fn refs_may_come_in_any_order() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "last", "ref": "d", "depends_on": ["b", "c"]},
        {"kind": "left", "ref": "b", "depends_on": ["a"]},
        {"kind": "first", "ref": "a"},
        {"kind": "right", "ref": "c", "depends_on": ["a"]},
    ]);
    let answer = enqueue_many(&client, &call).await;
    let refs: Vec<_> = answer.iter().map(|job| job.reference.as_deref().unwrap_or("")).collect();
    assert_eq!(refs, ["d", "b", "a", "c"]);
    let ids: Vec<Uuid> = answer.iter().map(|job| job.job_id).collect();
    assert_eq!(states(&client, &ids).await, ["blocked", "blocked", "ready", "blocked"]);
    let mut order = Vec::new();
    let worker = Uuid::new_v4();
    while let [execution] = &acquire(&client, worker, 1).await[..] {
        order.push(execution.kind.clone());
        complete(&client, std::slice::from_ref(execution)).await;
    }
    assert_eq!(order, ["first", "left", "right", "last"]);
    db.finish().await;
}

#[tokio::test]
async fn cycles_are_refused_and_nothing_is_stored() {
    let db = Db::new().await;
    let client = db.connect().await;
    let ring = |n: usize| -> Value {
        let job = |i: usize| json!({"kind": "a", "ref": i.to_string(), "depends_on": [((i + 1) % n).to_string()]});
        (0..n).map(job).collect()
    };
    for n in [1, 2, 3, 5000] {
        let error = refused(&client, "RL422", &format!("select enqueue_many('{}')", ring(n))).await;
        assert_eq!(error.message(), "depends_on of job 1 is part of a cycle");
        // Each waits for the one after it in the call, the last for the first.
        let detail = error.detail().expect("a detail");
        let named = (1..=n.min(20)).map(|k| k.to_string()).collect::<Vec<_>>().join(" -> ");
        let end = if n < 20 { " -> 1".to_owned() } else { format!(" -> ... ({n} jobs)") };
        assert_eq!(detail, format!("each waits for the next: {named}{end}"));
    }
    // A tail that leads into the ring waits as well, but a job before it does not.
    let tailed = json!([{"kind": "a", "ref": "free"}, {"kind": "b", "ref": "x", "depends_on": ["y"]},
        {"kind": "c", "ref": "y", "depends_on": ["x", "free"]}]);
    let error = refused(&client, "RL422", &format!("select enqueue_many('{tailed}')")).await;
    assert_eq!(error.message(), "depends_on of job 2 is part of a cycle");
    let id = Uuid::now_v7();
    let itself = format!("select enqueue('a', id => '{id}', depends_on => '{{{id}}}')");
    refused(&client, "RL422", &itself).await;
    let by_id = json!([{"kind": "a", "id": id, "ref": "one", "depends_on": ["two"]},
        {"kind": "b", "ref": "two", "depends_on": [id]}]);
    refused(&client, "RL422", &format!("select enqueue_many('{by_id}')")).await;
    let left: i64 = value(
        &client,
        "select (select count(*) from jobs) + (select count(*) from ready)
            + (select count(*) from blocked) + (select count(*) from dependencies)",
    )
    .await;
    assert_eq!(left, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_parent_is_counted_once() {
    let db = Db::new().await;
    let client = db.connect().await;
    let outside = enqueue(&client, "'outside'").await;
    let id = Uuid::now_v7();
    let call = json!([
        {"kind": "p", "ref": "p", "id": id},
        {"kind": "inside", "depends_on": ["p", id, "p", id.to_string().to_uppercase()]},
        {"kind": "outside", "depends_on": [outside, outside]},
        {"kind": "both", "depends_on": [outside, "p", outside, id]},
    ]);
    enqueue_many(&client, &call).await;
    let counts: Vec<i32> =
        column(&client, "select remaining from blocked order by remaining").await;
    assert_eq!(counts, [1, 1, 2]);
    enqueue(&client, &format!("'single', depends_on => '{{{outside},{outside}}}'")).await;
    assert_eq!(value::<i64>(&client, "select count(*) from dependencies").await, 5);
    assert_eq!(drain(&client).await, 6);
    db.finish().await;
}

#[tokio::test]
async fn edges_of_a_child_that_is_not_created_are_ignored() {
    let db = Db::new().await;
    let client = db.connect().await;
    let child = enqueue(&client, "'child', unique_key => 'k'").await;
    let parent = enqueue(&client, "'parent'").await;
    let call = json!([{"kind": "p", "ref": "p"},
        {"kind": "child", "unique_key": "k", "depends_on": ["p", parent, child]}]);
    let answer = enqueue_many(&client, &call).await;
    assert_eq!((answer[1].job_id, answer[1].created), (child, false));
    assert_eq!(states(&client, &[child, answer[0].job_id]).await, ["ready", "ready"]);
    assert_eq!(value::<i64>(&client, "select count(*) from dependencies").await, 0);
    assert!(!value::<bool>(&client, "select bool_or(has_dependents) from jobs").await);
    db.finish().await;
}

#[tokio::test]
async fn a_completed_parent_is_not_waited_for() {
    let db = Db::new().await;
    let client = db.connect().await;
    let done = enqueue(&client, "'p', priority => 1").await;
    drain(&client).await;
    let child = enqueue(&client, &format!("'c', depends_on => '{{{done}}}'")).await;
    let execution = acquire_job(&client, child).await;
    assert_eq!(execution.priority, 1, "it is inherited from all the same");
    let later = format!("'d', run_at => now() + interval '1 hour', depends_on => '{{{done}}}'");
    let later = enqueue(&client, &later).await;
    assert_eq!(states(&client, &[later]).await, ["scheduled"]);
    db.finish().await;
}

#[tokio::test]
async fn priority_goes_down_from_the_most_urgent_parent() {
    let db = Db::new().await;
    let client = db.connect().await;
    let urgent = enqueue(&client, "'u', priority => 0").await;
    let lazy = enqueue(&client, "'l', priority => 8").await;
    let call = json!([
        {"kind": "great-grandchild", "depends_on": ["grandchild"]},
        {"kind": "grandchild", "ref": "grandchild", "depends_on": ["child"]},
        {"kind": "child", "ref": "child", "depends_on": ["seven", "three"]},
        {"kind": "own", "ref": "own", "priority": 9, "depends_on": ["three"]},
        {"kind": "below own", "depends_on": ["own"]},
        {"kind": "seven", "ref": "seven", "priority": 7},
        {"kind": "three", "ref": "three", "priority": 3},
        {"kind": "plain", "ref": "plain", "priority": null},
        {"kind": "below plain", "depends_on": ["plain", lazy]},
        {"kind": "of outside", "ref": "of outside", "depends_on": [lazy, "seven"]},
        {"kind": "of zero", "ref": "of zero", "depends_on": [urgent, "seven"]},
        {"kind": "below zero", "depends_on": ["of zero"]},
        {"kind": "six of zero", "priority": 6, "depends_on": ["of zero", urgent]},
    ]);
    let answer = enqueue_many(&client, &call).await;
    let expected = [3, 3, 3, 9, 9, 7, 3, 5, 5, 7, 0, 0, 6];
    assert_eq!(priorities(&client, &answer).await, expected);
    let both = format!("'single', depends_on => '{{{lazy},{urgent}}}'");
    assert_eq!(acquire_priority_of(&client, &both).await, 0);
    let lanes: Vec<i16> = column(&client, "select distinct priority from ready order by 1").await;
    assert_eq!(lanes, [0, 3, 5, 7, 8]);
    assert_eq!(drain(&client).await, 16);
    db.finish().await;
}

async fn acquire_priority_of(client: &Client, arguments: &str) -> i32 {
    let job = enqueue(client, arguments).await;
    value(client, &format!("select priority::int from jobs where id = '{job}'")).await
}

#[tokio::test]
async fn zero_is_a_priority_and_runs_first() {
    let db = Db::new().await;
    let client = db.connect().await;
    for priority in [5, 0, 9, 1, 0] {
        enqueue(&client, &format!("'a', priority => {priority}")).await;
    }
    run(&client, "select enqueue_many('[{\"kind\": \"b\", \"priority\": 0}]')").await;
    let executions = acquire(&client, Uuid::new_v4(), 10).await;
    let order: Vec<i32> = executions.iter().map(|execution| execution.priority).collect();
    assert_eq!(order, [0, 0, 0, 1, 5, 9]);
    db.finish().await;
}

#[tokio::test]
async fn arrays_may_be_null_where_all_is_null() {
    let db = Db::new().await;
    let client = db.connect().await;
    let sql =
        "select created from enqueue_batch(kinds => '{a,b}', args => array['{}', '{}']::jsonb[],
        queues => '{q,q}', priorities => null, run_ats => null, max_attempts => null,
        timeouts => null, unique_keys => null, ids => null, edge_children => '{2}',
        edge_parents => '{1}', edge_outside => null, edge_policies => '{hold}')";
    assert_eq!(column::<bool>(&client, sql).await, [true, true]);
    let sql = "select priority::int from jobs";
    assert_eq!(column::<i32>(&client, sql).await, [5, 5]);
    assert_eq!(value::<i32>(&client, "select remaining from blocked").await, 1);
    db.finish().await;
}

#[tokio::test]
async fn every_isolation_level_may_enqueue() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    for level in ["read uncommitted", "read committed", "repeatable read", "serializable"] {
        run(&client, &format!("begin isolation level {level}")).await;
        enqueue(&client, &format!("'a', unique_key => '{level}'")).await;
        let call = json!([{"kind": "b", "ref": "b", "id": Uuid::now_v7()},
            {"kind": "c", "depends_on": ["b", parent]}]);
        enqueue_many(&client, &call).await;
        run(&client, "commit").await;
    }
    assert_eq!(value::<i64>(&client, "select count(*) from links").await, 2);
    let linked = "select done from maintain() where duty = 'link'";
    assert_eq!(value::<i64>(&client, linked).await, 2);
    assert_eq!(drain(&client).await, 13);
    db.finish().await;
}
