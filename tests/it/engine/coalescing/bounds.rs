//! What waits for locks takes few connections, and nobody else's.

use std::time::Duration;

use rowlock::config::Settings;
use rowlock::engine::{AcquireCall, Engine};
use rowlock::model::FinishVerdict;
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

/// The most statements that wait for locks at once, until no call of the verb does.
async fn most_held_up(engine: &Engine, verb: &str, client: &Client) -> i64 {
    let mut most = 0;
    while waiting(engine, verb) != 0 {
        most = most.max(value(client, HELD_UP).await);
    }
    most
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
        // Four parts, and ten who go on alone.
        assert!((1..=14).contains(&most), "{most} statements wait");
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
