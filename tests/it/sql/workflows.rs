//! Workflows: what makes one, what repeats one, and what its state says of its jobs.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    Enqueued, acquire_job, cancel, column, complete, discard, drain, enqueue, enqueue_many, pid,
    refused, run, state, value,
};
use crate::harness::{Db, blocked_on_lock};

/// A workflow of a, then b, then c.
fn chain(workflow: &Value) -> Value {
    json!({"workflow": workflow, "jobs": [
        {"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b", "depends_on": ["a"]},
        {"kind": "c", "depends_on": ["b"]}]})
}

/// The workflow of a job.
async fn workflow_of(client: &Client, job: &Enqueued) -> Option<Uuid> {
    value(client, &format!("select workflow from job_details where id = '{}'", job.job_id)).await
}

/// `state done/jobs` of a workflow.
async fn status(client: &Client, id: Uuid) -> String {
    let sql = format!("select state || ' ' || done || '/' || jobs from workflow_status('{id}')");
    value(client, &sql).await
}

#[tokio::test]
async fn the_jobs_of_a_call_are_one() {
    let db = Db::new().await;
    let client = db.connect().await;
    let plain = enqueue_many(&client, &json!([{"kind": "plain"}])).await;
    assert_eq!(workflow_of(&client, &plain[0]).await, None);
    let mut jobs = enqueue_many(&client, &chain(&json!("nightly"))).await;
    let id = workflow_of(&client, &jobs[2]).await.expect("it is in one");
    assert_eq!(workflow_of(&client, &jobs[0]).await, Some(id));
    let shown = "select format('%s %s %s of %s, %s blocked, %s ready', name, state, done, jobs,
        blocked, ready) from workflow_details";
    assert_eq!(value::<String>(&client, shown).await, "nightly running 0 of 3, 2 blocked, 1 ready");
    let edges = format!(
        "select kind || ' ' || cardinality(parents) || ' ' || is_held from workflow_jobs('{id}')"
    );
    assert_eq!(column::<String>(&client, &edges).await, ["a 0 false", "b 1 false", "c 1 false"]);
    // Chosen by the caller, with no name.
    let given = Uuid::now_v7();
    jobs = enqueue_many(&client, &chain(&json!({"id": given}))).await;
    assert_eq!(workflow_of(&client, &jobs[1]).await, Some(given));
    assert_eq!(status(&client, given).await, "running 0/3");
    assert_eq!(value::<i64>(&client, "select count(*) from workflow_status(null)").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn what_is_no_workflow_is_refused_and_named() {
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = json!([{"kind": "k"}]);
    for (call, message, detail) in [
        (json!({}), "jobs is not an array", "null"),
        (json!({"workflow": "n"}), "jobs is not an array", "null"),
        (json!({"jobs": jobs}), "workflow is not valid", "null"),
        (json!({"workflow": 7, "jobs": jobs}), "workflow is not valid", "7"),
        (json!({"workflow": "n", "jobs": jobs, "x": 1}), "the call has an unknown key", "x"),
        (json!({"workflow": {"y": 1}, "jobs": jobs}), "workflow has an unknown key", "y"),
        (json!({"workflow": {"name": 1}, "jobs": jobs}), "name of workflow is not valid", "1"),
        (json!({"workflow": "", "jobs": jobs}), "name of workflow is not valid", ""),
        (json!({"workflow": "a\n", "jobs": jobs}), "name of workflow is not valid", "a\n"),
        (json!({"workflow": {"id": "1"}, "jobs": jobs}), "id of workflow is not valid", "\"1\""),
        (json!({"workflow": "n", "jobs": [{"kind": ""}]}), "kind of job 1 is not valid", ""),
    ] {
        let error = refused(&client, "RL422", &format!("select enqueue_many('{call}')")).await;
        assert_eq!((error.message(), error.detail()), (message, Some(detail)), "{call}");
    }
    let long = json!({"workflow": "é".repeat(129), "jobs": jobs});
    refused(&client, "RL422", &format!("select enqueue_many('{long}')")).await;
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 0);
    let longest = json!({"workflow": "é".repeat(128), "jobs": jobs});
    enqueue_many(&client, &longest).await;
    db.finish().await;
}

/// The chain with ids of the caller's.
fn named_chain(workflow: &Value, ids: &[Uuid]) -> Value {
    let mut call = chain(workflow);
    for (job, id) in call["jobs"].as_array_mut().expect("jobs").iter_mut().zip(ids) {
        job["id"] = json!(id);
    }
    call
}

#[tokio::test]
async fn a_repeat_is_the_same_workflow_and_another_is_refused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (id, ids) = (Uuid::now_v7(), [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()]);
    let nightly = json!({"name": "nightly", "id": id});
    let call = named_chain(&nightly, &ids);
    assert!(enqueue_many(&client, &call).await.iter().all(|job| job.created));
    assert!(enqueue_many(&client, &call).await.iter().all(|job| !job.created));
    // Without the workflow's id its jobs are enough, with another one too.
    for again in [json!("nightly"), json!({"name": "nightly", "id": Uuid::now_v7()})] {
        assert!(!enqueue_many(&client, &named_chain(&again, &ids)).await[0].created);
    }
    let mut fewer = call.clone();
    fewer["jobs"].as_array_mut().expect("jobs").pop();
    for other in [
        fewer,
        named_chain(&json!({"name": "other", "id": id}), &ids),
        named_chain(&json!("other"), &ids),
        named_chain(&nightly, &ids[..2]),
        chain(&nightly),
    ] {
        let error = refused(&client, "RL409", &format!("select enqueue_many('{other}')")).await;
        let (message, detail) = (error.message(), error.detail().expect("a detail").to_owned());
        assert_eq!(message, "workflow has other jobs, or another name", "{other}");
        assert_eq!(detail, id.to_string());
    }
    let counts = "select (select count(*) from workflows) || ' ' || (select count(*) from jobs)";
    assert_eq!(value::<String>(&client, counts).await, "1 3");
    db.finish().await;
}

#[tokio::test]
async fn a_job_that_exists_keeps_its_workflow() {
    let db = Db::new().await;
    let client = db.connect().await;
    let keyed = |name: &str| {
        json!({"workflow": name, "jobs": [
            {"kind": "shared", "unique_key": "k", "ref": "s"}, {"kind": "own", "depends_on": ["s"]}]})
    };
    let first = enqueue_many(&client, &keyed("first")).await;
    let second = enqueue_many(&client, &keyed("second")).await;
    assert_eq!(first[0].job_id, second[0].job_id);
    let of_first = workflow_of(&client, &second[0]).await;
    assert_eq!(of_first, workflow_of(&client, &first[1]).await);
    let of_second = workflow_of(&client, &second[1]).await.expect("a workflow of its own");
    assert_eq!(status(&client, of_second).await, "running 0/1");
    // A call that creates no job creates no workflow.
    let nothing = json!({"workflow": "third", "jobs": [{"kind": "shared", "unique_key": "k"}]});
    refused(&client, "RL409", &format!("select enqueue_many('{nothing}')")).await;
    enqueue(&client, "'alone', unique_key => 'l'").await;
    let nothing = json!({"workflow": "third", "jobs": [{"kind": "x", "unique_key": "l"}]});
    assert!(!enqueue_many(&client, &nothing).await[0].created);
    enqueue_many(&client, &json!({"workflow": "empty", "jobs": []})).await;
    assert_eq!(value::<i64>(&client, "select count(*) from workflows").await, 2);
    db.finish().await;
}

#[tokio::test]
async fn two_transactions_with_one_id_are_one_workflow() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let (id, ids) = (Uuid::now_v7(), [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()]);
    let call = named_chain(&json!({"name": "n", "id": id}), &ids);
    run(&other, "begin").await;
    enqueue_many(&other, &call).await;
    let waiting = pid(&client).await;
    let (again, ()) = tokio::join!(enqueue_many(&client, &call), async {
        blocked_on_lock(&other, waiting).await;
        run(&other, "commit").await;
    });
    assert!(again.iter().all(|job| !job.created));
    // Without ids of the jobs it is another.
    let fresh = json!({"name": "n", "id": Uuid::now_v7()});
    run(&other, "begin").await;
    enqueue_many(&other, &chain(&fresh)).await;
    let sql = format!("select enqueue_many('{}')", chain(&fresh));
    let (_, ()) = tokio::join!(refused(&client, "RL409", &sql), async {
        blocked_on_lock(&other, waiting).await;
        run(&other, "commit").await;
    });
    assert_eq!(value::<i64>(&client, "select count(*) from workflows").await, 2);
    db.finish().await;
}

#[tokio::test]
async fn its_state_follows_from_its_jobs() {
    let db = Db::new().await;
    let client = db.connect().await;
    let make = async || {
        let jobs = enqueue_many(&client, &chain(&json!("n"))).await;
        (workflow_of(&client, &jobs[0]).await.expect("one"), jobs)
    };
    let (id, jobs) = make().await;
    complete(&client, &[acquire_job(&client, jobs[0].job_id).await]).await;
    assert_eq!(status(&client, id).await, "running 1/3");
    drain(&client).await;
    assert_eq!(status(&client, id).await, "completed 3/3");
    let ended = "select count(*) from workflow_details w
        where w.finished_at = (select max(j.finished_at) from jobs j where j.workflow = w.id)";
    assert_eq!(value::<i64>(&client, ended).await, 1);

    let (id, jobs) = make().await;
    discard(&client, &[acquire_job(&client, jobs[0].job_id).await]).await;
    assert_eq!(status(&client, id).await, "failed 3/3");

    let (id, jobs) = make().await;
    cancel(&client, &[jobs[1].job_id]).await;
    assert_eq!(status(&client, id).await, "running 2/3");
    drain(&client).await;
    assert_eq!(status(&client, id).await, "cancelled 3/3");

    // One of two mirrors is down, and what needs any of them completes.
    let call = json!({"workflow": "n", "jobs": [{"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "depends_on": ["a", "b"], "wait_for": "any"}]});
    for (failing, expected) in [(1, "completed 3/3"), (2, "failed 3/3")] {
        let jobs = enqueue_many(&client, &call).await;
        let id = workflow_of(&client, &jobs[0]).await.expect("one");
        for job in &jobs[..failing] {
            discard(&client, &[acquire_job(&client, job.job_id).await]).await;
        }
        drain(&client).await;
        assert_eq!(status(&client, id).await, expected);
    }

    // It falls with a job that is in no workflow.
    let outside = enqueue(&client, "'outside'").await;
    let call = json!({"workflow": "n", "jobs": [{"kind": "c", "depends_on": [outside]}]});
    let id = workflow_of(&client, &enqueue_many(&client, &call).await[0]).await.expect("one");
    discard(&client, &[acquire_job(&client, outside).await]).await;
    assert_eq!(status(&client, id).await, "failed 1/1");

    let call = json!({"workflow": "n", "jobs": [{"kind": "p", "ref": "p"},
        {"kind": "c", "depends_on": ["p"], "on_parent_failure": "hold"}]});
    let jobs = enqueue_many(&client, &call).await;
    let id = workflow_of(&client, &jobs[0]).await.expect("one");
    discard(&client, &[acquire_job(&client, jobs[0].job_id).await]).await;
    assert_eq!(state(&client, jobs[1].job_id).await, "blocked");
    let held = format!("select blocked || ' ' || held from workflow_status('{id}')");
    assert_eq!(value::<String>(&client, &held).await, "1 1");
    assert_eq!(status(&client, id).await, "running 1/2");
    db.finish().await;
}
