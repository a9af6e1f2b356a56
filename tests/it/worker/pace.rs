//! Slots, runners and what is fetched ahead of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rowlock::{Client as Rowlock, Job, NewJob, Outcome};
use tokio::sync::Notify;
use tokio_postgres::Client;

use super::{DEADLINE, enqueue, job, reaches, start, state, worker};
use crate::harness::{Db, wait_until};

type Answer = Result<Outcome, String>;

async fn quick(_: Job) -> Answer {
    Ok(Outcome::Complete)
}

async fn count(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect("query").get(0)
}

async fn until(client: &Client, query: &str, wanted: i64) {
    wait_until(query, DEADLINE, || async { count(client, query).await == wanted }).await;
}

async fn enqueue_all(client: &Client, jobs: &[NewJob]) {
    Rowlock::default().enqueue(client, jobs).await.expect("the jobs are taken");
}

const COMPLETED: &str = "select count(*) from rowlock.jobs where state = 'completed'";
const RUNNING: &str = "select count(*) from rowlock.jobs where state = 'running'";
const DISCARDED: &str = "select count(*) from rowlock.jobs where state = 'discarded'";

#[tokio::test]
async fn what_was_fetched_ahead_goes_back_when_a_long_job_holds_the_slot() {
    let db = Db::new().await;
    let client = db.connect().await;
    let gate = Arc::new(Notify::new());
    let own = gate.clone();
    let slow = move |_: Job| {
        let gate = own.clone();
        async move {
            gate.notified().await;
            Answer::Ok(Outcome::Complete)
        }
    };
    let first = start(worker(&db).queue("default", 1).on("quick", quick).on("slow", slow));
    enqueue_all(&client, &vec![job("quick"); 50]).await;
    until(&client, COMPLETED, 50).await;
    // The pace is that of short jobs, so these come together.
    let mut jobs = vec![job("quick"); 10];
    jobs.push(job("slow").priority(0));
    enqueue_all(&client, &jobs).await;
    let back = "select count(*) from rowlock.executions where outcome = 'released'";
    until(&client, back, 10).await;
    // An idle worker has them, while the slot is still taken.
    let second = start(worker(&db).queue("default", 1).on("quick", quick));
    until(&client, COMPLETED, 60).await;
    gate.notify_one();
    until(&client, COMPLETED, 61).await;
    assert_eq!(count(&client, back).await, 10);
    first.stop().await;
    second.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_waiting_handler_holds_up_none_behind_it() {
    let db = Db::new().await;
    let client = db.connect().await;
    let gate = Arc::new(Notify::new());
    let own = gate.clone();
    let slow = move |_: Job| {
        let gate = own.clone();
        async move {
            gate.notified().await;
            Answer::Ok(Outcome::Complete)
        }
    };
    let mut jobs = vec![job("quick"); 100];
    jobs.push(job("slow").priority(0));
    enqueue_all(&client, &jobs).await;
    let running =
        start(worker(&db).queue("default", 2).prefetch(200).on("quick", quick).on("slow", slow));
    until(&client, COMPLETED, 100).await;
    assert_eq!(count(&client, RUNNING).await, 1);
    gate.notify_one();
    until(&client, COMPLETED, 101).await;
    running.stop().await;
    db.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_filled_and_never_more_than_filled() {
    const SLOTS: usize = 5;
    let db = Db::new().await;
    let client = db.connect().await;
    enqueue_all(&client, &vec![job("counted"); 400]).await;
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (inner_now, inner_most) = (now.clone(), most.clone());
    let counted = move |_: Job| {
        let (now, most) = (inner_now.clone(), inner_most.clone());
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Answer::Ok(Outcome::Complete)
        }
    };
    let running = start(worker(&db).queue("default", SLOTS).on("counted", counted));
    until(&client, COMPLETED, 400).await;
    assert_eq!((now.load(Ordering::SeqCst), most.load(Ordering::SeqCst)), (0, SLOTS));
    running.stop().await;
    db.finish().await;
}

/// A handler that is deaf to its timeout: the runtime gives it up, and its thread goes on until
/// the sender is heard or gone.
fn stuck() -> (Sender<()>, impl Fn(Job) -> Answer + Send + Sync + 'static) {
    let (gate, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let handler = move |_: Job| {
        let _ = blocked.lock().expect("not poisoned").recv();
        Answer::Ok(Outcome::Complete)
    };
    (gate, handler)
}

/// Five quick jobs behind one that is stuck.
async fn enqueue_stuck(client: &Client) {
    let mut jobs = vec![job("quick"); 5];
    jobs.push(job("stuck").priority(0).timeout(Duration::from_millis(50)).max_attempts(1));
    enqueue_all(client, &jobs).await;
}

#[tokio::test]
async fn a_slot_that_a_thread_leaves_late_is_filled_at_once() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (gate, stuck) = stuck();
    enqueue_stuck(&client).await;
    let running = start(
        worker(&db)
            // Beyond the test: neither a poll nor a heartbeat is what fills the slot.
            .poll(Duration::from_secs(300))
            .queue("default", 1)
            .prefetch(5)
            .on("quick", quick)
            .on_blocking("stuck", stuck),
    );
    until(&client, DISCARDED, 1).await;
    assert_eq!(count(&client, RUNNING).await, 5, "they wait for the slot");
    gate.send(()).expect("it still waits");
    until(&client, COMPLETED, 5).await;
    // And the worker still hears of others.
    let id = enqueue(&client, job("quick")).await;
    reaches(&client, id, "completed").await;
    assert_eq!(state(&client, id).await, "completed");
    running.stop().await;
    db.finish().await;
}

/// Makes every acquire that finds a job fail, and counts them: a sequence survives the failure.
const REFUSE: &str = "
    create sequence public.refusals;
    create function public.refuse() returns trigger language plpgsql security definer as $$
    begin
        perform nextval('public.refusals');
        raise exception 'not now';
    end $$;
    create trigger refuse before insert on rowlock.executions execute function public.refuse()";

#[tokio::test]
async fn a_slot_is_filled_while_acquires_fail() {
    let db = Db::new().await;
    let client = db.connect().await;
    let (gate, stuck) = stuck();
    enqueue_stuck(&client).await;
    let running = start(
        worker(&db)
            .poll(Duration::from_secs(2))
            .queue("default", 1)
            .prefetch(10)
            .on("quick", quick)
            .on_blocking("stuck", stuck),
    );
    until(&client, DISCARDED, 1).await;
    assert_eq!(count(&client, RUNNING).await, 5, "they wait for the slot");
    client.batch_execute(REFUSE).await.expect("the trigger stands");
    enqueue(&client, job("quick")).await;
    // The pauses double from 50 ms on: the next try is 0.8 s away at least.
    let refusals = "select last_value from public.refusals";
    until(&client, refusals, 6).await;
    gate.send(()).expect("it still waits");
    until(&client, COMPLETED, 5).await;
    assert_eq!(count(&client, refusals).await, 6, "no acquire was tried meanwhile");
    client.batch_execute("drop trigger refuse on rowlock.executions").await.expect("dropped");
    until(&client, COMPLETED, 6).await;
    running.stop().await;
    db.finish().await;
}

#[test]
fn what_waits_for_a_thread_never_starts_after_its_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let db = Db::new().await;
        let client = db.connect().await;
        let (gate, stuck) = stuck();
        let starts = Arc::<AtomicUsize>::default();
        let own = starts.clone();
        let late = move |_: Job| {
            own.fetch_add(1, Ordering::SeqCst);
            Answer::Ok(Outcome::Complete)
        };
        let running = start(
            worker(&db)
                .queue("default", 3)
                .on_blocking("stuck", stuck)
                .on_blocking("late", late)
                .on_blocking("last", |_: Job| Answer::Ok(Outcome::Complete)),
        );
        let first = enqueue(&client, job("stuck")).await;
        reaches(&client, first, "running").await;
        let late = job("late").timeout(Duration::from_millis(50)).max_attempts(1);
        let late = enqueue(&client, late).await;
        reaches(&client, late, "discarded").await;
        gate.send(()).expect("it still waits");
        // The only thread takes them in their order.
        let last = enqueue(&client, job("last")).await;
        reaches(&client, last, "completed").await;
        assert_eq!(starts.load(Ordering::SeqCst), 0);
        reaches(&client, first, "completed").await;
        running.stop().await;
        db.finish().await;
    });
}
