//! What waits for locks takes few connections, and nobody else's.

use std::time::Duration;

use rowlock::config::Settings;
use rowlock::engine::{AcquireCall, Engine, Error, Failure, Snooze};
use rowlock::model::{Execution, FinishVerdict, HeartbeatVerdict};
use time::OffsetDateTime;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{HELD_UP, at_work, callers, waiting};
use crate::engine::{SOON, job, open_with};
use crate::harness::sql::{run, value};
use crate::harness::{Db, wait_until};

/// Settings under which a statement waits for a lock for so long.
fn patient(lock_timeout: Duration) -> Settings {
    let mut settings = Settings::default();
    settings.database.lock_timeout = lock_timeout;
    settings.database.statement_timeout = Duration::from_secs(60);
    settings
}

fn failure(execution: Execution) -> Failure {
    Failure { execution, error: None, retry_at: None, discard: false }
}

/// The most statements that wait for locks at once, until no call of the verb does.
async fn most_held_up(engine: &Engine, verb: &str, client: &Client) -> i64 {
    let mut most = 0;
    while waiting(engine, verb) != 0 {
        most = most.max(value(client, HELD_UP).await);
    }
    most
}

#[tokio::test]
async fn keyed_calls_that_wait_starve_no_end_no_heartbeat_and_no_acquire() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &patient(Duration::from_secs(60)));
    let (holder, client) = (db.connect().await, db.connect().await);
    let worker = Uuid::now_v7();
    let call =
        |most| AcquireCall { max_jobs: most, ..AcquireCall::new(worker, vec!["q".to_owned()]) };
    engine.enqueue((0..300).map(|_| job("q")).collect()).await.expect("enqueues");
    let taken = engine.acquire(call(203)).await.expect("acquires");
    let mut held: Vec<_> = taken.iter().map(|job| job.execution).collect();
    let [failed, snoozed, released] = [held.remove(0), held.remove(0), held.remove(0)];
    run(&holder, "begin; select enqueue('k', queue => 'q', unique_key => 'held')").await;
    let keyed = callers(engine.clone(), 50, |engine, _| async move {
        engine.enqueue_one(job("q").unique_key("held")).await
    });
    let (keyed, ()) = tokio::join!(keyed, async {
        wait_until("as many wait as may", SOON, || async {
            5 <= value::<i64>(&client, HELD_UP).await
        })
        .await;
        let verdicts = engine.fail(worker, vec![failure(failed)]).await.expect("fails");
        assert_eq!(verdicts, [FinishVerdict::Retrying]);
        let until = OffsetDateTime::now_utc() + Duration::from_secs(60);
        let snooze = Snooze { execution: snoozed, until };
        let verdicts = engine.snooze(worker, vec![snooze]).await.expect("snoozes");
        assert_eq!(verdicts, [FinishVerdict::Snoozed]);
        let verdicts = engine.release(worker, vec![released]).await.expect("releases");
        assert_eq!(verdicts, [FinishVerdict::Released]);
        let beaten = engine.heartbeat(worker, held, Duration::from_secs(60), None).await;
        assert_eq!(beaten.expect("beats"), [HeartbeatVerdict::Held; 200]);
        assert_eq!(engine.acquire(call(50)).await.expect("acquires").len(), 50);
        run(&holder, "commit").await;
    });
    for answer in keyed {
        match answer {
            Ok(answer) => assert!(!answer.created),
            Err(error) => assert!(matches!(error, Error::PoolExhausted), "{error}"),
        }
    }
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn completions_that_others_hold_starve_no_end() {
    let db = Db::new().await;
    let mut settings = patient(Duration::from_secs(2));
    settings.database.pool_size = 4;
    let (engine, shutdown) = open_with(&db, &settings);
    let holder = db.connect().await;
    let mut taken = at_work(&engine, 9).await;
    let (worker, free) = taken.remove(0);
    let locked: Vec<Uuid> = taken.iter().map(|(_, execution)| execution.job_id).collect();
    run(&holder, "begin").await;
    let lock = "select from executions where job_id = any($1) for update";
    holder.query(lock, &[&locked]).await.expect("locks");
    let stuck = callers(engine.clone(), 8, |engine, caller| {
        let (worker, execution) = taken[caller];
        async move { engine.complete(worker, vec![(execution, None)]).await }
    });
    let (stuck, ()) = tokio::join!(stuck, async {
        wait_until("they wait", SOON, || async { waiting(&engine, "complete") == 8 }).await;
        wait_until("all go on alone", SOON, || async { waiting(&engine, "complete") == 0 }).await;
        let verdicts = engine.fail(worker, vec![failure(free)]).await.expect("fails");
        assert_eq!(verdicts, [FinishVerdict::Retrying]);
        run(&holder, "rollback").await;
    });
    for verdicts in stuck {
        assert_eq!(verdicts.expect("completes"), [FinishVerdict::Completed]);
    }
    drop(holder);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn completions_under_a_locked_table_take_few_connections() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &patient(Duration::from_millis(300)));
    let (holder, client) = (db.connect().await, db.connect().await);
    let held = at_work(&engine, 200).await;
    run(&holder, "begin; lock table executions in exclusive mode").await;
    let all = callers(engine.clone(), 200, |engine, caller| {
        let (worker, execution) = held[caller];
        async move { engine.complete(worker, vec![(execution, None)]).await }
    });
    let (all, ()) = tokio::join!(all, async {
        wait_until("they wait", SOON, || async { waiting(&engine, "complete") == 200 }).await;
        let most = most_held_up(&engine, "complete", &client).await;
        // Four parts, and two who go on alone.
        assert!((1..=6).contains(&most), "{most} statements wait");
        run(&holder, "commit").await;
    });
    for verdicts in all {
        assert_eq!(verdicts.expect("completes"), [FinishVerdict::Completed]);
    }
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn acquires_of_many_sorts_take_few_connections() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &patient(Duration::from_secs(60)));
    let (holder, client) = (db.connect().await, db.connect().await);
    let count = 18;
    let kind = |caller: usize| format!("kind{caller}");
    let of = |caller: usize| rowlock::NewJob { kind: kind(caller), ..job("q") };
    engine.enqueue((0..count).map(of).collect()).await.expect("enqueues");
    run(&holder, "begin; lock table workers in exclusive mode").await;
    let all = callers(engine.clone(), count, |engine, caller| async move {
        let call = AcquireCall::new(Uuid::now_v7(), vec!["q".to_owned()]);
        engine.acquire(AcquireCall { kinds: Some(vec![kind(caller)]), ..call }).await
    });
    let (all, ()) = tokio::join!(all, async {
        // Two at a time, and four that take long.
        let some = || async { 6 <= value::<i64>(&client, HELD_UP).await };
        wait_until("as many wait as may", SOON, some).await;
        for _ in 0..30 {
            assert_eq!(value::<i64>(&client, HELD_UP).await, 6);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        run(&holder, "commit").await;
    });
    for (caller, jobs) in all.into_iter().enumerate() {
        let kinds: Vec<_> = jobs.expect("acquires").into_iter().map(|job| job.kind).collect();
        assert_eq!(kinds, [kind(caller)]);
    }
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}
