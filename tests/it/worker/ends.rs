//! Coming down, and what was lost on the way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rowlock::shutdown::Shutdown;
use rowlock::worker::{Error, Worker};
use rowlock::{Job, Outcome};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{DEADLINE, ended, enqueue, job, reaches, start, state, worker};
use crate::harness::sql::{run, value};
use crate::harness::{Db, wait_until};

type Answer = Result<Outcome, String>;

fn gated(worker: Worker, gate: &Arc<Notify>) -> Worker {
    let gate = gate.clone();
    worker.on("gated", move |_: Job| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Answer::Ok(Outcome::Complete)
        }
    })
}

#[tokio::test]
async fn a_drain_gives_back_what_was_not_started_and_waits_for_what_runs() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(enqueue(&client, job("gated")).await);
    }
    let gate = Arc::new(Notify::new());
    let running = start(gated(worker(&db), &gate).queue("default", 1).prefetch(2));
    let acquired = "select count(*) from rowlock.jobs where state = 'running'";
    wait_until("a slot and the prefetch are full", DEADLINE, || async {
        client.query_one(acquired, &[]).await.expect("query").get::<_, i64>(0) == 3
    })
    .await;
    running.shutdown.stop();
    wait_until("what was not started is back", DEADLINE, || async {
        client.query_one(acquired, &[]).await.expect("query").get::<_, i64>(0) == 1
    })
    .await;
    gate.notify_one();
    running.stop().await;
    let mut states = Vec::new();
    for id in ids {
        states.push(state(&client, id).await);
    }
    states.sort();
    assert_eq!(states, ["completed", "ready", "ready", "ready", "ready"]);
    let query = "select count(*) from rowlock.executions where outcome = 'released'";
    assert_eq!(client.query_one(query, &[]).await.expect("query").get::<_, i64>(0), 2);
    db.finish().await;
}

#[tokio::test]
async fn what_does_not_end_within_the_drain_time_is_given_back() {
    let db = Db::new().await;
    let client = db.connect().await;
    let gate = Arc::new(Notify::new());
    let drain = Duration::from_millis(50);
    let running = start(gated(worker(&db), &gate).queue("default", 1).drain(drain));
    let id = enqueue(&client, job("gated")).await;
    reaches(&client, id, "running").await;
    running.stop().await;
    assert_eq!(state(&client, id).await, "ready");
    assert_eq!(ended(&client, id, 1).await.0, "released");
    db.finish().await;
}

#[tokio::test]
async fn what_an_unheard_reply_granted_is_given_back() {
    let db = Db::new().await;
    let client = db.connect().await;
    let gate = Arc::new(Notify::new());
    // The first heartbeat comes after a third of it, and a busy machine may be late.
    let lease = Duration::from_secs(4);
    let running = start(gated(worker(&db), &gate).queue("default", 1).lease(lease));
    let held = enqueue(&client, job("gated")).await;
    reaches(&client, held, "running").await;
    let query = "select id from rowlock.workers";
    let worker: Uuid = client.query_one(query, &[]).await.expect("one worker").get(0);
    let unheard = enqueue(&client, job("gated").queue("elsewhere")).await;
    // As if this were the worker's own first call, whose reply went astray.
    let acquire = "select job_id from rowlock.acquire($1, '{elsewhere}', call_number => 1)";
    let granted: Uuid = client.query_one(acquire, &[&worker]).await.expect("granted").get(0);
    assert_eq!(granted, unheard);
    assert_eq!(ended(&client, unheard, 1).await.0, "released");
    reaches(&client, unheard, "ready").await;
    assert_eq!(state(&client, held).await, "running");
    gate.notify_one();
    reaches(&client, held, "completed").await;
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn finishes_are_told_again_when_the_connections_come_back() {
    let db = Db::new().await;
    let client = db.connect().await;
    let gate = Arc::new(Notify::new());
    let running = start(gated(worker(&db), &gate).queue("default", 4));
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(enqueue(&client, job("gated")).await);
    }
    for id in &ids {
        reaches(&client, *id, "running").await;
    }
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
               where application_name = 'rowlock' and datname = current_database()";
    let cut: i64 = client.query_one(cut, &[]).await.expect("cut").get(0);
    assert!(1 <= cut);
    gate.notify_waiters();
    for id in ids {
        reaches(&client, id, "completed").await;
        assert_eq!(ended(&client, id, 1).await.0, "completed");
    }
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_job_that_others_hold_keeps_no_other_from_being_finished() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut holder = db.connect().await;
    let gate = Arc::new(Notify::new());
    let running = start(gated(worker(&db), &gate).queue("default", 4));
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(enqueue(&client, job("gated")).await);
    }
    for id in &ids {
        reaches(&client, *id, "running").await;
    }
    let held = ids.remove(1);
    let transaction = holder.transaction().await.expect("begin");
    let hold = "select from rowlock.jobs where id = $1 for no key update";
    transaction.query_one(hold, &[&held]).await.expect("hold");
    gate.notify_waiters();
    for id in ids {
        reaches(&client, id, "completed").await;
    }
    assert_eq!(state(&client, held).await, "running");
    transaction.rollback().await.expect("rollback");
    reaches(&client, held, "completed").await;
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn many_jobs_that_others_hold_keep_no_other_from_being_finished() {
    const HELD: usize = 60;
    let db = Db::new().await;
    let client = db.connect().await;
    let mut holder = db.connect().await;
    let gate = CancellationToken::new();
    let own = gate.clone();
    let gated = move |_: Job| {
        let gate = own.clone();
        async move {
            gate.cancelled().await;
            Answer::Ok(Outcome::Complete)
        }
    };
    let fine = |_: Job| async { Answer::Ok(Outcome::Complete) };
    let running = start(worker(&db).queue("default", 100).on("gated", gated).on("fine", fine));
    let mut held = Vec::new();
    for _ in 0..HELD {
        held.push(enqueue(&client, job("gated")).await);
    }
    for id in &held {
        reaches(&client, *id, "running").await;
    }
    let transaction = holder.transaction().await.expect("begin");
    let hold = "select from rowlock.jobs where id = any($1) for no key update";
    transaction.query(hold, &[&held]).await.expect("hold");
    gate.cancel();
    let all = async {
        for _ in 0..10 {
            let id = enqueue(&client, job("fine")).await;
            reaches(&client, id, "completed").await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("others are finished meanwhile");
    assert_eq!(state(&client, held[0]).await, "running");
    transaction.rollback().await.expect("rollback");
    for id in held {
        reaches(&client, id, "completed").await;
    }
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn many_jobs_run_once_each_on_two_workers() {
    let db = Db::new().await;
    let client = db.connect().await;
    let runs = Arc::new(std::sync::Mutex::new(HashMap::new()));
    let mut workers = Vec::new();
    for _ in 0..2 {
        let runs = runs.clone();
        let count = move |job: Job| {
            *runs.lock().expect("no panic").entry(job.id()).or_insert(0) += 1;
            async { Answer::Ok(Outcome::Complete) }
        };
        workers.push(start(worker(&db).queue("default", 20).prefetch(20).on("quick", count)));
    }
    let jobs = vec![job("quick"); 2000];
    let answers = rowlock::Client::default().enqueue(&client, &jobs).await.expect("enqueue");
    let done = "select count(*) from rowlock.jobs where state = 'completed' and attempt = 1";
    wait_until("all are completed", DEADLINE, || async {
        client.query_one(done, &[]).await.expect("query").get::<_, i64>(0) == 2000
    })
    .await;
    for running in workers {
        running.stop().await;
    }
    let runs = runs.lock().expect("no panic").clone();
    assert!(answers.iter().all(|answer| runs.get(&answer.job_id) == Some(&1)));
    db.finish().await;
}

#[tokio::test]
async fn a_worker_says_what_it_lacks() {
    let db = Db::new().await;
    let shutdown = Shutdown::new();
    let fine = |_: Job| async { Answer::Ok(Outcome::Complete) };
    let none = worker(&db).on("x", fine).run(&shutdown).await;
    assert!(matches!(none, Err(Error::NoQueue)));
    let none = worker(&db).queue("default", 1).run(&shutdown).await;
    assert!(matches!(none, Err(Error::NoHandler)));
    let none = worker(&db).queue("default", 0).on("x", fine).run(&shutdown).await;
    assert!(matches!(none, Err(Error::NoSlots(_))));
    let many = worker(&db).queue("a", 3_000).queue("b", 3_001).prefetch(1_000).on("x", fine);
    assert!(matches!(many.run(&shutdown).await, Err(Error::TooManySlots(8_001))));
    let bad = worker(&db).queue("not a name", 1).on("x", fine).run(&shutdown).await;
    assert!(matches!(bad, Err(Error::Database(_))));
    shutdown.drain(DEADLINE).await;
    db.finish().await;
}

#[tokio::test]
async fn an_outcome_is_kept_while_the_database_fails_in_a_way_that_nobody_expects() {
    let db = Db::new().await;
    let client = db.connect().await;
    let id = enqueue(&client, job("gated")).await;
    let gate = Arc::new(Notify::new());
    let running = start(gated(worker(&db), &gate).queue("default", 1));
    reaches(&client, id, "running").await;
    // As a migration that replaces functions, for longer.
    run(&client, "alter function complete(uuid, uuid[], int[], uuid[], jsonb[]) rename to away")
        .await;
    gate.notify_one();
    let tried = "select count(*) > 0 from pg_stat_activity
                 where datname = current_database() and query like '%complete%'
                 and pid <> pg_backend_pid() and state = 'idle'";
    wait_until("it was refused", DEADLINE, || async { value(&client, tried).await }).await;
    run(&client, "alter function away(uuid, uuid[], int[], uuid[], jsonb[]) rename to complete")
        .await;
    reaches(&client, id, "completed").await;
    assert_eq!(ended(&client, id, 1).await, ("completed".to_owned(), None));
    running.stop().await;
    db.finish().await;
}
