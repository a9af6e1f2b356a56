//! Every verb of the engine, and a client's own transaction, with commits and answers lost.

use std::time::Duration;

use futures_util::future::join_all;
use rowlock::engine::{AcquireCall, Engine, Error, Failure};
use rowlock::model::{CancelVerdict, Execution, FinishVerdict, HeartbeatVerdict, NewWorkflow};
use rowlock::{Client as Rowlock, NewJob};
use uuid::Uuid;

use super::{CALL_TIMEOUT, LOSSES, Scene};
use crate::engine::job;
use crate::harness::sql::{acquire, column, value};
use crate::proxy::{Fault, Mode, When};

const LEASE: Duration = Duration::from_secs(60);

fn named() -> NewJob {
    job("q").id(Uuid::now_v7())
}

async fn acquired(engine: &Engine, worker: Uuid) -> Execution {
    engine.enqueue_one(job("q")).await.expect("enqueues");
    let call = AcquireCall { lease: LEASE, ..AcquireCall::new(worker, vec!["q".to_owned()]) };
    engine.acquire(call).await.expect("acquires").remove(0).execution
}

#[tokio::test]
async fn jobs_without_ids_are_in_doubt() {
    let scene = Scene::new().await;
    let (engine, shutdown) = scene.engine();
    let mut stored = 0;
    for (when, loss) in LOSSES {
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let error = engine.enqueue_one(job("q")).await.expect_err("nobody knows");
        assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
        stored += i64::from(when == When::After);
        assert_eq!(scene.jobs().await, stored, "{when:?} {loss:?}");
    }
    shutdown.drain(CALL_TIMEOUT).await;
    scene.end().await;
}

#[tokio::test]
async fn jobs_with_ids_are_enqueued_once_whatever_is_lost() {
    let scene = Scene::new().await;
    let (engine, shutdown) = scene.engine();
    let mut stored = 0;
    for (when, loss) in LOSSES {
        let before = scene.proxy.struck();
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let id = Uuid::now_v7();
        let answer = engine.enqueue_one(job("q").id(id)).await.expect("known in the end");
        assert_eq!((answer.job_id, answer.created), (id, when == When::Before));
        // Many that travel together: their statement is lost as a whole.
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let many: Vec<NewJob> = (0..40).map(|_| named()).collect();
        let ids: Vec<Uuid> = many.iter().map(|job| job.id.expect("given")).collect();
        let answers = join_all(many.into_iter().map(|job| engine.enqueue_one(job))).await;
        let found: Vec<Uuid> = answers.into_iter().map(|it| it.expect("known").job_id).collect();
        assert_eq!(found, ids);
        stored += 41;
        assert_eq!(scene.jobs().await, stored, "{when:?} {loss:?}");
        // A graph, and a workflow.
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let graph = vec![named().reference("a"), named().depends_on("a")];
        engine.enqueue(graph).await.expect("known");
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let workflow = NewWorkflow::new("w");
        let graph = vec![named().reference("a"), named().depends_on("a")];
        let answer = engine.enqueue_workflow(&workflow, graph).await.expect("known");
        assert_eq!(answer.id, Some(workflow.id));
        stored += 4;
        assert_eq!(scene.jobs().await, stored, "{when:?} {loss:?}");
        assert_eq!(scene.proxy.struck() - before, 4);
    }
    shutdown.drain(CALL_TIMEOUT).await;
    scene.end().await;
}

#[tokio::test]
async fn what_an_acquire_took_whose_answer_was_lost_comes_back_with_the_next_heartbeat() {
    let scene = Scene::new().await;
    let (engine, shutdown) = scene.engine();
    for (number, (when, loss)) in (1..).zip(LOSSES) {
        let worker = Uuid::now_v7();
        engine.enqueue_one(job("q")).await.expect("enqueues");
        let queues = vec!["q".to_owned()];
        let call = AcquireCall { lease: LEASE, ..AcquireCall::new(worker, queues) };
        let first = AcquireCall { call_number: Some(number), ..call.clone() };
        scene.proxy.arm(Fault::once(when, loss, "acquire"));
        let error = engine.acquire(first).await.expect_err("nobody knows");
        assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
        let ready = "select count(*) from jobs where state = 'ready'";
        let taken = when == When::After;
        assert_eq!(value::<i64>(&scene.direct, ready).await, i64::from(!taken));
        engine.heartbeat(worker, Vec::new(), LEASE, Some(number)).await.expect("beats");
        let again = AcquireCall { call_number: Some(number + 1), ..call };
        let execution = engine.acquire(again).await.expect("acquires").remove(0).execution;
        assert_eq!(execution.attempt, if taken { 2 } else { 1 });
        let verdicts = engine.complete(worker, vec![(execution, None)]).await.expect("ends");
        assert_eq!(verdicts, [FinishVerdict::Completed]);
    }
    // A release is no failure.
    let failures: i64 = value(&scene.direct, "select sum(failures) from jobs").await;
    assert_eq!(failures, 0);
    shutdown.drain(CALL_TIMEOUT).await;
    scene.end().await;
}

#[tokio::test]
async fn ends_are_said_again_and_come_out_the_same() {
    let scene = Scene::new().await;
    let (engine, shutdown) = scene.engine();
    let worker = Uuid::now_v7();
    for (when, loss) in LOSSES {
        let own = |first: FinishVerdict| match when {
            When::Before => first,
            When::After => FinishVerdict::Repeated,
        };
        let execution = acquired(&engine, worker).await;
        scene.proxy.arm(Fault::once(when, loss, "complete"));
        let verdicts = engine.complete(worker, vec![(execution, None)]).await.expect("known");
        assert_eq!(verdicts, [own(FinishVerdict::Completed)], "{when:?} {loss:?}");
        assert_eq!(scene.state(execution.job_id).await, "completed");

        let execution = acquired(&engine, worker).await;
        let failure = Failure { execution, error: None, retry_at: None, discard: true };
        scene.proxy.arm(Fault::once(when, loss, "fail("));
        let verdicts = engine.fail(worker, vec![failure]).await.expect("known");
        assert_eq!(verdicts, [own(FinishVerdict::Discarded)], "{when:?} {loss:?}");
        assert_eq!(scene.state(execution.job_id).await, "discarded");

        // Of many that travel together the answer is lost at once.
        let held = join_all((0..5).map(|_| acquired(&engine, worker))).await;
        scene.proxy.arm(Fault::once(when, loss, "complete"));
        let ends = held.iter().map(|one| engine.complete(worker, vec![(*one, None)]));
        for verdicts in join_all(ends).await {
            let verdict = verdicts.expect("known")[0];
            let good = [FinishVerdict::Completed, FinishVerdict::Repeated];
            assert!(good.contains(&verdict), "{when:?} {loss:?}: {verdict:?}");
        }
    }
    let ended = "select count(*) from executions group by job_id having count(*) <> 1";
    assert!(column::<i64>(&scene.direct, ended).await.is_empty(), "each ran once");
    shutdown.drain(CALL_TIMEOUT).await;
    scene.end().await;
}

#[tokio::test]
async fn heartbeats_and_cancels_are_said_again() {
    let scene = Scene::new().await;
    let (engine, shutdown) = scene.engine();
    let worker = Uuid::now_v7();
    for (when, loss) in LOSSES {
        let execution = acquired(&engine, worker).await;
        scene.proxy.arm(Fault::once(when, loss, "heartbeat"));
        let verdicts = engine.heartbeat(worker, vec![execution], LEASE, None).await.expect("known");
        assert_eq!(verdicts, [HeartbeatVerdict::Held], "{when:?} {loss:?}");
        let waiting = engine.enqueue_one(job("other")).await.expect("enqueues").job_id;
        scene.proxy.arm(Fault::once(when, loss, "cancel("));
        let verdicts = engine.cancel(vec![waiting, execution.job_id]).await.expect("known");
        assert_eq!(verdicts, [CancelVerdict::Cancelled, CancelVerdict::Cancelling]);
        // What must not be done twice is not: a job may have run and failed again in between.
        scene.proxy.arm(Fault::once(when, loss, "retry("));
        let error = engine.retry(vec![waiting]).await.expect_err("nobody knows");
        assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
        let expected = if when == When::After { "ready" } else { "cancelled" };
        assert_eq!(scene.state(waiting).await, expected);
    }
    shutdown.drain(CALL_TIMEOUT).await;
    scene.end().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_not_in_doubt() {
    let scene = Scene::new().await;
    let (engine, shutdown) = scene.engine();
    scene.proxy.set(Mode::Refuse);
    let error = engine.enqueue_one(job("q")).await.expect_err("nobody listens");
    assert!(matches!(error, Error::Unavailable(_)), "{}", error.chain());
    scene.proxy.set(Mode::Pass);
    engine.enqueue_one(job("q")).await.expect("enqueues");
    assert_eq!(scene.jobs().await, 1);
    shutdown.drain(CALL_TIMEOUT).await;
    scene.end().await;
}

async fn connect(scene: &Scene) -> tokio_postgres::Client {
    let url = scene.proxy.url(&scene.db.url());
    rowlock::db::connect(&url.as_str().into()).await.expect("connects")
}

#[tokio::test]
async fn a_transaction_of_the_callers_own_is_repeated_with_the_same_ids() {
    let scene = Scene::new().await;
    let rowlock = Rowlock::default().call_timeout(CALL_TIMEOUT);
    let mut stored = 0;
    for (when, loss) in LOSSES {
        let job = named();
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            if tries == 1 {
                scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
            }
            let mut client = connect(&scene).await;
            let transaction = client.transaction().await.expect("begins");
            let answer = rowlock.enqueue_one(&transaction, job.clone()).await.expect("enqueues");
            let commit = tokio::time::timeout(CALL_TIMEOUT, transaction.commit());
            if commit.await.is_ok_and(|done| done.is_ok()) {
                break answer;
            }
            // Until the server knows that nobody is there, the session holds the id.
            scene.proxy.cut_all();
        };
        assert_eq!((tries, answer.created), (2, when == When::Before), "{when:?} {loss:?}");
        stored += 1;
        assert_eq!(scene.jobs().await, stored);
        // Without a transaction of its own, the call itself says so.
        let client = connect(&scene).await;
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let job = named();
        let error = rowlock.enqueue_one(&client, job.clone()).await.expect_err("nobody knows");
        assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
        drop(client);
        rowlock.enqueue_one(&connect(&scene).await, job).await.expect("enqueues");
        stored += 1;
        assert_eq!(scene.jobs().await, stored);
    }
    scene.end().await;
}

#[tokio::test]
async fn plain_sql_is_repeated_by_id_by_unique_key_and_by_token() {
    let scene = Scene::new().await;
    for (when, loss) in LOSSES {
        let calls = [
            format!(
                "select * from enqueue_many('[{{\"kind\": \"k\", \"id\": \"{}\"}}]')",
                Uuid::now_v7()
            ),
            format!("select enqueue('k', unique_key => '{}')", Uuid::now_v7()),
        ];
        for call in calls {
            let before = scene.jobs().await;
            scene.proxy.arm(Fault::once(when, loss, "enqueue"));
            let client = connect(&scene).await;
            let lost = tokio::time::timeout(CALL_TIMEOUT, client.batch_execute(&call)).await;
            assert!(!lost.is_ok_and(|answer| answer.is_ok()), "{when:?} {loss:?}");
            connect(&scene).await.batch_execute(&call).await.expect("enqueues");
            assert_eq!(scene.jobs().await, before + 1, "{call}");
        }
        let held = acquire(&scene.direct, Uuid::now_v7(), 1).await;
        let end = crate::harness::sql::finishing("complete", &held, "");
        scene.proxy.arm(Fault::once(when, loss, "complete"));
        let client = connect(&scene).await;
        let lost = tokio::time::timeout(CALL_TIMEOUT, client.batch_execute(&end)).await;
        assert!(!lost.is_ok_and(|answer| answer.is_ok()), "{when:?} {loss:?}");
        let verdict: String = value(&connect(&scene).await, &end).await;
        assert_eq!(verdict, if when == When::After { "repeated" } else { "completed" });
    }
    scene.end().await;
}
