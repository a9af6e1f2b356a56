//! Many acquire at once, and others hold rows meanwhile.

use std::collections::HashSet;
use std::time::Instant;

use futures_util::future::join_all;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{acquire, cancel, complete, enqueue, ids, run, states, value};

const FILL: &str = "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object(
    'kind', 'k', 'priority', n % 10)) from generate_series(1, 5000) n))";

#[tokio::test]
async fn two_workers_never_hold_the_same_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, FILL).await;
    let take_all = async |number: i32| {
        let client = db.connect().await;
        let worker = Uuid::new_v4();
        let mut taken = Vec::new();
        loop {
            let got = acquire(&client, worker, 1 + number % 40).await;
            if got.is_empty() {
                return taken;
            }
            // Every second one finishes, so that grants, rows and locks come and go.
            if number % 2 == 0 {
                let verdicts = complete(&client, &got).await;
                assert!(verdicts.iter().all(|verdict| verdict == "completed"), "{verdicts:?}");
            }
            taken.extend(got.iter().map(|one| (one.job_id, one.attempt)));
        }
    };
    let taken: Vec<_> = join_all((0..20).map(take_all)).await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 5000);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), 5000);
    assert!(taken.iter().all(|(_, attempt)| *attempt == 1));
    db.finish().await;
}

#[tokio::test]
async fn a_thousand_fresh_workers_at_once_all_have_a_row() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, FILL).await;
    let register = async |_| {
        let client = db.connect().await;
        let mut taken = 0;
        for _ in 0..25 {
            taken += acquire(&client, Uuid::new_v4(), 2).await.len();
        }
        taken
    };
    let taken: usize = join_all((0..40).map(register)).await.iter().sum();
    assert_eq!(taken, 2000);
    let orphans = "select count(*) from executions e
        where not exists (select from workers w where w.id = e.worker)";
    assert_eq!(value::<i64>(&client, orphans).await, 0);
    assert_eq!(value::<i64>(&client, "select count(*) from workers").await, 1000);
    db.finish().await;
}

#[tokio::test]
async fn one_fresh_worker_on_many_connections_is_one_row() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, FILL).await;
    let connections = join_all((0..8).map(|_| db.connect())).await;
    for _ in 0..40 {
        let worker = Uuid::new_v4();
        let first = async |connection| acquire(connection, worker, 1).await.len();
        let taken: usize = join_all(connections.iter().map(first)).await.iter().sum();
        assert_eq!(taken, 8);
    }
    assert_eq!(value::<i64>(&client, "select count(*) from workers").await, 40);
    // Whoever made the row did not take the others' jobs for those of a worker that was gone.
    let lost = "select count(*) from executions where finished_at is not null";
    assert_eq!(value::<i64>(&client, lost).await, 0);
    drop(connections);
    db.finish().await;
}

#[tokio::test]
async fn what_another_transaction_takes_is_passed_by() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let first = enqueue(&client, "'k', priority => 0").await;
    let second = enqueue(&client, "'k', priority => 0").await;
    let third = enqueue(&client, "'k'").await;
    run(&client, "set statement_timeout = '5 s'").await;
    run(&other, "begin").await;
    assert_eq!(acquire(&other, Uuid::new_v4(), 1).await[0].job_id, first);
    assert_eq!(cancel(&other, &[second]).await, ["cancelled"]);
    assert_eq!(acquire(&client, Uuid::new_v4(), 5).await[0].job_id, third);
    run(&other, "rollback").await;
    let got = acquire(&client, Uuid::new_v4(), 5).await;
    assert_eq!(got.iter().map(|one| one.job_id).collect::<Vec<_>>(), [first, second]);
    db.finish().await;
}

#[tokio::test]
async fn key_share_locks_of_a_users_table_neither_hide_nor_block() {
    let db = Db::new().await;
    let (client, other) = (db.connect().await, db.connect().await);
    let job = enqueue(&client, "'k'").await;
    run(&client, "create table public.orders (job uuid references jobs (id) on delete cascade)")
        .await;
    run(&other, &format!("begin; insert into public.orders values ('{job}')")).await;
    run(&client, "set statement_timeout = '5 s'").await;
    let got = acquire(&client, Uuid::new_v4(), 5).await;
    assert_eq!(got.iter().map(|one| one.job_id).collect::<Vec<_>>(), [job]);
    assert_eq!(complete(&client, &got).await, ["completed"]);
    run(&other, "commit").await;
    db.finish().await;
}

#[tokio::test]
async fn acquire_and_cancel_at_once_agree_on_one_end() {
    let db = Db::new().await;
    let client = db.connect().await;
    for _ in 0..20 {
        let fill = "select job_id from enqueue_many((select jsonb_agg(jsonb_build_object(
            'kind', 'k')) from generate_series(1, 40)))";
        let rows = client.query(fill, &[]).await.expect("enqueues");
        let jobs: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
        let (acquirer, canceller) = (db.connect().await, db.connect().await);
        let acquiring = acquire(&acquirer, Uuid::new_v4(), 40);
        let cancelling = async { cancel(&canceller, &jobs).await };
        let started = Instant::now();
        let (got, words) = tokio::join!(acquiring, cancelling);
        assert!(started.elapsed().as_secs() < 20);
        let ready = format!("select count(*) from ready where job_id = any({})", ids(&jobs));
        assert_eq!(value::<i64>(&client, &ready).await, 0);
        for ((job, word), state) in jobs.iter().zip(&words).zip(states(&client, &jobs).await) {
            let runs = got.iter().any(|one| one.job_id == *job);
            let wanted = if runs { ("running", "cancelling") } else { ("cancelled", "cancelled") };
            assert_eq!((state.as_str(), word.as_str()), wanted);
        }
        let verdicts = complete(&client, &got).await;
        assert!(verdicts.iter().all(|verdict| verdict == "cancelled"), "{verdicts:?}");
    }
    db.finish().await;
}
