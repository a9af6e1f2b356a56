//! Enqueues of many callers.

use std::time::{Duration, Instant};

use rowlock::config::Settings;
use rowlock::engine::{Enqueued, Error, MOST_WAITING};
use rowlock::model::{Code, NewJob};
use serde_json::json;
use uuid::Uuid;

use super::{callers, waiting};
use crate::engine::{SOON, open, open_with, raw};
use crate::harness::sql::{column, run, value};
use crate::harness::{Db, wait_until};

/// A job that says who made it.
fn job_of(caller: usize) -> NewJob {
    NewJob::new(format!("kind{caller}"), &json!({"caller": caller})).expect("JSON").queue("q")
}

/// Transactions that have written jobs.
const TRANSACTIONS: &str = "select count(distinct xmin::text)::bigint from jobs";

#[tokio::test]
async fn many_callers_share_commits_and_each_is_told_of_its_own_jobs() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let count = 300;
    let answers = callers(engine.clone(), count, |engine, caller| async move {
        let jobs = (0..=caller % 3).map(|_| job_of(caller)).collect();
        engine.enqueue(jobs).await.expect("enqueues")
    })
    .await;
    let kind = "select kind from jobs where id = $1";
    for (caller, answers) in answers.iter().enumerate() {
        assert_eq!(answers.len(), 1 + caller % 3);
        for answer in answers {
            let row = client.query_one(kind, &[&answer.job_id]).await.expect("is there");
            assert_eq!(row.get::<_, String>(0), format!("kind{caller}"));
            assert!(answer.created);
        }
    }
    let transactions: i64 = value(&client, TRANSACTIONS).await;
    assert!(transactions <= 30, "{transactions} commits for {count} calls");
    assert_eq!(waiting(&engine, "enqueue"), 0);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_lone_call_is_sent_as_it_is() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    for caller in 0..5 {
        let answer = engine.enqueue_one(job_of(caller)).await.expect("enqueues");
        assert!(answer.created);
        let transactions: i64 = value(&client, TRANSACTIONS).await;
        assert_eq!(transactions, caller as i64 + 1);
    }
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

/// One of the ways in which a call is refused, and the code and words that it gets.
fn faulty(number: usize) -> (Vec<NewJob>, Code, &'static str) {
    let good = job_of(0);
    let args = |text: &str| NewJob::from_raw("test", raw(text).expect("is there")).queue("q");
    match number % 5 {
        0 => (vec![good, job_of(1).priority(12)], Code::Invalid, "priority of job 2"),
        1 => (vec![job_of(0).queue("no queue")], Code::Invalid, "queue of job 1"),
        2 => (vec![args(r#"{"a":"\u0000"}"#)], Code::Invalid, "escape"),
        3 => (vec![job_of(0).queue("a\0b")], Code::Invalid, "queue of job 1"),
        _ => (vec![NewJob::from_raw("", job_of(0).args)], Code::Invalid, "kind of job 1"),
    }
}

#[tokio::test]
async fn a_client_that_sends_nothing_valid_fails_nobody_else() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let (count, rounds) = (40, 5);
    let answers = callers(engine.clone(), count, move |engine, caller| async move {
        let mut created = 0;
        for round in 0..rounds {
            if caller % 4 == 0 {
                let (jobs, code, words) = faulty(caller / 4 + round);
                let error = engine.enqueue(jobs).await.expect_err("refuses");
                assert_eq!(error.code(), Some(code), "{error}");
                assert!(format!("{error:?}").contains(words), "{words}: {error}");
            } else {
                created += engine.enqueue(vec![job_of(caller)]).await.expect("enqueues").len();
            }
        }
        created
    })
    .await;
    let created: usize = answers.iter().sum();
    assert_eq!(created, 30 * rounds);
    let stored: i64 = value(&client, "select count(*) from jobs").await;
    assert_eq!(stored, created as i64);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_job_that_a_refusal_names_costs_its_neighbours_no_commit() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    // The gate: the first call waits, so that all others travel in one statement.
    let holder = db.connect().await;
    run(&holder, "begin; lock table ready in exclusive mode").await;
    let answers = callers(engine.clone(), 41, |engine, caller| async move {
        let job = if caller % 10 == 5 { job_of(caller).priority(99) } else { job_of(caller) };
        engine.enqueue_one(job).await
    });
    let (answers, ()) = tokio::join!(answers, async {
        wait_until("all wait", SOON, || async { waiting(&engine, "enqueue") == 41 }).await;
        run(&holder, "commit").await;
    });
    for (caller, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), caller % 10 == 5, "{caller}: {answer:?}");
    }
    let transactions: i64 = value(&client, TRANSACTIONS).await;
    assert!(transactions <= 3, "{transactions} commits");
    drop((client, holder));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn repeated_ids_make_one_job_and_other_content_is_refused_alone() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let id = Uuid::now_v7();
    let answers: Vec<Result<Enqueued, Error>> =
        callers(engine.clone(), 60, move |engine, caller| async move {
            let job = match caller % 3 {
                0 => job_of(0).id(id),
                1 => job_of(caller).id(Uuid::from_u128(caller as u128)),
                // Never the first: the lane keeps the order of the calls.
                _ => job_of(caller).id(id),
            };
            engine.enqueue_one(job).await
        })
        .await;
    let mut created = 0;
    for (caller, answer) in answers.into_iter().enumerate() {
        match (caller % 3, answer) {
            (0, Ok(answer)) => {
                assert_eq!(answer.job_id, id);
                created += usize::from(answer.created);
            }
            (1, Ok(answer)) => assert!(answer.created),
            (2, Err(error)) => assert_eq!(error.code(), Some(Code::Conflict)),
            (_, answer) => panic!("{caller}: {answer:?}"),
        }
    }
    assert_eq!(created, 1);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn an_id_that_another_transaction_holds_delays_no_neighbour_for_long() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.lock_timeout = Duration::from_millis(300);
    let (engine, shutdown) = open_with(&db, &settings);
    let (holder, client) = (db.connect().await, db.connect().await);
    let id = Uuid::now_v7();
    run(
        &holder,
        &format!("begin; select enqueue('kind0', '{{\"caller\": 0}}', 'q', id => '{id}')"),
    )
    .await;
    let held = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.enqueue_one(job_of(0).id(id)).await })
    };
    let began = Instant::now();
    let named = callers(engine.clone(), 30, move |engine, caller| async move {
        engine.enqueue_one(job_of(caller).id(Uuid::now_v7())).await.expect("enqueues")
    });
    let fresh = callers(engine.clone(), 30, move |engine, caller| async move {
        engine.enqueue_one(job_of(caller)).await.expect("enqueues");
        began.elapsed()
    });
    let (named, fresh) = tokio::join!(named, fresh);
    // All may have travelled with the held one, then in parts, then alone.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(named.iter().all(|answer| answer.created));
    let slowest = fresh.into_iter().max().expect("some");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    run(&holder, "commit").await;
    match held.await.expect("joins") {
        Ok(answer) => assert!(!answer.created),
        Err(error) => assert!(matches!(error, Error::Locked(_)), "{error}"),
    }
    let stored: i64 = value(&client, "select count(*) from jobs").await;
    assert_eq!(stored, 61);
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_call_too_many_is_refused_at_once_and_the_others_recover() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.lock_timeout = Duration::from_secs(60);
    settings.database.statement_timeout = Duration::from_secs(60);
    let (engine, shutdown) = open_with(&db, &settings);
    let (holder, client) = (db.connect().await, db.connect().await);
    run(&holder, "begin; lock table ready in exclusive mode").await;
    let all = callers(engine.clone(), MOST_WAITING, |engine, _| async move {
        engine.enqueue_one(job_of(0)).await.map(|answer| answer.created)
    });
    let (answers, ()) = tokio::join!(all, async {
        wait_until("all wait", SOON, || async { waiting(&engine, "enqueue") == MOST_WAITING })
            .await;
        let refused = engine.enqueue_one(job_of(1)).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
        // Nobody was answered meanwhile, and the pool is not used up.
        assert_eq!(waiting(&engine, "enqueue"), MOST_WAITING);
        engine.ping().await.expect("a connection is left");
        run(&holder, "commit").await;
    });
    assert!(answers.into_iter().all(|answer| answer.expect("enqueues")));
    let kinds: Vec<String> = column(&client, "select distinct kind from jobs").await;
    assert_eq!(kinds, ["kind0"]);
    let stored: i64 = value(&client, "select count(*) from jobs").await;
    assert_eq!(stored, MOST_WAITING as i64);
    engine.enqueue_one(job_of(1)).await.expect("enqueues again");
    drop((holder, client));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn connections_that_break_are_errors_and_a_repeat_with_ids_doubles_nothing() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where datname = current_database() and application_name = 'rowlock'";
    let (count, each) = (30, 20);
    let all = callers(engine.clone(), count, move |engine, caller| async move {
        let mut errors = 0;
        for _ in 0..each {
            let job = job_of(caller).id(Uuid::now_v7());
            let end = Instant::now() + SOON;
            loop {
                match engine.enqueue_one(job.clone()).await {
                    Ok(_) => break,
                    Err(Error::Unavailable(_)) => errors += 1,
                    Err(error) => panic!("{error}"),
                }
                assert!(Instant::now() < end, "it stays away");
                tokio::task::yield_now().await;
            }
        }
        errors
    });
    let all = tokio::spawn(all);
    let mut cuts: i64 = 0;
    for done in (0..10).map(|part| part * 50) {
        wait_until("some are stored", SOON, || async {
            done <= value::<i64>(&client, "select count(*) from jobs").await
        })
        .await;
        cuts += value::<i64>(&client, cut).await;
    }
    let errors: i32 = all.await.expect("joins").into_iter().sum();
    assert!(0 < cuts && 0 < errors, "{cuts} cut, {errors} errors");
    let stored: i64 = value(&client, "select count(*) from jobs").await;
    assert_eq!(stored, (count * each) as i64);
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn keyed_calls_that_wait_leave_connections_to_everybody_else() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.pool_size = 6;
    settings.database.lock_timeout = Duration::from_secs(20);
    let (engine, shutdown) = open_with(&db, &settings);
    let (holder, client) = (db.connect().await, db.connect().await);
    run(&holder, "begin; select enqueue('k', queue => 'q', unique_key => 'held')").await;
    let keyed = callers(engine.clone(), 20, |engine, caller| async move {
        engine.enqueue_one(job_of(caller).unique_key("held")).await
    });
    let (keyed, ()) = tokio::join!(keyed, async {
        wait_until("as many wait as may", SOON, || async {
            let waiting = "select count(*) from pg_stat_activity
                           where wait_event_type = 'Lock' and datname = current_database()";
            value::<i64>(&client, waiting).await == 2
        })
        .await;
        let free = engine.enqueue_one(job_of(0));
        let free = tokio::time::timeout(Duration::from_secs(5), free).await;
        assert!(free.expect("it waits for nobody").expect("enqueues").created);
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
