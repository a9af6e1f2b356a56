//! Fan-out and fan-in: children are released by the transaction that completes their last parent.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    Execution, acquire, acquire_job, column, complete, drain, enqueue, enqueue_many, finishing,
    pid, run, state, value,
};
use crate::harness::{Db, blocked_on_lock};

/// A parent, and what it releases.
async fn fan_out(client: &Client, children: usize) -> Uuid {
    let child = |_| json!({"kind": "child", "queue": "children", "depends_on": ["p"]});
    let parent = json!({"kind": "p", "ref": "p"});
    let call: Value = std::iter::once(parent).chain((0..children).map(child)).collect();
    enqueue_many(client, &call).await[0].job_id
}

async fn children_in(client: &Client, table: &str) -> i64 {
    value(client, &format!("select count(*) from {table} where queue = 'children'")).await
}

#[tokio::test]
async fn a_fan_out_is_released_by_the_completing_transaction() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    for children in [0, 1, 2, 49, 50, 51, 1000, 9999] {
        let parent = fan_out(&client, children).await;
        let count = i64::try_from(children).expect("a small number");
        assert_eq!(children_in(&client, "blocked").await, count);
        let execution = acquire_job(&client, parent).await;
        run(&client, "begin").await;
        assert_eq!(complete(&client, &[execution]).await, ["completed"]);
        assert_eq!(children_in(&client, "ready").await, count, "all of them, by this statement");
        assert_eq!(children_in(&other, "ready").await, 0, "and nobody sees one before the commit");
        run(&client, "commit").await;
        assert_eq!(children_in(&other, "ready").await, count);
        assert_eq!(children_in(&other, "blocked").await, 0);
        run(&client, "select cancel(array(select job_id from ready))").await;
    }
    db.finish().await;
}

#[tokio::test]
async fn a_rolled_back_completion_releases_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = fan_out(&client, 50).await;
    let execution = acquire_job(&client, parent).await;
    run(&client, "begin").await;
    complete(&client, std::slice::from_ref(&execution)).await;
    run(&client, "rollback").await;
    assert_eq!(
        (children_in(&client, "ready").await, children_in(&client, "blocked").await),
        (0, 50)
    );
    assert_eq!(complete(&client, &[execution]).await, ["completed"]);
    assert_eq!(children_in(&client, "ready").await, 50);
    db.finish().await;
}

#[tokio::test]
async fn a_released_child_waits_for_its_time() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    let later = format!("'c', run_at => now() + interval '1 hour', depends_on => '{{{parent}}}'");
    let child = enqueue(&client, &later).await;
    assert_eq!(state(&client, child).await, "blocked");
    drain(&client).await;
    assert_eq!(state(&client, child).await, "scheduled");
    db.finish().await;
}

#[tokio::test]
async fn a_chain_is_walked_link_by_link() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = |n: usize| match n {
        0 => json!({"kind": "a", "ref": "0"}),
        _ => json!({"kind": "a", "ref": n.to_string(), "depends_on": [(n - 1).to_string()]}),
    };
    enqueue_many(&client, &(0..10).map(job).collect()).await;
    let worker = Uuid::new_v4();
    for _ in 0..10 {
        let executions = acquire(&client, worker, 100).await;
        assert_eq!(executions.len(), 1);
        complete(&client, &executions).await;
    }
    assert!(acquire(&client, worker, 100).await.is_empty());
    db.finish().await;
}

/// Two parents of one child, running.
async fn two_parents(client: &Client) -> (Vec<Execution>, Uuid) {
    let call = json!([{"kind": "p", "ref": "1"}, {"kind": "p", "ref": "2"},
        {"kind": "c", "queue": "children", "depends_on": ["1", "2"]}]);
    let answer = enqueue_many(client, &call).await;
    let mut executions = acquire(client, Uuid::new_v4(), 2).await;
    executions.sort_by_key(|execution| execution.job_id);
    (executions, answer[2].job_id)
}

#[tokio::test]
async fn the_later_of_two_last_parents_releases_the_child() {
    let db = Db::new().await;
    let (first, second) = (db.connect().await, db.connect().await);
    for order in [[0, 1], [1, 0]] {
        for end in ["commit", "rollback"] {
            let (executions, child) = two_parents(&first).await;
            let [one, two] = order.map(|n| executions[n].clone());
            run(&first, "begin").await;
            complete(&first, std::slice::from_ref(&one)).await;
            let call = finishing("complete", &[two], "");
            let (waiter, client) = (pid(&second).await, db.connect().await);
            // The counter of the child is what they share: the second waits for the first's end.
            let waiting = run(&second, &call);
            let ending = async {
                blocked_on_lock(&client, waiter).await;
                run(&first, end).await;
            };
            tokio::join!(waiting, ending);
            if end == "rollback" {
                assert_eq!(state(&first, child).await, "blocked");
                complete(&first, &[one]).await;
            }
            assert_eq!(state(&first, child).await, "ready");
            run(&first, "select cancel(array(select job_id from ready))").await;
        }
    }
    db.finish().await;
}

#[tokio::test]
async fn a_parent_that_completes_while_the_other_is_discarded() {
    let db = Db::new().await;
    let (first, second) = (db.connect().await, db.connect().await);
    let observer = db.connect().await;
    for (policy, expected) in [("continue", "ready"), ("cancel", "cancelled"), ("hold", "blocked")]
    {
        for discard_first in [true, false] {
            let call = json!([{"kind": "p", "ref": "1"}, {"kind": "p", "ref": "2"},
                {"kind": "c", "queue": "children", "depends_on": ["1", "2"],
                    "on_parent_failure": policy}]);
            let child = enqueue_many(&first, &call).await[2].job_id;
            let executions = acquire(&first, Uuid::new_v4(), 2).await;
            let complete = finishing("complete", &executions[..1], "");
            let discard = finishing("fail", &executions[1..], ", discard => '{true}'");
            let (one, two) = if discard_first { (discard, complete) } else { (complete, discard) };
            run(&first, &format!("begin; {one}")).await;
            // A child that was cancelled is nobody's counter any more, but nobody knows before the end.
            let waiter = pid(&second).await;
            let ending = async {
                blocked_on_lock(&observer, waiter).await;
                run(&first, "commit").await;
            };
            tokio::join!(run(&second, &two), ending);
            let reached = state(&first, child).await;
            assert_eq!(reached, expected, "{policy}, discarded first: {discard_first}");
            run(&first, &format!("select cancel('{{{child}}}')")).await;
        }
    }
    db.finish().await;
}

#[tokio::test]
async fn no_child_is_stranded_in_1000_rounds() {
    const ROUNDS: usize = 1000;
    const PARENTS: usize = 3;
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = (0..ROUNDS).flat_map(|round| {
        let parent = move |n| json!({"kind": "p", "ref": format!("{round}.{n}")});
        let refs: Vec<String> = (0..PARENTS).map(|n| format!("{round}.{n}")).collect();
        (0..PARENTS)
            .map(parent)
            .chain([json!({"kind": "c", "queue": "children", "depends_on": refs})])
    });
    enqueue_many(&client, &jobs.collect()).await;
    let mut executions = Vec::new();
    while executions.len() < ROUNDS * PARENTS {
        executions.extend(acquire(&client, Uuid::nil(), 1000).await);
    }
    executions.sort_by_key(|execution| execution.job_id);
    // Each connection has one parent of every child, and comes to it when the others do.
    let together = Arc::new(Barrier::new(PARENTS));
    let mut finishers = Vec::new();
    for n in 0..PARENTS {
        let (finisher, together) = (db.connect().await, Arc::clone(&together));
        let mine: Vec<Execution> = executions.iter().skip(n).step_by(PARENTS).cloned().collect();
        finishers.push(tokio::spawn(async move {
            let mut verdicts = Vec::new();
            for execution in mine {
                together.wait().await;
                verdicts.extend(complete(&finisher, &[execution]).await);
            }
            verdicts
        }));
    }
    for finisher in finishers {
        let verdicts = finisher.await.expect("no completion is refused");
        assert_eq!(verdicts, vec!["completed"; ROUNDS]);
    }
    let stranded: Vec<Uuid> = column(&client, "select job_id from blocked").await;
    assert!(stranded.is_empty(), "{stranded:?}");
    assert_eq!(children_in(&client, "ready").await, i64::try_from(ROUNDS).expect("small"));
    db.finish().await;
}
