//! Graphs and transactions that meet at the worst moment: whoever waits, dies or comes late, each
//! child ends as it would have one after the other.

use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    Execution, acquire, acquire_job, cancel, complete, drain, enqueue, fail, finishing, graph, pid,
    refused, retry, run, state, states, value,
};
use crate::harness::{Db, blocked_on_lock};

async fn links(client: &Client) -> i64 {
    value(client, "select count(*) from links").await
}

/// What the link duty attached.
async fn link(client: &Client) -> i64 {
    value(client, "select done from maintain() where duty = 'link'").await
}

/// Parents that are not committed yet cannot be named, so nobody closes a cycle from two sides.
#[tokio::test]
async fn two_transactions_cannot_close_a_cycle() {
    let db = Db::new().await;
    let (one, two) = (db.connect().await, db.connect().await);
    let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
    let below = |id: Uuid, parent: Uuid| {
        format!("select enqueue('k', id => '{id}', depends_on => '{{{parent}}}')")
    };
    for client in [&one, &two] {
        run(client, "begin").await;
    }
    enqueue(&one, &format!("'k', id => '{a}'")).await;
    let error = refused(&two, "RL422", &below(b, a)).await;
    assert!(error.detail().is_some_and(|detail| detail.contains(&a.to_string())), "{error:?}");
    run(&two, "rollback").await;
    run(&one, "commit").await;
    // What is committed has the parents that it came with.
    run(&two, &below(b, a)).await;
    refused(&one, "RL409", &below(a, b)).await;
    assert_eq!(states(&one, &[a, b]).await, ["ready", "blocked"]);
    assert_eq!(drain(&one).await, 2);
    db.finish().await;
}

/// Rows at which the transaction that ends a parent can be made to wait: its own, the child's
/// counter, the child itself, and the child's key.
const PAUSES: [&str; 4] = [
    "from jobs where kind = 'p' for update",
    "from blocked for update",
    "from jobs where kind = 'c' for update",
    "from unique_keys for update",
];

/// Ends the parent while somebody holds these rows, and cuts its session off as it waits.
async fn cut_off(db: &Db, holder: &Client, pause: &str, ending: &str) {
    run(holder, &format!("begin; select {pause}")).await;
    let victim = db.connect().await;
    let backend = pid(&victim).await;
    let ending = ending.to_owned();
    let ended = tokio::spawn(async move { victim.query(&ending, &[]).await.is_ok() });
    blocked_on_lock(holder, backend).await;
    assert!(value::<bool>(holder, &format!("select pg_terminate_backend({backend}, 30000)")).await);
    assert!(!ended.await.expect("joins"), "it was cut off at {pause}");
    run(holder, "rollback").await;
}

#[tokio::test]
async fn an_end_cut_off_anywhere_in_its_cascade_has_done_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([{"kind": "p", "ref": "p"},
        {"kind": "c", "depends_on": ["p"], "unique_key": "key"}]);
    for (verb, more, verdict, fate) in [
        ("complete", "", "completed", "ready"),
        ("fail", ", discard => '{true}'", "discarded", "cancelled"),
    ] {
        for pause in PAUSES {
            // A child that is released keeps its key.
            if verb == "complete" && pause.contains("unique_keys") {
                continue;
            }
            let jobs = graph(&client, &call).await;
            let ending = finishing(verb, &[acquire_job(&client, jobs[0]).await], more);
            cut_off(&db, &client, pause, &ending).await;
            assert_eq!(states(&client, &jobs).await, ["running", "blocked"], "{verb} at {pause}");
            assert_eq!(value::<String>(&client, &ending).await, verdict);
            assert_eq!(state(&client, jobs[1]).await, fate, "{verb} at {pause}");
            // As if it had never been, for the next round.
            drain(&client).await;
            run(&client, "delete from dependencies; delete from executions; delete from grants")
                .await;
            run(&client, "delete from jobs").await;
        }
    }
    db.finish().await;
}

/// Each holds what the other's COMMIT needs; neither waits, and nobody's child is stranded.
#[tokio::test]
async fn producers_that_hold_each_others_parents_both_commit() {
    let db = Db::new().await;
    let (one, two) = (db.connect().await, db.connect().await);
    let parents = [enqueue(&one, "'p'").await, enqueue(&one, "'p'").await];
    let child = |n: usize| format!("'c', queue => 'children', depends_on => '{{{}}}'", parents[n]);
    for (client, n) in [(&one, 0), (&two, 1)] {
        run(client, "set lock_timeout = '10ms'; begin").await;
        enqueue(client, &child(n)).await;
        run(client, "set constraints all immediate").await;
        // After, so that it is attached by the commit.
        enqueue(client, &child(1 - n)).await;
    }
    run(&one, "commit").await;
    assert_eq!(links(&one).await, 1, "the second holds this parent");
    run(&two, "commit").await;
    assert_eq!(links(&two).await, 1, "the first has let go of the other");
    assert_eq!((link(&one).await, links(&one).await), (1, 0));
    assert_eq!(drain(&one).await, 2);
    assert_eq!(value::<i64>(&one, "select count(*) from ready where queue = 'children'").await, 4);
    db.finish().await;
}

/// A key that an open transaction may yet take: a retry neither waits for it nor decides without it,
/// whether the job itself has the key or one that fell with it.
#[tokio::test]
async fn a_retry_does_not_wait_for_a_key_that_is_being_taken() {
    let db = Db::new().await;
    let (client, producer) = (db.connect().await, db.connect().await);
    let call = json!([{"kind": "a", "ref": "a"},
        {"kind": "b", "depends_on": ["a"], "unique_key": "key"}]);
    for named in [0, 1] {
        for end in ["rollback", "commit"] {
            let jobs = graph(&client, &call).await;
            cancel(&client, &jobs[..1]).await;
            assert_eq!(states(&client, &jobs).await, ["cancelled", "cancelled"]);
            run(&producer, "begin").await;
            let taker = enqueue(&producer, "'taker', unique_key => 'key'").await;
            let call = format!("select verdict from retry('{{{}}}')", jobs[named]);
            refused(&client, "RL429", &call).await;
            assert_eq!(states(&client, &jobs).await, ["cancelled", "cancelled"]);
            run(&producer, end).await;
            let (verdict, expected) = match (named, end) {
                (0, "rollback") => ("retried", ["ready", "blocked"]),
                (0, _) => ("retried", ["ready", "cancelled"]),
                (_, "rollback") => ("retried", ["cancelled", "ready"]),
                _ => ("conflict", ["cancelled", "cancelled"]),
            };
            assert_eq!(value::<String>(&client, &call).await, verdict);
            assert_eq!(states(&client, &jobs).await, expected, "{named}, {end}");
            cancel(&client, &[jobs[0], jobs[1], taker]).await;
        }
    }
    db.finish().await;
}

/// An operator's transaction holds the parent: the producer's COMMIT leaves it to maintenance.
#[tokio::test]
async fn an_open_operator_delays_no_producer() {
    let db = Db::new().await;
    let (producer, operator) = (db.connect().await, db.connect().await);
    run(&producer, "set lock_timeout = '10ms'").await;
    for (verb, end, fate) in [
        ("cancel", "commit", "cancelled"),
        ("cancel", "rollback", "blocked"),
        ("retry", "commit", "blocked"),
        ("retry", "rollback", "cancelled"),
    ] {
        let parent = enqueue(&operator, "'p'").await;
        if verb == "retry" {
            cancel(&operator, &[parent]).await;
        }
        run(&operator, &format!("begin; select {verb}('{{{parent}}}')")).await;
        let child = enqueue(&producer, &format!("'c', depends_on => '{{{parent}}}'")).await;
        assert_eq!((links(&producer).await, link(&producer).await), (1, 0), "{verb}, {end}");
        run(&operator, end).await;
        assert_eq!(link(&producer).await, 1, "{verb}, {end}");
        assert_eq!(state(&producer, child).await, fate, "{verb}, {end}");
    }
    drain(&producer).await;
    db.finish().await;
}

/// Numbers of transactions come again after a restore; a ticket of then is in the way of one now.
#[tokio::test]
async fn a_ticket_from_before_a_restore_strands_no_child() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    run(&client, "begin; set local session_replication_role = replica").await;
    run(&client, "insert into tickets (xid) values (pg_current_xact_id())").await;
    run(&client, "set local session_replication_role = origin").await;
    let child = enqueue(&client, &format!("'c', depends_on => '{{{parent}}}'")).await;
    run(&client, "commit").await;
    assert_eq!(links(&client).await, 1, "no ticket, no trigger");
    assert_eq!((link(&client).await, links(&client).await), (1, 0));
    complete(&client, &[acquire_job(&client, parent).await]).await;
    assert_eq!(state(&client, child).await, "ready");
    run(&client, "delete from tickets").await;
    db.finish().await;
}

/// Attached all the same, by the commit or by maintenance: a retry finds its parents.
#[tokio::test]
async fn a_child_that_ends_before_it_is_attached_stays_ended_until_its_retry() {
    let db = Db::new().await;
    let client = db.connect().await;
    for notify in ["on", "off"] {
        let parent = enqueue(&client, "'p'").await;
        run(&client, &format!("begin; set local rowlock.notify = '{notify}'")).await;
        let child = format!("'c', queue => 'children', depends_on => '{{{parent}}}'");
        let child = enqueue(&client, &child).await;
        assert_eq!(cancel(&client, &[child]).await, ["cancelled"]);
        run(&client, "commit").await;
        link(&client).await;
        assert_eq!((links(&client).await, state(&client, child).await), (0, "cancelled".into()));
        let execution = acquire_job(&client, parent).await;
        assert_eq!(retry(&client, &[child]).await, ["retried"]);
        assert_eq!(state(&client, child).await, "blocked", "{notify}");
        assert_eq!(complete(&client, &[execution]).await, ["completed"]);
        assert_eq!(state(&client, child).await, "ready", "{notify}");
    }
    db.finish().await;
}

/// An edge is written for a parent that had ended before, too: its retry counts for the child.
#[tokio::test]
async fn the_retry_of_a_parent_that_had_ended_before_finds_the_child() {
    let db = Db::new().await;
    let client = db.connect().await;
    for (policy, before) in [("cancel", "cancelled"), ("continue", "blocked"), ("hold", "blocked")]
    {
        let ended = enqueue(&client, "'p', max_attempts => 1").await;
        assert_eq!(fail(&client, &[acquire_job(&client, ended).await]).await, ["discarded"]);
        let other = enqueue(&client, "'q'").await;
        let child = format!(
            "'c', queue => 'children', on_parent_failure => '{policy}',
             depends_on => '{{{ended},{other}}}'"
        );
        let child = enqueue(&client, &child).await;
        assert_eq!(state(&client, child).await, before, "{policy}");
        assert_eq!(retry(&client, &[ended]).await, ["retried"]);
        let waits = format!("select remaining from blocked where job_id = '{child}'");
        assert_eq!(value::<i32>(&client, &waits).await, 2, "{policy}");
        complete(&client, &[acquire_job(&client, other).await]).await;
        assert_eq!(state(&client, child).await, "blocked", "{policy}");
        complete(&client, &[acquire_job(&client, ended).await]).await;
        assert_eq!(state(&client, child).await, "ready", "{policy}");
    }
    db.finish().await;
}

/// Two sessions that begin while somebody holds the child in the middle, and go on together. What
/// each has locked by then, in whatever order, the other meets.
async fn collide(holder: &Client, children: &[Uuid], ends: [(&Client, String); 2]) -> [String; 2] {
    let mut sorted = children.to_vec();
    sorted.sort_unstable();
    let middle = sorted[sorted.len() / 2];
    run(holder, &format!("begin; select from blocked where job_id = '{middle}' for update")).await;
    let [(one, first), (two, second)] = ends;
    let backends = [pid(one).await, pid(two).await];
    let release = async {
        for backend in backends {
            blocked_on_lock(holder, backend).await;
        }
        run(holder, "rollback").await;
    };
    let (first, second, ()) =
        tokio::join!(value::<String>(one, &first), value::<String>(two, &second), release);
    [first, second]
}

/// Two roots whose closures hold one another's children a level further down: locked level by level,
/// or in no order, each would have what the other wants.
#[tokio::test]
async fn roots_whose_closures_cross_end_at_once() {
    let db = Db::new().await;
    let (one, two, holder) = (db.connect().await, db.connect().await, db.connect().await);
    let mut call = vec![
        json!({"kind": "root", "ref": "r1"}),
        json!({"kind": "root", "ref": "r2"}),
        json!({"kind": "way", "ref": "w1", "depends_on": ["r1"]}),
        json!({"kind": "way", "ref": "w2", "depends_on": ["r2"]}),
    ];
    for (near, far) in [("r1", "w2"), ("r2", "w1")] {
        call.extend((0..20).map(|_| json!({"kind": "c", "depends_on": [near, far]})));
    }
    let call = Value::Array(call);
    for _ in 0..5 {
        let jobs = graph(&one, &call).await;
        let roots = acquire(&one, Uuid::new_v4(), 2).await;
        let discard = |root| finishing("fail", &roots[root..=root], ", discard => '{true}'");
        let ends = [(&one, discard(0)), (&two, discard(1))];
        assert_eq!(collide(&holder, &jobs[4..], ends).await, ["discarded", "discarded"]);
        let ended = states(&one, &jobs[2..]).await;
        assert!(ended.iter().all(|state| state == "cancelled"), "{ended:?}");
    }
    db.finish().await;
}

/// The same for ends of different sorts: what one root releases, the other cancels.
#[tokio::test]
async fn a_release_and_a_fall_that_meet_agree() {
    let db = Db::new().await;
    let (one, two, holder) = (db.connect().await, db.connect().await, db.connect().await);
    let child = |n: usize| {
        let wait_for = ["all", "any"][n % 2];
        json!({"kind": "c", "depends_on": ["good", "bad"], "wait_for": wait_for})
    };
    let roots = [json!({"kind": "r", "ref": "good"}), json!({"kind": "r", "ref": "bad"})];
    let call: Value = roots.into_iter().chain((0..40).map(child)).collect();
    for _ in 0..5 {
        let jobs = graph(&one, &call).await;
        let mut roots: Vec<Execution> = acquire(&one, Uuid::new_v4(), 2).await;
        roots.sort_by_key(|root| root.job_id != jobs[0]);
        let ends = [
            (&one, finishing("complete", &roots[..1], "")),
            (&two, finishing("fail", &roots[1..], ", discard => '{true}'")),
        ];
        assert_eq!(collide(&holder, &jobs[2..], ends).await, ["completed", "discarded"]);
        let ended = states(&one, &jobs[2..]).await;
        for (n, state) in ended.iter().enumerate() {
            assert_eq!(state, ["cancelled", "ready"][n % 2], "child {n}");
        }
        drain(&one).await;
    }
    db.finish().await;
}
