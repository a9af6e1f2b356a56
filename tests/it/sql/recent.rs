//! Recent rounds of the duties: what they find, what they leave to a full one, and that they do not
//! walk over what lies dead under an old snapshot.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, enqueue, pages, run, state, value};

async fn recent(client: &Client, duty: &str) -> i64 {
    value(client, &format!("select done from try_duty('{duty}', 100, true)")).await
}

async fn full(client: &Client, duty: &str) -> i64 {
    value(client, &format!("select done from try_duty('{duty}', 100)")).await
}

#[tokio::test]
async fn a_recent_promotion_takes_what_is_due_and_a_full_one_what_is_long_overdue() {
    let db = Db::new().await;
    let client = db.connect().await;
    let later = "'k', run_at => clock_timestamp() + interval '1 h'";
    let (due, overdue) = (enqueue(&client, later).await, enqueue(&client, later).await);
    for (job, ago) in [(due, "2 s"), (overdue, "1 min")] {
        let when = format!("run_at = clock_timestamp() - interval '{ago}'");
        let both = format!(
            "begin; update jobs set {when} where id = '{job}'; update scheduled s
             set run_at = j.run_at from jobs j where j.id = s.job_id and j.id = '{job}'; commit"
        );
        run(&client, &both).await;
    }
    assert_eq!(recent(&client, "promote").await, 1);
    assert_eq!(
        (&*state(&client, due).await, &*state(&client, overdue).await),
        ("ready", "scheduled")
    );
    assert_eq!(full(&client, "promote").await, 1);
    assert_eq!(state(&client, overdue).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn a_recent_link_takes_fresh_children_and_a_full_one_those_with_other_ids() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parent = enqueue(&client, "'p'").await;
    for id in
        ["null", "'00000000-0000-4000-8000-000000000001'", "'f0000000-0000-4000-8000-000000000001'"]
    {
        let child =
            format!("select enqueue('c', depends_on => array['{parent}'::uuid], id => {id})");
        run(&client, &format!("begin; set local rowlock.notify = off; {child}; commit")).await;
    }
    assert_eq!(recent(&client, "link").await, 1);
    assert_eq!(recent(&client, "link").await, 0);
    assert_eq!(full(&client, "link").await, 2);
    db.finish().await;
}

#[tokio::test]
async fn a_recent_link_of_many_children_says_that_there_are_more() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let (parent, busy) = (enqueue(&client, "'p'").await, enqueue(&client, "'p'").await);
    let children = |parent: Uuid, count: u32| {
        format!(
            "begin; set local rowlock.notify = off;
             select enqueue('c', depends_on => array['{parent}'::uuid])
             from generate_series(1, {count}); commit"
        )
    };
    run(&client, &children(parent, 5)).await;
    let link = "select done || ' ' || more from try_duty('link', 2, true)";
    let said = || value::<String>(&client, link);
    assert_eq!([said().await, said().await, said().await], ["2 true", "2 true", "1 false"]);
    // Where nothing can be attached, another round at once would find the same.
    run(&other, &format!("begin; select from jobs where id = '{busy}' for update")).await;
    run(&client, &children(busy, 3)).await;
    assert_eq!(said().await, "0 false");
    run(&other, "rollback").await;
    assert_eq!([said().await, said().await], ["2 true", "1 false"]);
    db.finish().await;
}

#[tokio::test]
async fn a_recent_rescue_takes_from_lost_workers_and_a_full_one_from_those_that_are_gone() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (lost, gone) = (Uuid::new_v4(), Uuid::new_v4());
    let mut jobs = Vec::new();
    for worker in [lost, gone] {
        jobs.push(enqueue(&client, "'k'").await);
        assert_eq!(acquire(&client, worker, 1).await.len(), 1);
    }
    run(&client, "update workers set lease_ends_at = clock_timestamp() - interval '1 s'").await;
    run(&client, &format!("delete from workers where id = '{gone}'")).await;
    assert_eq!(recent(&client, "rescue").await, 1);
    assert_eq!(
        (&*state(&client, jobs[0]).await, &*state(&client, jobs[1]).await),
        ("ready", "running")
    );
    let status = format!("select status from workers where id = '{lost}'");
    assert_eq!(value::<String>(&client, &status).await, "lost");
    assert_eq!(recent(&client, "rescue").await, 0);
    assert_eq!(full(&client, "rescue").await, 1);
    assert_eq!(state(&client, jobs[1]).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn a_recent_rescue_ends_what_runs_too_long() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = enqueue(&client, "'k', timeout => '1 s'").await;
    acquire(&client, Uuid::new_v4(), 1).await;
    let back = "interval '7 s'";
    let age = format!(
        "update executions set started_at = started_at - {back};
         update grants set expires_at = expires_at - {back}"
    );
    run(&client, &age).await;
    assert_eq!(recent(&client, "rescue").await, 1);
    assert_eq!(state(&client, job).await, "scheduled");
    db.finish().await;
}

#[tokio::test]
async fn dead_rows_under_a_held_snapshot_are_not_walked_over() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    run(&holder, "begin isolation level repeatable read; select 1").await;
    let come_and_go = "
        insert into scheduled (job_id, run_at, priority, queue)
        select gen_random_uuid(), clock_timestamp() - interval '1 min', 5, 'default'
        from generate_series(1, 20000);
        insert into grants (worker, expires_at, job_ids, attempts)
        select gen_random_uuid(), clock_timestamp() - interval '1 min', array[gen_random_uuid()], '{1}'
        from generate_series(1, 20000);
        insert into links (parent, child, xid, policy)
        select gen_random_uuid(), id_at(clock_timestamp() - interval '1 min' - n * interval '1 ms'),
            '1', 'cancel'
        from generate_series(1, 20000) n;";
    run(&client, come_and_go).await;
    run(&client, "delete from scheduled; delete from grants; delete from links").await;
    // As autovacuum leaves them: statistics that say \"empty\".
    run(&client, "vacuum (analyze) scheduled, grants, links").await;
    let calls = [
        "select * from try_duty('promote', 100, true)",
        "select * from try_duty('link', 100, true)",
        "select * from try_duty('rescue', 100, true)",
        "select link_children(array[gen_random_uuid()])",
    ];
    let fresh = db.connect().await;
    for call in calls {
        pages(&fresh, call).await;
        let read = pages(&fresh, call).await;
        assert!(read < 100, "{call} read {read} pages");
    }
    run(&holder, "rollback").await;
    db.finish().await;
}
