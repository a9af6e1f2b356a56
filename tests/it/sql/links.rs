//! Attaching to parents that exist already: linked inside COMMIT, never waiting, never stranded.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    Execution, acquire_job, cancel, complete, discard, drain, enqueue, fail, pid, refused, retry,
    run, state, value,
};
use crate::harness::{Db, blocked_on_lock};

async fn links(client: &Client) -> i64 {
    value(client, "select count(*) from links").await
}

/// What the link duty attached.
async fn link(client: &Client) -> i64 {
    value(client, "select done from maintain() where duty = 'link'").await
}

fn below(parent: Uuid) -> String {
    format!("'c', queue => 'children', depends_on => '{{{parent}}}'")
}

#[tokio::test]
async fn a_child_is_linked_as_its_transaction_commits() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let parent = enqueue(&client, "'p'").await;
    run(&client, "begin").await;
    let child = enqueue(&client, &below(parent)).await;
    assert_eq!(links(&client).await, 1);
    assert!(!value::<bool>(&client, "select bool_or(has_dependents) from jobs").await);
    // Until then it holds nothing that others want: the parent is acquired and released.
    let execution = acquire_job(&other, parent).await;
    assert_eq!(fail(&other, &[execution]).await, ["retrying"]);
    run(&client, "commit").await;
    assert_eq!((links(&client).await, state(&client, child).await), (0, "blocked".into()));
    assert_eq!(value::<i64>(&client, "select count(*) from dependencies").await, 1);
    db.finish().await;
}

/// What happens to the parent before, while and after a child is attached, and what becomes of it.
const FATES: &[(&str, &str)] = &[
    ("nothing", "blocked"),
    ("acquire", "blocked"),
    ("complete", "ready"),
    ("fail", "blocked"),
    ("discard", "cancelled"),
    ("cancel", "cancelled"),
];

async fn befall(client: &Client, parent: Uuid, fate: &str) -> Option<Execution> {
    match fate {
        "nothing" => return None,
        "cancel" => {
            cancel(client, &[parent]).await;
            return None;
        }
        _ => {}
    }
    let execution = acquire_job(client, parent).await;
    match fate {
        "complete" => complete(client, &[execution]).await,
        "fail" => fail(client, &[execution]).await,
        "discard" => discard(client, &[execution]).await,
        _ => return Some(execution),
    };
    None
}

#[tokio::test]
async fn a_child_is_attached_whatever_happens_to_its_parent_before_during_and_after() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    for (fate, expected) in FATES {
        // Before.
        let parent = enqueue(&client, "'p'").await;
        befall(&client, parent, fate).await;
        let child = enqueue(&client, &below(parent)).await;
        assert_eq!(state(&client, child).await, *expected, "{fate} before");
        // Between the enqueue and its commit, in another transaction and in this one.
        for by_another in [true, false] {
            let parent = enqueue(&client, "'p'").await;
            run(&client, "begin").await;
            let child = enqueue(&client, &below(parent)).await;
            befall(if by_another { &other } else { &client }, parent, fate).await;
            run(&client, "commit").await;
            let reached = state(&client, child).await;
            assert_eq!(reached, *expected, "{fate} during, by another: {by_another}");
        }
        // After.
        let parent = enqueue(&client, "'p'").await;
        let child = enqueue(&client, &below(parent)).await;
        befall(&client, parent, fate).await;
        assert_eq!(state(&client, child).await, *expected, "{fate} after");
        assert_eq!(links(&client).await, 0);
    }
    db.finish().await;
}

#[tokio::test]
async fn a_parent_pruned_before_the_commit_counts_as_completed() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let parent = enqueue(&client, "'p'").await;
    run(&client, "begin").await;
    let child = enqueue(&client, &below(parent)).await;
    drain(&other).await;
    // As prune does, a retention later.
    let prune = format!(
        "delete from executions where job_id = '{parent}'; delete from jobs where id = '{parent}'"
    );
    run(&other, &prune).await;
    run(&client, "commit").await;
    assert_eq!(state(&client, child).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn prune_keeps_a_parent_that_links_name() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
    enqueue(&client, &format!("'p', id => '{parent}'")).await;
    discard(&client, &[acquire_job(&client, parent).await]).await;
    run(&client, "update jobs set finished_at = finished_at - interval '30 days'").await;
    run(&client, "begin isolation level repeatable read").await;
    let child = enqueue(&client, &below(parent)).await;
    run(&client, "commit; select * from prune(1000)").await;
    assert_eq!(state(&client, parent).await, "discarded", "the link names it");
    assert_eq!(link(&client).await, 1);
    assert_eq!(state(&client, child).await, "cancelled");
    run(&client, "select * from prune(1000); select * from prune(1000)").await;
    assert_eq!(state(&client, parent).await, "gone");
    assert_eq!(value::<i64>(&client, "select count(*) from dependencies").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn an_open_producer_delays_neither_acquire_nor_completion() {
    let db = Db::new().await;
    let (producer, worker) = (db.connect().await, db.connect().await);
    run(&worker, "set lock_timeout = '10ms'").await;
    let parent = enqueue(&worker, "'p'").await;
    run(&producer, "begin").await;
    let child = enqueue(&producer, &below(parent)).await;
    let execution = acquire_job(&worker, parent).await;
    assert_eq!(complete(&worker, &[execution]).await, ["completed"]);
    run(&producer, "commit").await;
    assert_eq!(state(&producer, child).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn an_open_handler_delays_no_producer() {
    let db = Db::new().await;
    let (producer, handler) = (db.connect().await, db.connect().await);
    run(&producer, "set lock_timeout = '10ms'").await;
    for (end, expected) in [("commit", "ready"), ("rollback", "blocked")] {
        let parent = enqueue(&handler, "'p'").await;
        let execution = acquire_job(&handler, parent).await;
        run(&handler, "begin").await;
        complete(&handler, &[execution]).await;
        let child = enqueue(&producer, &below(parent)).await;
        assert_eq!(links(&producer).await, 1, "it could not be linked");
        assert_eq!(link(&producer).await, 0, "nor now");
        run(&handler, end).await;
        assert_eq!(state(&producer, child).await, "blocked", "until maintenance comes");
        assert_eq!(link(&producer).await, 1);
        assert_eq!(state(&producer, child).await, expected);
    }
    db.finish().await;
}

#[tokio::test]
async fn a_handler_that_holds_a_sibling_delays_no_producer() {
    let db = Db::new().await;
    let (producer, handler) = (db.connect().await, db.connect().await);
    let ended = enqueue(&handler, "'p'").await;
    let running = enqueue(&handler, "'q'").await;
    let sibling =
        format!("'s', on_parent_failure => 'hold', depends_on => '{{{ended},{running}}}'");
    let sibling = enqueue(&handler, &sibling).await;
    discard(&handler, &[acquire_job(&handler, ended).await]).await;
    let execution = acquire_job(&handler, running).await;
    run(&handler, "begin").await;
    complete(&handler, &[execution]).await;
    // The handler holds the sibling's counter; another child of the same ended parent is nothing to it.
    run(&producer, "set lock_timeout = '10ms'").await;
    for policy in ["cancel", "hold", "continue"] {
        let child = format!("{}, on_parent_failure => '{policy}'", below(ended));
        let child = enqueue(&producer, &child).await;
        let expected = match policy {
            "cancel" => "cancelled",
            "hold" => "blocked",
            _ => "ready",
        };
        assert_eq!(state(&producer, child).await, expected);
    }
    run(&handler, "commit").await;
    assert_eq!(state(&handler, sibling).await, "blocked", "it is held");
    db.finish().await;
}

/// Maintenance links a child whose own child is locked: neither waits for ever, nor fails.
#[tokio::test]
async fn a_doomed_child_whose_closure_is_held_is_left_for_the_next_pass() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    let ended = enqueue(&client, "'p'").await;
    cancel(&client, &[ended]).await;
    run(&client, "begin; set local rowlock.notify = off").await;
    let child = enqueue(&client, &below(ended)).await;
    let fine =
        enqueue(&client, &format!("{}, on_parent_failure => 'continue'", below(ended))).await;
    run(&client, "commit").await;
    let grandchild = enqueue(&client, &below(child)).await;
    assert_eq!(links(&client).await, 2, "the grandchild is linked, the children are not");
    run(&holder, &format!("begin; select from blocked where job_id = '{grandchild}' for update"))
        .await;
    assert_eq!(link(&client).await, 1);
    assert_eq!(state(&client, fine).await, "ready");
    assert_eq!(state(&client, child).await, "blocked");
    run(&holder, "rollback").await;
    assert_eq!(link(&client).await, 1);
    assert_eq!(state(&client, grandchild).await, "cancelled");
    db.finish().await;
}

#[tokio::test]
async fn links_that_cannot_be_attached_do_not_keep_others_waiting() {
    let db = Db::new().await;
    let (client, handler) = (db.connect().await, db.connect().await);
    let held = enqueue(&client, "'p'").await;
    let free = enqueue(&client, "'q'").await;
    let execution = acquire_job(&handler, held).await;
    run(&handler, "begin").await;
    complete(&handler, &[execution]).await;
    for _ in 0..3 {
        enqueue(&client, &below(held)).await;
    }
    run(&client, "begin; set local rowlock.notify = off").await;
    let child = enqueue(&client, &below(free)).await;
    run(&client, "commit").await;
    assert_eq!(links(&client).await, 4);
    // Two a pass: the one behind those that are stuck comes within a few passes.
    for _ in 0..4 {
        run(&client, "select * from maintain(2)").await;
    }
    assert_eq!(links(&client).await, 3);
    let linked = format!("select count(*) from dependencies where child = '{child}'");
    assert_eq!(value::<i64>(&client, &linked).await, 1);
    run(&handler, "commit").await;
    for _ in 0..4 {
        run(&client, "select * from maintain(2)").await;
    }
    assert_eq!(links(&client).await, 0);
    db.finish().await;
}

#[tokio::test]
async fn linking_at_once_holds_the_parents_to_the_end() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let parent = enqueue(&client, "'p'").await;
    run(&client, "begin").await;
    let first = enqueue(&client, &below(parent)).await;
    run(&client, "set constraints all immediate").await;
    assert_eq!(links(&client).await, 0);
    // Enqueued after: deferred again, by itself.
    let second = enqueue(&client, &below(parent)).await;
    assert_eq!(links(&client).await, 1);
    let execution = acquire_other(&other, parent).await;
    assert!(execution.is_none(), "documented: the parent is held");
    run(&client, "set constraints all immediate").await;
    let third = enqueue(&client, &below(parent)).await;
    run(&client, "commit").await;
    assert_eq!(links(&client).await, 0);
    complete(&client, &[acquire_job(&client, parent).await]).await;
    for child in [first, second, third] {
        assert_eq!(state(&client, child).await, "ready");
    }
    db.finish().await;
}

/// Tries to acquire without waiting.
async fn acquire_other(client: &Client, parent: Uuid) -> Option<Uuid> {
    run(client, "set lock_timeout = '50ms'").await;
    let sql = format!(
        "select job_id from acquire('{}', '{{default}}', 10) where job_id = '{parent}'",
        Uuid::new_v4()
    );
    let answer = client.query_opt(&sql, &[]).await;
    run(client, "set lock_timeout = 0").await;
    answer.ok().flatten().map(|row| row.get(0))
}

#[tokio::test]
async fn attaching_and_completing_in_one_transaction_counts_the_parent_once() {
    let db = Db::new().await;
    let client = db.connect().await;
    let unfinished = enqueue(&client, "'q'").await;
    for between in ["", "set constraints all immediate"] {
        let parent = enqueue(&client, "'p'").await;
        let execution = acquire_job(&client, parent).await;
        run(&client, "begin").await;
        let both = format!("'c', queue => 'children', depends_on => '{{{parent},{unfinished}}}'");
        let child = enqueue(&client, &both).await;
        run(&client, between).await;
        complete(&client, &[execution]).await;
        run(&client, "commit").await;
        let remaining = format!("select remaining from blocked where job_id = '{child}'");
        assert_eq!(value::<i32>(&client, &remaining).await, 1, "{between}");
    }
    assert_eq!(drain(&client).await, 1);
    let released = "select count(*) from ready where queue = 'children'";
    assert_eq!(value::<i64>(&client, released).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn many_producers_share_a_parent() {
    const PRODUCERS: usize = 12;
    const EACH: usize = 20;
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let producer = db.connect().await;
        producers.push(tokio::spawn(async move {
            for _ in 0..EACH {
                enqueue(&producer, &below(parent)).await;
            }
        }));
    }
    for producer in producers {
        producer.await.expect("nobody deadlocks");
    }
    let passes = [link(&client).await, link(&client).await];
    assert_eq!((passes[1], links(&client).await), (0, 0), "{passes:?}");
    assert_eq!(drain(&client).await, 1);
    let all = i64::try_from(PRODUCERS * EACH).expect("small");
    assert_eq!(value::<i64>(&client, "select count(*) from ready").await, all);
    db.finish().await;
}

#[tokio::test]
async fn a_transaction_is_prepared_without_notify() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    run(&client, "begin; set local rowlock.notify = off").await;
    let child = enqueue(&client, &below(parent)).await;
    if value::<String>(&client, "show max_prepared_transactions").await == "0" {
        // The deferred trigger has run by the time the server says that it may prepare none.
        let error = refused(&client, "55000", "prepare transaction 'rowlock'").await;
        assert_eq!(error.message(), "prepared transactions are disabled");
        assert_eq!(state(&client, child).await, "gone");
    } else {
        run(&client, "prepare transaction 'rowlock'").await;
        run(&client, "commit prepared 'rowlock'").await;
        assert_eq!(links(&client).await, 1);
        assert_eq!(link(&client).await, 1);
    }
    assert_eq!(retry(&client, &[parent]).await, ["unfinished"]);
    db.finish().await;
}

#[tokio::test]
async fn a_completion_that_waits_for_a_link_sees_its_edge() {
    let db = Db::new().await;
    let (producer, worker) = (db.connect().await, db.connect().await);
    let parent = enqueue(&producer, "'p'").await;
    let execution = acquire_job(&worker, parent).await;
    run(&producer, "begin").await;
    let child = enqueue(&producer, &below(parent)).await;
    run(&producer, "set constraints all immediate").await;
    let waiter = pid(&worker).await;
    let completing = tokio::spawn(async move { complete(&worker, &[execution]).await });
    blocked_on_lock(&producer, waiter).await;
    run(&producer, "commit").await;
    assert_eq!(completing.await.expect("joins"), ["completed"]);
    assert_eq!(state(&producer, child).await, "ready");
    db.finish().await;
}
