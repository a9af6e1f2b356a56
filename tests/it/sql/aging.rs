//! Age makes waiting jobs more urgent; `shares` counts the share of what is acquired that it buys.

use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, acquire_with, enqueue, refused, run, value};

/// Jobs of one priority, and how long they have been ready.
fn flood(priority: i32, many: i32, age: &str) -> String {
    format!(
        "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object(
             'kind', 'k', 'priority', {priority})) from generate_series(1, {many})));
         update ready set ready_at = clock_timestamp() - interval '{age}' where priority = {priority}"
    )
}

#[tokio::test]
async fn where_nothing_urgent_waits_age_gets_everything() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, &flood(9, 300, "1 hour")).await;
    assert_eq!(acquire(&client, Uuid::new_v4(), 300).await.len(), 300);
    db.finish().await;
}

#[tokio::test]
async fn a_minute_is_worth_one_priority() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "insert into queues (name, aging_share) values ('default', 1)").await;
    // Effective: 5 - 3 = 2 against 3; then 9 - 6 = 3, whose head is older than the fresh 3's.
    run(&client, &flood(5, 1, "3 minutes 1 s")).await;
    run(&client, &flood(3, 1, "59 s")).await;
    run(&client, &flood(9, 1, "6 minutes 1 s")).await;
    run(&client, &flood(4, 1, "0")).await;
    let got = acquire(&client, Uuid::new_v4(), 10).await;
    let order: Vec<_> = got.iter().map(|one| one.priority).collect();
    assert_eq!(order, [5, 9, 3, 4]);
    db.finish().await;
}

#[tokio::test]
async fn aging_is_set_per_queue_and_off_by_null() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(
        &client,
        "insert into queues (name, aging_interval, aging_share) values ('default', null, 1)",
    )
    .await;
    run(&client, &flood(0, 100, "0")).await;
    run(&client, &flood(9, 100, "1 day")).await;
    let got = acquire(&client, Uuid::new_v4(), 50).await;
    assert!(got.iter().all(|one| one.priority == 0));
    run(&client, "update queues set aging_interval = '1 hour', aging_share = 0.5").await;
    let got = acquire(&client, Uuid::new_v4(), 20).await;
    assert_eq!(got.iter().filter(|one| one.priority == 9).count(), 10);
    run(&client, "update queues set aging_share = 0").await;
    let got = acquire(&client, Uuid::new_v4(), 20).await;
    assert!(got.iter().all(|one| one.priority == 0));
    for nonsense in ["aging_interval = '0'", "aging_interval = '-1 s'", "aging_share = 1.1"] {
        refused(&client, "23514", &format!("update queues set {nonsense}")).await;
    }
    db.finish().await;
}

#[tokio::test]
async fn waiting_before_a_resume_is_no_age() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select pause_queue('default')").await;
    run(&client, &flood(0, 50, "0")).await;
    run(&client, &flood(9, 50, "1 day")).await;
    run(&client, "select resume_queue('default')").await;
    let got = acquire(&client, Uuid::new_v4(), 40).await;
    assert!(got.iter().all(|one| one.priority == 0), "{got:?}");
    run(&client, "update queues set resumed_at = resumed_at - interval '1 hour'").await;
    let got = acquire(&client, Uuid::new_v4(), 8).await;
    assert_eq!(got.iter().filter(|one| one.priority == 9).count(), 2);
    db.finish().await;
}

#[tokio::test]
async fn one_aged_head_does_not_take_its_fresh_followers_along() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, &flood(9, 1, "1 hour")).await;
    run(&client, "select enqueue('k', priority => 9) from generate_series(1, 100)").await;
    run(&client, "select enqueue('k', priority => 0) from generate_series(1, 100)").await;
    let got = acquire(&client, Uuid::new_v4(), 100).await;
    assert_eq!(got.iter().filter(|one| one.priority == 9).count(), 25);
    db.finish().await;
}

#[tokio::test]
async fn zero_is_the_most_urgent_across_queues() {
    let db = Db::new().await;
    let client = db.connect().await;
    let late = enqueue(&client, "'k', priority => 1, queue => 'a'").await;
    let urgent = enqueue(&client, "'k', priority => 0, queue => 'b'").await;
    let got = acquire_with(&client, Uuid::new_v4(), "'{a,b}', 1").await;
    assert_eq!(got[0].job_id, urgent);
    let got = acquire_with(&client, Uuid::new_v4(), "'{a,b}', 1").await;
    assert_eq!(got[0].job_id, late);
    assert_eq!(value::<i64>(&client, "select count(*) from ready").await, 0);
    db.finish().await;
}

#[tokio::test]
async fn each_queue_keeps_its_own_share() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "insert into queues (name, aging_share) values ('greedy', 1)").await;
    for (queue, priority, many) in [("other", 0, 50), ("other", 9, 50), ("greedy", 9, 8)] {
        for _ in 0..many {
            enqueue(&client, &format!("'{queue}', queue => '{queue}', priority => {priority}"))
                .await;
        }
    }
    let age =
        "update ready set ready_at = clock_timestamp() - interval '1 hour' where priority = 9";
    run(&client, age).await;
    let got = acquire_with(&client, Uuid::new_v4(), "'{other,greedy}', 20").await;
    let count = |kind: &str, priority: i32| {
        got.iter().filter(|one| one.kind == kind && one.priority == priority).count()
    };
    // A quarter of the slots to what is old anywhere; of the rest all that is old in the greedy one.
    assert_eq!((count("greedy", 9), count("other", 9), count("other", 0)), (8, 5, 7));
    // With nothing old in the greedy one, its share is nobody's.
    enqueue(&client, "'greedy', queue => 'greedy', priority => 9").await;
    let got = acquire_with(&client, Uuid::new_v4(), "'{other,greedy}', 20").await;
    let aged = got.iter().filter(|one| one.priority == 9).count();
    assert_eq!((got.len(), aged), (20, 5));
    db.finish().await;
}
