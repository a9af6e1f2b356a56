//! Handlers that are told to stop: time-outs, cancels, lost leases.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rowlock::worker::{StopReason, Worker};
use rowlock::{Job, Outcome};
use tokio::sync::Notify;
use tokio_postgres::Client;

use super::{DEADLINE, ended, enqueue, job, reaches, start, state, worker};
use crate::harness::{Db, wait_until};

type Answer = Result<Outcome, String>;

/// Stop reasons in the order in which handlers heard them.
type Reasons = Arc<Mutex<Vec<Option<StopReason>>>>;

/// A first attempt that runs until it is told to stop, and then says why.
fn until_stopped(worker: Worker, reasons: &Reasons) -> Worker {
    let reasons = reasons.clone();
    worker.on("endless", move |job: Job| {
        let reasons = reasons.clone();
        async move {
            if job.attempt() == 1 {
                job.stopping().cancelled().await;
                reasons.lock().expect("no panic").push(job.stop_reason());
                return Answer::Err("stopped".to_owned());
            }
            Ok(Outcome::Complete)
        }
    })
}

async fn maintain(client: &Client) {
    client.execute("select rowlock.maintain()", &[]).await.expect("maintain runs");
}

async fn end_leases(client: &Client) {
    let expire = "update rowlock.workers set lease_ends_at = clock_timestamp() - interval '1 s'";
    client.execute(expire, &[]).await.expect("leases end");
    maintain(client).await;
}

#[tokio::test]
async fn a_timeout_fails_the_execution_in_both_sorts_of_handler() {
    let db = Db::new().await;
    let client = db.connect().await;
    let reasons = Reasons::default();
    let running = start(
        until_stopped(worker(&db), &reasons)
            .queue("default", 4)
            .on("deaf", |_: Job| async {
                std::future::pending::<()>().await;
                Answer::Ok(Outcome::Complete)
            })
            .on_blocking("blocking", |job: Job| {
                while job.stop_reason().is_none() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Answer::Ok(Outcome::Complete)
            }),
    );
    let mut ids = Vec::new();
    for kind in ["endless", "deaf", "blocking"] {
        ids.push(enqueue(&client, job(kind).timeout(Duration::from_millis(100))).await);
    }
    for id in ids {
        let words = Some("timed out after 100ms".to_owned());
        assert_eq!(ended(&client, id, 1).await, ("failed".to_owned(), words));
        reaches(&client, id, "scheduled").await;
    }
    assert_eq!(*reasons.lock().expect("no panic"), [Some(StopReason::TimedOut)]);
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_handler_and_ends_the_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let reasons = Reasons::default();
    let running = start(
        until_stopped(worker(&db), &reasons).lease(Duration::from_secs(1)).queue("default", 2).on(
            "deaf",
            |_: Job| async {
                std::future::pending::<()>().await;
                Answer::Ok(Outcome::Complete)
            },
        ),
    );
    let ids = [enqueue(&client, job("endless")).await, enqueue(&client, job("deaf")).await];
    for id in ids {
        reaches(&client, id, "running").await;
    }
    client.execute("select rowlock.cancel($1)", &[&&ids[..]]).await.expect("cancel");
    for id in ids {
        reaches(&client, id, "cancelled").await;
    }
    assert_eq!(*reasons.lock().expect("no panic"), [Some(StopReason::Cancelled)]);
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_lease_taken_away_stops_the_handler_and_the_job_runs_again() {
    let db = Db::new().await;
    let client = db.connect().await;
    let reasons = Reasons::default();
    let running = start(
        until_stopped(worker(&db), &reasons).lease(Duration::from_secs(1)).queue("default", 1),
    );
    let id = enqueue(&client, job("endless")).await;
    reaches(&client, id, "running").await;
    end_leases(&client).await;
    reaches(&client, id, "completed").await;
    assert_eq!(*reasons.lock().expect("no panic"), [Some(StopReason::Lost)]);
    assert_eq!(ended(&client, id, 1).await.0, "lost");
    assert_eq!(ended(&client, id, 2).await.0, "completed");
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_lease_ends_by_the_workers_own_clock_while_the_database_is_silent() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    let observer = db.connect().await;
    let reasons = Reasons::default();
    let running = start(
        until_stopped(worker(&db), &reasons).lease(Duration::from_secs(1)).queue("default", 1),
    );
    let id = enqueue(&client, job("endless")).await;
    reaches(&client, id, "running").await;
    // Heartbeats wait for this lock and time out.
    let transaction = client.transaction().await.expect("begin");
    transaction.batch_execute("lock table rowlock.workers in share mode").await.expect("lock");
    wait_until("the handler was stopped", DEADLINE, || async {
        !reasons.lock().expect("no panic").is_empty()
    })
    .await;
    assert_eq!(*reasons.lock().expect("no panic"), [Some(StopReason::Lost)]);
    transaction.rollback().await.expect("rollback");
    reaches(&observer, id, "completed").await;
    // The database's own lease ends a little later: a heartbeat before that gives the job back.
    let (outcome, _) = ended(&observer, id, 1).await;
    assert!(matches!(outcome.as_str(), "lost" | "released"), "{outcome}");
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_stale_completion_is_refused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    // A long lease: no heartbeat tells the handler before it completes.
    let running = start(worker(&db).lease(Duration::from_secs(600)).queue("default", 1).on(
        "slow",
        move |job: Job| {
            let gate = opened.clone();
            async move {
                if job.attempt() == 1 {
                    gate.notified().await;
                }
                Outcome::complete_with(&job.attempt())
            }
        },
    ));
    let id = enqueue(&client, job("slow")).await;
    reaches(&client, id, "running").await;
    end_leases(&client).await;
    reaches(&client, id, "ready").await;
    gate.notify_one();
    reaches(&client, id, "completed").await;
    assert_eq!(ended(&client, id, 1).await.0, "lost");
    let (outcome, _, result) = super::execution(&client, id, 2).await;
    assert_eq!((outcome.as_deref(), result), (Some("completed"), Some(2.into())));
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn heartbeats_go_on_while_every_other_call_waits() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    let observer = db.connect().await;
    let reasons = Reasons::default();
    let running = start(
        until_stopped(worker(&db), &reasons).lease(Duration::from_secs(1)).queue("default", 2),
    );
    let id = enqueue(&client, job("endless")).await;
    reaches(&client, id, "running").await;
    // Acquires wait for this lock again and again.
    let transaction = client.transaction().await.expect("begin");
    transaction
        .batch_execute("lock table rowlock.ready in access exclusive mode")
        .await
        .expect("lock");
    let beats = "select clock_timestamp() - started_at > interval '2 s'
                 and lease_ends_at > clock_timestamp() from rowlock.workers";
    wait_until("the lease has been extended twice over", DEADLINE, || async {
        observer.query_one(beats, &[]).await.expect("query").get(0)
    })
    .await;
    assert!(reasons.lock().expect("no panic").is_empty());
    transaction.rollback().await.expect("rollback");
    observer.execute("select rowlock.cancel($1)", &[&vec![id]]).await.expect("cancel");
    reaches(&observer, id, "cancelled").await;
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn the_handlers_of_a_run_that_was_dropped_stop_when_its_lease_ends() {
    let db = Db::new().await;
    let client = db.connect().await;
    let reasons = Reasons::default();
    let running = start(
        until_stopped(worker(&db), &reasons).lease(Duration::from_secs(1)).queue("default", 1),
    );
    let id = enqueue(&client, job("endless")).await;
    reaches(&client, id, "running").await;
    running.task.abort();
    wait_until("the handler was stopped", DEADLINE, || async {
        !reasons.lock().expect("no panic").is_empty()
    })
    .await;
    assert_eq!(*reasons.lock().expect("no panic"), [Some(StopReason::Lost)]);
    wait_until("the lease has ended there too", DEADLINE, || async {
        maintain(&client).await;
        state(&client, id).await == "ready"
    })
    .await;
    assert_eq!(ended(&client, id, 1).await.0, "lost");
    assert!(running.shutdown.drain(DEADLINE).await, "its tasks end");
    db.finish().await;
}
