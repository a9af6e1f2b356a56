//! Completions and heartbeats of many workers.

use std::time::{Duration, Instant};

use rowlock::config::Settings;
use rowlock::engine::{Completion, Engine, Error};
use rowlock::model::{Code, Execution, FinishVerdict, HeartbeatVerdict, Token};
use uuid::Uuid;

use super::{at_work, callers, waiting};
use crate::engine::{SOON, open, open_with, raw};
use crate::harness::Db;
use crate::harness::sql::{run, value};

#[tokio::test]
async fn each_completion_gets_its_own_verdict() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let held = at_work(&engine, 60).await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let verdicts = callers(engine.clone(), 60, |engine, caller| {
        let (worker, execution) = held[caller];
        let other = held[(caller + 1) % 60].1;
        let wrong = Execution { token: Token::new(Uuid::nil()), ..execution };
        let entries: Vec<Completion> = match caller % 6 {
            0 => vec![(wrong, None)],
            1 => vec![(execution, None), (execution, None)],
            2 => vec![(execution, raw(&deep))],
            3 => vec![(execution, raw(r#""\u0000""#))],
            4 => vec![(other, None), (execution, raw("4"))],
            _ => vec![(execution, raw("5"))],
        };
        async move { engine.complete(worker, entries).await.expect("completes") }
    })
    .await;
    use FinishVerdict::{Completed, Repeated, ResultTooLarge, Stale};
    let expected: [&[FinishVerdict]; 6] = [
        &[Stale],
        &[Completed, Repeated],
        &[ResultTooLarge],
        &[ResultTooLarge],
        &[Stale, Completed],
        &[Completed],
    ];
    for (caller, verdicts) in verdicts.iter().enumerate() {
        assert_eq!(verdicts, expected[caller % 6], "{caller}");
    }
    let results = "select count(*) from executions where result in ('4', '5')";
    assert_eq!(value::<i64>(&client, results).await, 20);
    assert_eq!(waiting(&engine, "complete"), 0);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn completions_that_come_together_share_commits() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let held = at_work(&engine, 100).await;
    let verdicts = callers(engine.clone(), 100, |engine, caller| {
        let (worker, execution) = held[caller];
        async move { engine.complete(worker, vec![(execution, None)]).await.expect("completes") }
    })
    .await;
    assert!(verdicts.iter().all(|verdicts| *verdicts == [FinishVerdict::Completed]));
    let transactions: i64 =
        value(&client, "select count(distinct finished_at)::bigint from executions").await;
    assert!(transactions <= 10, "{transactions} statements for 100 calls");
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn an_execution_that_others_hold_delays_no_neighbour_for_long() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.lock_timeout = Duration::from_millis(200);
    let (engine, shutdown) = open_with(&db, &settings);
    let holder = db.connect().await;
    let held = at_work(&engine, 40).await;
    let locked = [held[3].1.job_id, held[20].1.job_id];
    run(&holder, "begin").await;
    let lock = "select from executions where job_id = any($1) for update";
    holder.query(lock, &[&&locked[..]]).await.expect("locks");
    let complete = |engine: Engine, (worker, execution): (Uuid, Execution)| async move {
        engine.complete(worker, vec![(execution, None)]).await.expect("completes")
    };
    let (stuck, free): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|(_, execution)| locked.contains(&execution.job_id));
    let stuck: Vec<_> =
        stuck.into_iter().map(|one| tokio::spawn(complete(engine.clone(), one))).collect();
    let began = Instant::now();
    let verdicts =
        callers(engine.clone(), 38, |engine, caller| complete(engine, free[caller])).await;
    // All together, their parts, and one part of these one by one: three times the time-out.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(verdicts.iter().all(|verdicts| *verdicts == [FinishVerdict::Completed]));
    assert!(stuck.iter().all(|one| !one.is_finished()));
    // Those who still try are in nobody's way.
    let more = at_work(&engine, 20).await;
    let verdicts =
        callers(engine.clone(), 20, |engine, caller| complete(engine, more[caller])).await;
    assert!(verdicts.iter().all(|verdicts| *verdicts == [FinishVerdict::Completed]));
    run(&holder, "rollback").await;
    for one in stuck {
        assert_eq!(one.await.expect("joins"), [FinishVerdict::Completed]);
    }
    drop(holder);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn each_heartbeat_gets_its_own_verdicts_whatever_its_neighbours_need() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let held = at_work(&engine, 40).await;
    let lease = Duration::from_secs(60);
    let cancelled: Vec<Uuid> =
        held.iter().skip(1).step_by(5).map(|(_, execution)| execution.job_id).collect();
    engine.cancel(cancelled).await.expect("cancels");
    for (worker, _) in held.iter().skip(2).step_by(5) {
        // Its lease ends: what it lists is kept, since nobody has taken it back.
        let end = "update workers set lease_ends_at = clock_timestamp() - interval '1 s'
                   where id = $1";
        client.execute(end, &[worker]).await.expect("ends");
    }
    let answers = callers(engine.clone(), 40, |engine, caller| {
        let (worker, execution) = held[caller];
        let unknown = Execution { job_id: Uuid::nil(), ..execution };
        let (lease, executions) = match caller % 5 {
            3 => (lease, vec![unknown, execution]),
            4 => (Duration::from_millis(5), vec![execution]),
            _ => (lease, vec![execution]),
        };
        async move { engine.heartbeat(worker, executions, lease, Some(0)).await }
    })
    .await;
    use HeartbeatVerdict::{Cancel, Held, Lost};
    for (caller, answer) in answers.into_iter().enumerate() {
        match (caller % 5, answer) {
            (0 | 2, Ok(verdicts)) => assert_eq!(verdicts, [Held]),
            (1, Ok(verdicts)) => assert_eq!(verdicts, [Cancel]),
            (3, Ok(verdicts)) => assert_eq!(verdicts, [Lost, Held]),
            (4, Err(error)) => assert_eq!(error.code(), Some(Code::Invalid)),
            (_, answer) => panic!("{caller}: {answer:?}"),
        }
    }
    let extended: i64 = value(
        &client,
        "select count(*) from workers where lease_ends_at > clock_timestamp() + interval '50 s'",
    )
    .await;
    assert_eq!(extended, 32);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn heartbeats_of_one_worker_may_come_together() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let (worker, execution) = at_work(&engine, 1).await[0];
    let lease = Duration::from_secs(60);
    let answers = callers(engine.clone(), 20, |engine, _| async move {
        engine.heartbeat(worker, vec![execution], lease, Some(0)).await
    })
    .await;
    for answer in answers {
        assert_eq!(answer.expect("beats"), [HeartbeatVerdict::Held]);
    }
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_heartbeat_that_takes_too_long_fails_alone() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.lock_timeout = SOON;
    settings.database.statement_timeout = Duration::from_millis(500);
    let (engine, shutdown) = open_with(&db, &settings);
    let holder = db.connect().await;
    let held = at_work(&engine, 30).await;
    run(&holder, "begin").await;
    let lock = "select from workers where id = $1 for update";
    holder.query(lock, &[&held[7].0]).await.expect("locks");
    let answers = callers(engine.clone(), 30, |engine, caller| {
        let (worker, execution) = held[caller];
        async move { engine.heartbeat(worker, vec![execution], SOON, None).await }
    })
    .await;
    for (caller, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(verdicts) => {
                assert_eq!((caller != 7, &verdicts[..]), (true, &[HeartbeatVerdict::Held][..]))
            }
            Err(error) => assert!(caller == 7 && matches!(error, Error::Timeout(_)), "{error}"),
        }
    }
    drop(holder);
    shutdown.drain(SOON).await;
    db.finish().await;
}
