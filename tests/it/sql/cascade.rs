//! What a parent that does not complete does to its children: cancel, continue, hold.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    Enqueued, acquire, acquire_job, acquire_with, cancel, column, complete, discard, drain,
    enqueue, enqueue_many, fail, finish, finishing, pid, refused, retry, run, state, states, value,
};
use crate::harness::{Db, blocked_on_lock, wait_until};

fn ids(jobs: &[Enqueued]) -> Vec<Uuid> {
    jobs.iter().map(|job| job.job_id).collect()
}

async fn cause(client: &Client, job: Uuid) -> Option<Uuid> {
    value(client, &format!("select cause from jobs where id = '{job}'")).await
}

/// A chain of kind `a`; every child with this policy.
fn chain(length: usize, policy: &str) -> Value {
    let job = |n: usize| match n {
        0 => json!({"kind": "a", "ref": "0"}),
        _ => json!({"kind": "a", "ref": n.to_string(), "depends_on": [(n - 1).to_string()],
            "on_parent_failure": policy}),
    };
    (0..length).map(job).collect()
}

#[tokio::test]
async fn cancel_reaches_every_depth_and_names_the_first_cause() {
    let db = Db::new().await;
    let client = db.connect().await;
    for how in ["discard", "cancel", "stop"] {
        let jobs = ids(&enqueue_many(&client, &chain(5, "cancel")).await);
        if how == "cancel" {
            assert_eq!(cancel(&client, &jobs[..1]).await, ["cancelled"]);
        } else {
            let execution = acquire_job(&client, jobs[0]).await;
            if how == "stop" {
                cancel(&client, &jobs[..1]).await;
                assert_eq!(state(&client, jobs[1]).await, "blocked", "until it has stopped");
            }
            discard(&client, &[execution]).await;
        }
        let top = if how == "discard" { "discarded" } else { "cancelled" };
        assert_eq!(state(&client, jobs[0]).await, top);
        assert_eq!(cause(&client, jobs[0]).await, None);
        assert_eq!(states(&client, &jobs[1..]).await, vec!["cancelled"; 4]);
        for job in &jobs[1..] {
            assert_eq!(cause(&client, *job).await, Some(jobs[0]));
        }
        let sql = format!("select reason from jobs where id = '{}'", jobs[4]);
        assert_eq!(value::<String>(&client, &sql).await, format!("a parent was {top}"));
    }
    db.finish().await;
}

#[tokio::test]
async fn a_failure_that_is_retried_cascades_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = ids(&enqueue_many(&client, &chain(3, "cancel")).await);
    let execution = acquire_job(&client, jobs[0]).await;
    assert_eq!(fail(&client, &[execution]).await, ["retrying"]);
    assert_eq!(states(&client, &jobs).await, ["scheduled", "blocked", "blocked"]);
    db.finish().await;
}

#[tokio::test]
async fn continue_counts_the_parent_off_and_stops_there() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "ref": "c", "depends_on": ["p", "q"], "on_parent_failure": "continue"},
        {"kind": "d", "depends_on": ["c"]},
    ]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    assert_eq!(states(&client, &jobs[2..]).await, ["blocked", "blocked"]);
    cancel(&client, &jobs[1..2]).await;
    assert_eq!(states(&client, &jobs[2..]).await, ["ready", "blocked"]);
    assert_eq!(drain(&client).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn hold_keeps_the_child_until_the_parent_is_retried() {
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = ids(&enqueue_many(&client, &chain(3, "hold")).await);
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    assert_eq!(states(&client, &jobs).await, ["discarded", "blocked", "blocked"]);
    assert_eq!(cause(&client, jobs[1]).await, Some(jobs[0]));
    assert_eq!(cause(&client, jobs[2]).await, None, "its own parent has not ended");
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    assert_eq!(cause(&client, jobs[1]).await, None);
    assert_eq!(states(&client, &jobs).await, ["ready", "blocked", "blocked"]);
    assert_eq!(drain(&client).await, 3);
    db.finish().await;
}

#[tokio::test]
async fn hold_keeps_the_child_until_it_is_released_itself() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "ref": "c", "depends_on": ["p", "q"], "on_parent_failure": "hold"},
    ]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    cancel(&client, &jobs[..1]).await;
    assert_eq!(retry(&client, &jobs[2..]).await, ["released"]);
    assert_eq!(state(&client, jobs[2]).await, "blocked", "it waits for the other parent");
    assert_eq!(cause(&client, jobs[2]).await, None);
    assert_eq!(retry(&client, &jobs[2..]).await, ["unfinished"]);
    // The parent counts again once it is retried.
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    complete(&client, &[acquire_job(&client, jobs[1]).await]).await;
    assert_eq!(state(&client, jobs[2]).await, "blocked");
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    assert_eq!(state(&client, jobs[2]).await, "ready", "who was released is held no more");
    db.finish().await;
}

#[tokio::test]
async fn a_held_child_that_is_cancelled_is_the_cause_of_its_own() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "p", "ref": "p"},
        {"kind": "c", "ref": "c", "depends_on": ["p"], "on_parent_failure": "hold"},
        {"kind": "d", "depends_on": ["c"]},
    ]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    cancel(&client, &jobs[..1]).await;
    assert_eq!(cancel(&client, &jobs[1..2]).await, ["cancelled"]);
    assert_eq!(states(&client, &jobs).await, vec!["cancelled"; 3]);
    assert_eq!(cause(&client, jobs[1]).await, None);
    assert_eq!(cause(&client, jobs[2]).await, Some(jobs[1]));
    db.finish().await;
}

#[tokio::test]
async fn a_retried_parent_is_counted_again_by_who_continued() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "depends_on": ["p", "q"], "on_parent_failure": "continue"},
        {"kind": "e", "depends_on": ["p"], "on_parent_failure": "continue"},
    ]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    assert_eq!(states(&client, &jobs[2..]).await, ["blocked", "ready"]);
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    assert_eq!(state(&client, jobs[3]).await, "ready", "it went on already");
    complete(&client, &[acquire_job(&client, jobs[1]).await]).await;
    assert_eq!(state(&client, jobs[2]).await, "blocked");
    assert_eq!(drain(&client).await, 3);
    db.finish().await;
}

#[tokio::test]
async fn a_retried_child_waits_for_its_unfinished_parents() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "depends_on": ["p", "q"]}]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    cancel(&client, &jobs[..1]).await;
    assert_eq!(retry(&client, &jobs[2..]).await, ["retried"]);
    assert_eq!(state(&client, jobs[2]).await, "blocked", "for q, and for p no more");
    assert_eq!(retry(&client, &jobs[..1]).await, ["retried"]);
    complete(&client, &[acquire_job(&client, jobs[1]).await]).await;
    assert_eq!(state(&client, jobs[2]).await, "blocked", "for p again");
    assert_eq!(drain(&client).await, 2);
    // The whole of a cancelled graph at once.
    let jobs = ids(&enqueue_many(&client, &chain(4, "cancel")).await);
    cancel(&client, &jobs[..1]).await;
    assert_eq!(retry(&client, &jobs).await, vec!["retried"; 4]);
    assert_eq!(states(&client, &jobs).await, ["ready", "blocked", "blocked", "blocked"]);
    assert_eq!(drain(&client).await, 4);
    db.finish().await;
}

#[tokio::test]
async fn a_diamond_is_cancelled_once_and_its_key_is_free() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b", "depends_on": ["a"]},
        {"kind": "c", "ref": "c", "depends_on": ["a"], "on_parent_failure": "continue"},
        {"kind": "d", "ref": "d", "depends_on": ["b", "c"], "unique_key": "k"},
        {"kind": "e", "depends_on": ["d"], "on_parent_failure": "hold"},
    ]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    cancel(&client, &jobs[..1]).await;
    let expected = ["cancelled", "cancelled", "ready", "cancelled", "blocked"];
    assert_eq!(states(&client, &jobs).await, expected);
    assert_eq!(cause(&client, jobs[3]).await, Some(jobs[0]));
    assert_eq!(cause(&client, jobs[4]).await, Some(jobs[0]));
    assert_eq!(value::<i64>(&client, "select count(*) from unique_keys").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_batch_applies_both_ends_of_its_parents() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"}, {"kind": "r", "ref": "r"},
        {"kind": "c", "depends_on": ["p", "q"], "on_parent_failure": "continue"},
        {"kind": "d", "depends_on": ["p", "q"]},
        {"kind": "e", "depends_on": ["p", "r"]},
    ]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    let worker = Uuid::new_v4();
    let executions = acquire(&client, worker, 3).await;
    cancel(&client, &jobs[1..2]).await;
    let verdicts = complete(&client, &executions).await;
    assert_eq!(verdicts.iter().filter(|verdict| *verdict == "cancelled").count(), 1);
    assert_eq!(states(&client, &jobs[3..]).await, ["ready", "cancelled", "ready"]);
    db.finish().await;
}

#[tokio::test]
async fn the_closure_of_a_long_chain_and_of_a_tree_is_cancelled() {
    let db = Db::new().await;
    let client = db.connect().await;
    let jobs = ids(&enqueue_many(&client, &chain(2000, "cancel")).await);
    cancel(&client, &jobs[..1]).await;
    let cancelled = "select count(*) from jobs where state = 'cancelled'";
    assert_eq!(value::<i64>(&client, cancelled).await, 2000);
    let node = |n: usize| match n {
        1 => json!({"kind": "a", "ref": "1"}),
        _ => json!({"kind": "a", "ref": n.to_string(), "depends_on": [(n / 2).to_string()]}),
    };
    let jobs = ids(&enqueue_many(&client, &(1..=5000).map(node).collect()).await);
    discard(&client, &[acquire_job(&client, jobs[0]).await]).await;
    assert_eq!(value::<i64>(&client, cancelled).await, 2000 + 4999);
    let causes = format!("select count(*) from jobs where cause = '{}'", jobs[0]);
    assert_eq!(value::<i64>(&client, &causes).await, 4999);
    db.finish().await;
}

/// The closure of `p` is read while `c` is locked; `d` is attached to `c` before it is written.
#[tokio::test]
async fn a_link_committed_between_the_read_and_the_write_is_seen() {
    let db = Db::new().await;
    let (holder, ender, producer) = (db.connect().await, db.connect().await, db.connect().await);
    for policy in ["cancel", "hold", "continue"] {
        let call = json!([{"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
            {"kind": "c", "depends_on": ["p", "q"]}]);
        let jobs = ids(&enqueue_many(&holder, &call).await);
        let execution = acquire_job(&holder, jobs[0]).await;
        // Only the counter is held, as by q's completion: the job row of c is free to be linked to.
        run(
            &holder,
            &format!("begin; select from blocked where job_id = '{}' for update", jobs[2]),
        )
        .await;
        let waiter = pid(&ender).await;
        let call = finishing("fail", &[execution], ", discard => '{true}'");
        let ending = run(&ender, &call);
        let attaching = async {
            blocked_on_lock(&producer, waiter).await;
            let arguments =
                format!("'d', on_parent_failure => '{policy}', depends_on => '{{{}}}'", jobs[2]);
            let child = enqueue(&producer, &arguments).await;
            assert_eq!(value::<i64>(&producer, "select count(*) from links").await, 0, "linked");
            run(&holder, "commit").await;
            child
        };
        let ((), child) = tokio::join!(ending, attaching);
        assert_eq!(state(&producer, jobs[2]).await, "cancelled");
        let expected = match policy {
            "cancel" => "cancelled",
            "hold" => "blocked",
            _ => "ready",
        };
        assert_eq!(state(&producer, child).await, expected, "{policy}");
        if policy == "hold" {
            assert_eq!(cause(&producer, child).await, Some(jobs[0]));
        }
        run(&producer, "select cancel(array(select job_id from ready))").await;
    }
    db.finish().await;
}

#[tokio::test]
async fn a_cancelled_child_gives_its_key_back_and_keeps_its_links() {
    let db = Db::new().await;
    let client = db.connect().await;
    let outside = enqueue(&client, "'o'").await;
    run(&client, "begin; set local rowlock.notify = off").await;
    let arguments = format!("'c', unique_key => 'k', depends_on => '{{{outside}}}'");
    let child = enqueue(&client, &arguments).await;
    run(&client, "commit").await;
    assert_eq!(value::<i64>(&client, "select count(*) from links").await, 1);
    assert_eq!(cancel(&client, &[child]).await, ["cancelled"]);
    assert_eq!(value::<i64>(&client, "select count(*) from links").await, 1);
    assert_eq!(value::<i64>(&client, "select count(*) from unique_keys").await, 0);
    assert_eq!(retry(&client, &[child]).await, ["retried"]);
    assert_eq!(state(&client, child).await, "blocked");
    let execution = acquire_job(&client, outside).await;
    assert_eq!(finish(&client, "complete", &[execution], "").await, ["completed"]);
    db.finish().await;
}

#[tokio::test]
async fn a_child_held_by_two_parents_names_the_one_that_still_holds_it() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "depends_on": ["p", "q"], "on_parent_failure": "hold"}]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    cancel(&client, &jobs[..1]).await;
    cancel(&client, &jobs[1..2]).await;
    assert_eq!(cause(&client, jobs[2]).await, Some(jobs[0]), "the first cause");
    retry(&client, &jobs[..1]).await;
    assert_eq!(cause(&client, jobs[2]).await, Some(jobs[1]));
    retry(&client, &jobs[1..2]).await;
    assert_eq!(cause(&client, jobs[2]).await, None);
    assert_eq!(drain(&client).await, 3);
    db.finish().await;
}

#[tokio::test]
async fn an_operator_does_not_wait_for_a_closure_that_is_held() {
    let db = Db::new().await;
    let (client, handler) = (db.connect().await, db.connect().await);
    let call = json!([{"kind": "p", "ref": "p"}, {"kind": "q", "ref": "q"},
        {"kind": "c", "ref": "c", "depends_on": ["p", "q"]}, {"kind": "d", "depends_on": ["c"]}]);
    let jobs = ids(&enqueue_many(&client, &call).await);
    let execution = acquire_job(&handler, jobs[1]).await;
    run(&handler, "begin").await;
    complete(&handler, &[execution]).await;
    refused(&client, "RL429", &format!("select cancel('{{{}}}')", jobs[0])).await;
    assert_eq!(states(&client, &jobs).await, ["ready", "running", "blocked", "blocked"]);
    run(&handler, "commit").await;
    assert_eq!(cancel(&client, &jobs[..1]).await, ["cancelled"]);
    assert_eq!(states(&client, &jobs[2..]).await, ["cancelled", "cancelled"]);
    db.finish().await;
}

/// Each of two batches completes a parent and stops another; their children are each other's.
#[tokio::test]
async fn batches_that_complete_and_stop_lock_their_children_in_one_order() {
    let db = Db::new().await;
    let (one, two, holder) = (db.connect().await, db.connect().await, db.connect().await);
    let keep = |parents: &[&str]| json!({"kind": "c", "queue": "children", "depends_on": parents, "on_parent_failure": "continue"});
    // The children's ids are in this order; each waits for `last` as well.
    let call = json!([
        {"kind": "last", "ref": "last", "queue": "later"},
        keep(&["stop one", "last"]),
        keep(&["stop one", "done two", "last"]),
        keep(&["done one", "stop two", "last"]),
        {"kind": "one", "ref": "done one"}, {"kind": "one", "ref": "stop one"},
        {"kind": "two", "ref": "done two"}, {"kind": "two", "ref": "stop two"},
    ]);
    let jobs = ids(&enqueue_many(&one, &call).await);
    let first = acquire_with(&one, Uuid::new_v4(), "'{default}', 2, kinds => '{one}'").await;
    let second = acquire_with(&two, Uuid::new_v4(), "'{default}', 2, kinds => '{two}'").await;
    cancel(&one, &[jobs[5], jobs[7]]).await;
    let held = format!("begin; select from blocked where job_id = '{}' for update", jobs[1]);
    run(&holder, &held).await;
    let (pid_one, pid_two) = (pid(&one).await, pid(&two).await);
    let observer = db.connect().await;
    let ending = async {
        blocked_on_lock(&observer, pid_one).await;
        let second = tokio::spawn(async move { complete(&two, &second).await });
        wait_until("the second ends or waits", Duration::from_secs(20), async || {
            let sql = format!(
                "select not exists (select from pg_stat_activity
                    where pid = {pid_two} and pg_blocking_pids(pid) = '{{}}')"
            );
            value(&observer, &sql).await
        })
        .await;
        run(&holder, "commit").await;
        second.await.expect("no deadlock")
    };
    let (first, second) = tokio::join!(complete(&one, &first), ending);
    assert_eq!(
        (&first[..], &second[..]),
        (
            &["completed", "cancelled"].map(String::from)[..],
            &["completed", "cancelled"].map(String::from)[..]
        )
    );
    let remaining: Vec<i32> = column(&one, "select remaining from blocked").await;
    assert_eq!(remaining, [1, 1, 1], "each still waits for the last");
    db.finish().await;
}
