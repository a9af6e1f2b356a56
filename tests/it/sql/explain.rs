//! "Why is it not running?": each answer that a person can act on.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_job, cancel, complete, discard, enqueue, enqueue_many, fail, run, value,
};

async fn explain(client: &Client, job: Uuid) -> Value {
    value(client, &format!("select to_jsonb(e) from explain('{job}') e")).await
}

/// The summary, which must contain all of these.
async fn says(client: &Client, job: Uuid, parts: &[&str]) -> Value {
    let answer = explain(client, job).await;
    let summary = answer["summary"].as_str().expect("a summary");
    for part in parts {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    answer
}

/// A worker that asks for `default`, and can run these kinds.
async fn listen(client: &Client, kinds: &str) -> Uuid {
    let worker = Uuid::new_v4();
    let call = format!("select acquire('{worker}', '{{default}}', kinds => {kinds})");
    run(client, &call).await;
    worker
}

#[tokio::test]
async fn a_ready_job_waits_for_a_worker_its_queue_or_its_turn() {
    let db = Db::new().await;
    let client = db.connect().await;
    listen(&client, "'{other}'").await;
    let first = enqueue(&client, "'a', queue => 'lonely'").await;
    says(&client, first, &["No worker listens on queue lonely"]).await;
    let job = enqueue(&client, "'a'").await;
    let answer = says(&client, job, &["No worker that listens", "runs kind a", "1 listen"]).await;
    assert_eq!((&answer["workers_on_queue"], &answer["workers_for_kind"]), (&json!(1), &json!(0)));
    run(&client, "select pause_queue('default')").await;
    let answer = says(&client, job, &["Queue default is paused"]).await;
    assert!(answer["queue_paused_at"].is_string());
    run(&client, "select resume_queue('default')").await;
    run(&client, "update workers set kinds = null").await;
    assert_eq!(says(&client, job, &["Next in its queue"]).await["ahead"], 0);
    run(&client, "select enqueue('a', priority => 1)").await;
    says(&client, job, &["1 job is before it"]).await;
    run(&client, "select enqueue('a', priority => 9), enqueue('a', priority => 4)").await;
    assert_eq!(says(&client, job, &["2 jobs are before it"]).await["ahead"], 2);
    let fill = "select count(enqueue('a', priority => 3)) from generate_series(1, 998)";
    run(&client, fill).await;
    assert_eq!(says(&client, job, &["1000 jobs are before it"]).await["ahead"], 1000);
    run(&client, "select enqueue('a', priority => 3)").await;
    assert_eq!(says(&client, job, &["More than 1000 jobs"]).await["ahead"], 1001);
    db.finish().await;
}

#[tokio::test]
async fn a_blocked_job_names_its_parents_and_where_the_graph_is_stuck() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "a", "ref": "root", "queue": "slow"},
        {"kind": "b", "ref": "middle", "depends_on": ["root"]},
        {"kind": "c", "ref": "other"},
        {"kind": "d", "ref": "leaf", "depends_on": ["middle", "other"]},
    ]);
    let jobs: Vec<Uuid> = enqueue_many(&client, &call).await.iter().map(|job| job.job_id).collect();
    complete(&client, &[acquire_job(&client, jobs[2]).await]).await;
    let root = jobs[0].to_string();
    let parts = ["Waits for 1 parent;", &root, "is ready in queue slow"];
    let answer = says(&client, jobs[3], &parts).await;
    let middle = json!({"job_id": jobs[1], "state": "blocked", "on_parent_failure": "cancel"});
    assert_eq!(answer["waits_for"], json!([middle]));
    // Not attached yet: the link is as good as the edge.
    let linked = format!("select enqueue('e', depends_on => '{{{}}}')", jobs[0]);
    run(&client, &format!("begin; set local rowlock.notify = 'off'; {linked}; commit")).await;
    let child: Uuid = value(&client, "select child from links").await;
    says(&client, child, &["Waits for 1 parent;", &root]).await;
    run(&client, "select maintain()").await;
    db.finish().await;
}

#[tokio::test]
async fn what_holds_or_ended_a_job_is_named() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'a'").await;
    let held = enqueue(
        &client,
        &format!("'b', depends_on => '{{{parent}}}', on_parent_failure => 'hold'"),
    )
    .await;
    let ended = enqueue(&client, &format!("'c', depends_on => '{{{parent}}}'")).await;
    discard(&client, &[acquire_job(&client, parent).await]).await;
    let cause = parent.to_string();
    let answer = says(&client, held, &["Held", &cause, "discarded", "Retry"]).await;
    assert_eq!(answer["first_cause"], json!(parent));
    // The parent that holds it, where that fell with another.
    let call = json!([{"kind": "r", "ref": "r"}, {"kind": "p", "ref": "p", "depends_on": ["r"]},
        {"kind": "c", "depends_on": ["p"], "on_parent_failure": "hold"}]);
    let jobs: Vec<Uuid> = enqueue_many(&client, &call).await.iter().map(|job| job.job_id).collect();
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    says(&client, jobs[2], &["Held: parent", &jobs[1].to_string(), "was cancelled"]).await;
    let answer = says(&client, ended, &["cancelled", "a parent was discarded"]).await;
    assert_eq!((&answer["state"], &answer["first_cause"]), (&json!("cancelled"), &json!(parent)));
    db.finish().await;
}

#[tokio::test]
async fn running_and_scheduled_jobs_say_where_and_when() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'a'").await;
    let worker = Uuid::new_v4();
    let held = acquire(&client, worker, 1).await;
    let answer = says(&client, job, &["Attempt 1 runs at worker", &worker.to_string()]).await;
    assert!(answer["lease_ends_at"].is_string());
    cancel(&client, &[job]).await;
    says(&client, job, &["asked to stop"]).await;
    let retried = enqueue(&client, "'b'").await;
    fail(&client, &[acquire_job(&client, retried).await]).await;
    let answer = says(&client, retried, &["Due at", "attempt 1 ended failed"]).await;
    assert!(answer["due_at"].is_string());
    complete(&client, &held).await;
    let lost = enqueue(&client, "'c'").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    run(&client, "update workers set lease_ends_at = now() - interval '1 s'").await;
    says(&client, lost, &["which is lost"]).await;
    let rows: i64 = value(&client, "select count(*) from explain(gen_random_uuid())").await;
    assert_eq!(rows, 0);
    db.finish().await;
}

#[tokio::test]
async fn one_that_waits_for_any_names_what_is_left_and_what_would_bring_it_back() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "a", "ref": "a"}, {"kind": "a", "ref": "b"},
        {"kind": "c", "wait_for": "any",
            "depends_on": [{"job": "a", "on_parent_failure": "hold"}, "b"]},
        {"kind": "d", "wait_for": "any", "depends_on": ["b"]}]);
    let jobs: Vec<Uuid> = enqueue_many(&client, &call).await.iter().map(|job| job.job_id).collect();
    says(&client, jobs[2], &["Waits for any of 2 parents"]).await;
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    let answer = says(&client, jobs[2], &["Waits for any of 1 parent"]).await;
    assert_eq!(answer["waits_for"][0]["job_id"], json!(jobs[1]));
    discard(&client, &[acquire_job(&client, jobs[1]).await]).await;
    says(&client, jobs[2], &["Held: parent", &jobs[0].to_string(), "was discarded"]).await;
    let cause = format!("Retry job {}, and this one comes back", jobs[1]);
    says(&client, jobs[3], &["a parent was discarded", &cause]).await;
    db.finish().await;
}
