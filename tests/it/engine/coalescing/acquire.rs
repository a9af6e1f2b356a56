//! Acquires of many workers, once and waiting.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rowlock::config::Settings;
use rowlock::db::Options;
use rowlock::embedded;
use rowlock::engine::{AcquireCall, Engine, Error};
use rowlock::model::{AcquiredJob, Code, FinishVerdict, HeartbeatVerdict, NewJob};
use rowlock::shutdown::Shutdown;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{HELD_UP, callers, waiting};
use crate::engine::{SOON, job, open, open_with};
use crate::harness::sql::{column, enqueue, run, value};
use crate::harness::{Db, wait_until};
use crate::sql::crash::Victim;

fn call(most: i32) -> AcquireCall {
    AcquireCall { max_jobs: most, ..AcquireCall::new(Uuid::now_v7(), vec!["q".to_owned()]) }
}

/// Poll intervals that no test lives to see the end of.
fn only_woken() -> Settings {
    let mut settings = Settings::default();
    settings.queue.poll = Duration::from_secs(3600);
    settings
}

const WATCHED: &str = "select exists (select from pg_locks where locktype = 'advisory'
    and mode = 'ShareLock'
    and database = (select oid from pg_database where datname = current_database()))";

#[tokio::test]
async fn each_worker_is_given_its_own_jobs_and_may_finish_them() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    engine.enqueue((0..200).map(|_| job("q")).collect()).await.expect("enqueues");
    let taken = callers(engine.clone(), 60, |engine, caller| async move {
        let call = AcquireCall {
            name: Some(format!("worker {caller}")),
            call_number: Some(1),
            ..call(1 + caller as i32 % 4)
        };
        let (worker, most) = (call.worker, call.max_jobs);
        let jobs = engine.acquire(call).await.expect("acquires");
        assert!(jobs.len() <= most as usize);
        let done = jobs.iter().map(|job| (job.execution, None)).collect();
        let verdicts = engine.complete(worker, done).await.expect("completes");
        assert!(verdicts.iter().all(|verdict| *verdict == FinishVerdict::Completed));
        jobs.into_iter().map(|job| job.execution.job_id).collect::<Vec<_>>()
    })
    .await;
    let ids: Vec<Uuid> = taken.into_iter().flatten().collect();
    // 15 workers each of 1, 2, 3 and 4.
    assert_eq!(ids.len(), 150);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 150);
    let transactions: i64 =
        value(&client, "select count(distinct started_at)::bigint from executions").await;
    assert!(transactions <= 10, "{transactions} acquires for 60 calls");
    let names: i64 =
        value(&client, "select count(*) from workers where name like 'worker %'").await;
    assert_eq!(names, 60);
    assert_eq!(waiting(&engine, "acquire"), 0);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_call_that_is_not_valid_is_refused_alone() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    engine.enqueue((0..40).map(|_| job("q")).collect()).await.expect("enqueues");
    let answers = callers(engine.clone(), 40, |engine, caller| async move {
        let call = match caller % 5 {
            0 => AcquireCall { capacity: Some(0), ..call(1) },
            1 => AcquireCall { name: Some("a\0b".to_owned()), ..call(1) },
            2 => AcquireCall { lease: Duration::from_millis(1), ..call(1) },
            _ => call(1),
        };
        engine.acquire(call).await
    })
    .await;
    for (caller, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(jobs) => assert!(3 <= caller % 5 && jobs.len() == 1, "{caller}"),
            Err(error) => {
                assert!(caller % 5 < 3, "{caller}: {error}");
                assert_eq!(error.code(), Some(Code::Invalid));
            }
        }
    }
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn one_worker_may_call_several_times_at_once() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    engine.enqueue((0..60).map(|_| job("q")).collect()).await.expect("enqueues");
    let worker = Uuid::now_v7();
    let take = move |engine: Engine, number: usize| async move {
        let call_number = Some(number as i64 + 1);
        let jobs = engine.acquire(AcquireCall { worker, call_number, ..call(1) }).await;
        jobs.expect("acquires")[0].execution
    };
    let taken = callers(engine.clone(), 30, take).await;
    let transactions: i64 =
        value(&client, "select count(distinct started_at)::bigint from executions").await;
    assert!(transactions <= 5, "{transactions} acquires for 30 calls");
    let lease = Duration::from_secs(60);
    // What calls up to the 20th were granted and it does not list is given back.
    let listed: Vec<_> = taken[5..].to_vec();
    let beaten = engine.heartbeat(worker, listed, lease, Some(20)).await.expect("beats");
    assert_eq!(beaten, [HeartbeatVerdict::Held; 25]);
    let open = "select count(*) from executions where finished_at is null";
    assert_eq!(value::<i64>(&client, open).await, 25);
    // Calls that find its lease ended take back all that it held, and once.
    run(&client, "update workers set lease_ends_at = clock_timestamp() - interval '1 s'").await;
    let taken = callers(engine.clone(), 30, take).await;
    let beaten = engine.heartbeat(worker, taken, lease, Some(30)).await.expect("beats");
    assert_eq!(beaten, [HeartbeatVerdict::Held; 30]);
    assert_eq!(value::<i64>(&client, open).await, 30);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn jobs_that_one_reply_cannot_carry_are_taken_all_the_same() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let large = NewJob::new("test", &"x".repeat(255 << 10)).expect("JSON").queue("q");
    let count = 50;
    for _ in 0..5 {
        engine.enqueue(vec![large.clone(); count / 5]).await.expect("enqueues");
    }
    let taken = callers(engine.clone(), count, |engine, _| async move {
        engine.acquire(call(1)).await.expect("acquires").len()
    })
    .await;
    assert_eq!(taken, vec![1; count]);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_worker_whose_return_takes_too_long_fails_alone() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.lock_timeout = SOON;
    settings.database.statement_timeout = Duration::from_millis(500);
    let (engine, shutdown) = open_with(&db, &settings);
    let holder = db.connect().await;
    let late = Uuid::now_v7();
    engine.acquire(AcquireCall { worker: late, ..call(1) }).await.expect("acquires");
    engine.enqueue((0..40).map(|_| job("q")).collect()).await.expect("enqueues");
    run(&holder, "update workers set lease_ends_at = clock_timestamp() - interval '1 s'").await;
    run(&holder, "begin; select from workers for update").await;
    let answers = callers(engine.clone(), 40, move |engine, caller| async move {
        let call = call(1);
        let worker = if caller == 20 { late } else { call.worker };
        engine.acquire(AcquireCall { worker, ..call }).await
    })
    .await;
    for (caller, answer) in answers.into_iter().enumerate() {
        match answer {
            Ok(jobs) => assert_eq!((caller != 20, jobs.len()), (true, 1)),
            Err(error) => assert!(caller == 20 && matches!(error, Error::Timeout(_)), "{error}"),
        }
    }
    drop(holder);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn jobs_of_callers_who_went_away_are_given_back_and_the_others_keep_theirs() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    engine.enqueue((0..9).map(|_| job("q")).collect()).await.expect("enqueues");
    let (holder, client) = (db.connect().await, db.connect().await);
    run(&holder, "begin; lock table grants in exclusive mode").await;
    let start = || -> JoinHandle<Vec<AcquiredJob>> {
        let engine = engine.clone();
        tokio::spawn(async move { engine.acquire(call(1)).await.expect("acquires") })
    };
    // The first is under way before the others come, which then travel together.
    let first = start();
    wait_until("the first is under way", SOON, || async {
        value::<i64>(&client, HELD_UP).await == 1
    })
    .await;
    let mut others: Vec<_> = (0..8).map(|_| start()).collect();
    wait_until("the others are too", SOON, || async { value::<i64>(&client, HELD_UP).await == 2 })
        .await;
    for gone in others.drain(..3) {
        gone.abort();
    }
    run(&holder, "commit").await;
    assert_eq!(first.await.expect("joins").len(), 1);
    for other in others {
        assert_eq!(other.await.expect("joins").len(), 1);
    }
    wait_until("three jobs are given back", SOON, || async {
        let released = "select count(*) from executions where outcome = 'released'";
        value::<i64>(&client, released).await == 3
    })
    .await;
    let running: i64 = value(&client, "select count(*) from jobs where state = 'running'").await;
    assert_eq!(running, 6);
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}

/// Workers that wait for one job each.
fn waiters(engine: &Engine, count: usize) -> Vec<JoinHandle<Vec<AcquiredJob>>> {
    let wait = |engine: Engine| async move {
        let stop = CancellationToken::new();
        engine.acquire_wait(call(1), SOON, &stop).await.expect("acquires")
    };
    (0..count).map(|_| tokio::spawn(wait(engine.clone()))).collect()
}

/// Until all of them sleep: the queue is watched and nobody looks.
async fn until_asleep(engine: &Engine, client: &tokio_postgres::Client) {
    let mut quiet = 0;
    while quiet < 30 {
        wait_until("the queue is watched", SOON, || async { value(client, WATCHED).await }).await;
        quiet = if waiting(engine, "acquire") == 0 { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn one_job_wakes_one_of_fifty_waiters() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &only_woken());
    let (holder, client) = (db.connect().await, db.connect().await);
    let waiters = waiters(&engine, 50);
    until_asleep(&engine, &client).await;
    let looks: i64 = value(&client, "select count(distinct xmin::text)::bigint from workers").await;
    assert!(looks <= 5, "{looks} statements for the first looks of 50 workers");

    // Who finds the job is held up, and so are all others who were woken for it.
    run(&holder, "begin; lock table grants in exclusive mode").await;
    enqueue(&client, "'test', queue => 'q'").await;
    wait_until("somebody has found it", SOON, || async {
        value::<i64>(&client, HELD_UP).await == 1
    })
    .await;
    let mut fewest = usize::MAX;
    for _ in 0..20 {
        fewest = fewest.min(waiting(&engine, "acquire"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fewest, 1);
    run(&holder, "commit").await;
    wait_until("one has it", SOON, || async {
        waiters.iter().filter(|waiter| waiter.is_finished()).count() == 1
    })
    .await;

    engine.enqueue((0..49).map(|_| job("q")).collect()).await.expect("enqueues");
    for waiter in waiters {
        assert_eq!(waiter.await.expect("joins").len(), 1);
    }
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn waiters_take_turns() {
    // A cluster of its own: what writes for long in another database keeps sleepers looking.
    let victim = Victim::new().await;
    let (settings, shutdown) = (only_woken(), Shutdown::new());
    let url = victim.cluster.url(embedded::DATABASE);
    let options = Options::new(url.as_str().into(), &settings.database);
    let engine = Engine::open(&options, &settings.queue, &shutdown).expect("the url is good");
    let (count, each) = (12, 4);
    let total = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let waiters: Vec<_> = (0..count)
        .map(|_| {
            let (engine, total, stop) = (engine.clone(), total.clone(), stop.clone());
            tokio::spawn(async move {
                let call = call(1);
                let mut own = 0;
                while !stop.is_cancelled() {
                    let jobs = engine.acquire_wait(call.clone(), SOON, &stop).await;
                    for job in jobs.expect("acquires") {
                        let done = vec![(job.execution, None)];
                        engine.complete(call.worker, done).await.expect("completes");
                        own += 1;
                        total.fetch_add(1, Ordering::SeqCst);
                    }
                }
                own
            })
        })
        .collect();
    for done in 1..=count * each {
        engine.enqueue_one(job("q")).await.expect("enqueues");
        // And who did it waits again: in its look it might find the next one before its turn.
        wait_until("the job is done", SOON, || async {
            total.load(Ordering::SeqCst) == done && waiting(&engine, "acquire") == 0
        })
        .await;
    }
    stop.cancel();
    for waiter in waiters {
        let own = waiter.await.expect("joins");
        assert!((each / 2..=2 * each).contains(&own), "{own} of {}", count * each);
    }
    let client = victim.connect_again().await;
    let broken: Vec<String> =
        column(&client, "select v::text from verify() v where violations > 0").await;
    assert!(broken.is_empty(), "{broken:#?}");
    shutdown.drain(SOON).await;
    drop((client, engine));
    victim.end().await;
}
