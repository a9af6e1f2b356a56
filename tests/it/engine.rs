//! Every verb of the engine against the real schema.

mod coalescing;

use std::time::Duration;

use rowlock::config::Settings;
use rowlock::db::Options;
use rowlock::engine::{AcquireCall, Engine, Failure, JobFilter, Snooze};
use rowlock::model::{
    CancelVerdict, Code, FinishVerdict, HeartbeatVerdict, JobState, NewJob, RetryVerdict,
};
use rowlock::shutdown::Shutdown;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{Db, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// An engine on the test's database, and what ends its tasks.
pub(crate) fn open(db: &Db) -> (Engine, Shutdown) {
    let settings = Settings::default();
    open_with(db, &settings)
}

/// The same with other settings.
pub(crate) fn open_with(db: &Db, settings: &Settings) -> (Engine, Shutdown) {
    let shutdown = Shutdown::new();
    let options = Options::new(db.url().as_str().into(), &settings.database);
    let engine = Engine::open(&options, &settings.queue, &shutdown).expect("the url is good");
    (engine, shutdown)
}

/// A job of no consequence.
pub(crate) fn job(queue: &str) -> NewJob {
    NewJob::new("test", &serde_json::json!({"n": 1})).expect("JSON").queue(queue)
}

fn call(worker: Uuid, most: i32) -> AcquireCall {
    AcquireCall { max_jobs: most, ..AcquireCall::new(worker, vec!["q".to_owned()]) }
}

fn raw(text: &str) -> Option<Box<RawValue>> {
    Some(RawValue::from_string(text.to_owned()).expect("JSON"))
}

#[tokio::test]
async fn a_graph_runs_through_every_end() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let worker = Uuid::now_v7();
    let jobs = vec![
        job("q").reference("a").timeout(Duration::from_secs(90)).priority(0),
        job("q").depends_on("a").reference("b").max_attempts(1),
        job("q").priority(1),
        job("q").priority(2),
        job("q").priority(3),
    ];
    let enqueued = engine.enqueue(jobs).await.expect("enqueues");
    assert_eq!(enqueued[1].reference.as_deref(), Some("b"));
    assert!(enqueued.iter().all(|answer| answer.created));
    let taken = engine.acquire(call(worker, 10)).await.expect("acquires");
    let ids: Vec<_> = taken.iter().map(|job| job.execution.job_id).collect();
    assert_eq!(ids, [0, 2, 3, 4].map(|place| enqueued[place].job_id));
    assert_eq!(taken[0].timeout, Some(Duration::from_secs(90)));
    assert_eq!(taken[0].args.get(), r#"{"n": 1}"#);
    let held: Vec<_> = taken.iter().map(|job| job.execution).collect();
    let verdicts =
        engine.heartbeat(worker, held.clone(), Duration::from_secs(60), Some(0)).await.expect("ok");
    assert_eq!(verdicts, [HeartbeatVerdict::Held; 4]);

    let done = vec![(held[0], raw(r#"{"r":1e2}"#))];
    assert_eq!(
        engine.complete(worker, done.clone()).await.expect("ok"),
        [FinishVerdict::Completed]
    );
    assert_eq!(engine.complete(worker, done).await.expect("ok"), [FinishVerdict::Repeated]);
    let failure = Failure {
        execution: held[1],
        error: Some("no\0thing".to_owned()),
        retry_at: None,
        discard: false,
    };
    assert_eq!(engine.fail(worker, vec![failure]).await.expect("ok"), [FinishVerdict::Retrying]);
    let until = OffsetDateTime::now_utc() + Duration::from_secs(60);
    let snooze = Snooze { execution: held[2], until };
    assert_eq!(engine.snooze(worker, vec![snooze]).await.expect("ok"), [FinishVerdict::Snoozed]);
    let released = engine.release(worker, vec![held[3]]).await.expect("ok");
    assert_eq!(released, [FinishVerdict::Released]);

    let details = engine.job(enqueued[0].job_id).await.expect("reads").expect("is there");
    assert_eq!(details.summary.state, JobState::Completed);
    assert_eq!(details.result.expect("has one").get(), r#"{"r": 100}"#);
    assert_eq!(details.children[0].job_id, enqueued[1].job_id);
    let failed = engine.job(held[1].job_id).await.expect("reads").expect("is there");
    assert_eq!(failed.executions[0].error.as_deref(), Some("nothing"));
    assert_eq!(failed.summary.state, JobState::Scheduled);
    let child = engine.job(enqueued[1].job_id).await.expect("reads").expect("is there");
    assert_eq!(child.parents[0].state, Some(JobState::Completed));
    assert_eq!((child.summary.state, child.waits_for), (JobState::Ready, 0));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn operators_verbs_and_reads() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let jobs: Vec<NewJob> = (0..5).map(|_| job("q")).collect();
    let ids: Vec<_> =
        engine.enqueue(jobs).await.expect("enqueues").iter().map(|answer| answer.job_id).collect();
    let cancelled = engine.cancel(vec![ids[0], Uuid::nil()]).await.expect("cancels");
    assert_eq!(cancelled, [CancelVerdict::Cancelled, CancelVerdict::Unknown]);
    let retried = engine.retry(vec![ids[0], ids[1]]).await.expect("retries");
    assert_eq!(retried, [RetryVerdict::Retried, RetryVerdict::Unfinished]);
    assert!(engine.pause_queue("q").await.expect("pauses"));
    assert!(engine.acquire(call(Uuid::now_v7(), 1)).await.expect("acquires").is_empty());
    assert!(engine.resume_queue("q").await.expect("resumes"));
    assert_eq!(engine.acquire(call(Uuid::now_v7(), 1)).await.expect("acquires").len(), 1);
    engine.cancel(vec![ids[4]]).await.expect("cancels");

    let states = JobState::ALL.iter().map(|state| Some(*state)).chain([None]);
    let mut counts = Vec::new();
    for state in states {
        let mut filter = JobFilter { state, queue: Some("q".to_owned()), ..JobFilter::default() };
        let mut found = Vec::new();
        loop {
            let page = engine.jobs(&filter, 2).await.expect("reads");
            found.extend(page.jobs.iter().map(|job| job.id));
            let Some(next) = page.next else { break };
            filter.before = Some(next);
        }
        assert!(found.is_sorted_by(|one, next| one > next), "{found:?}");
        counts.push(found.len());
    }
    // blocked, scheduled, ready, running, completed, cancelled, discarded, all
    assert_eq!(counts, [0, 0, 3, 1, 0, 1, 0, 5]);

    let queues = engine.queues().await.expect("reads");
    assert_eq!(queues[0].depths.iter().map(|depth| depth.jobs).sum::<i64>(), 4);
    assert_eq!(queues[0].aging_interval, Some(Duration::from_secs(60)));
    let workers = engine.workers().await.expect("reads");
    assert_eq!(workers.iter().map(|worker| worker.load).sum::<i64>(), 1);
    let stats = engine.stats().await.expect("reads");
    assert_eq!(stats.latencies[0].executions, 1);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn what_no_column_can_hold_is_refused() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    for args in [r#"{"a":"\u0000"}"#, r#""\ud800""#, "1e999999"] {
        let bad = NewJob::from_raw("test", raw(args).expect("is there"));
        let error = engine.enqueue(vec![bad]).await.expect_err("refuses");
        assert_eq!(error.code(), Some(Code::Invalid), "{args}: {error}");
    }
    let worker = Uuid::now_v7();
    engine.enqueue(vec![job("q"), job("q"), job("q")]).await.expect("enqueues");
    let taken = engine.acquire(call(worker, 3)).await.expect("acquires");
    let results = ["1", r#""\u0000""#, "2"].map(raw);
    let entries = taken.iter().map(|job| job.execution).zip(results).collect();
    let verdicts = engine.complete(worker, entries).await.expect("ok");
    use FinishVerdict::{Completed, ResultTooLarge};
    assert_eq!(verdicts, [Completed, ResultTooLarge, Completed]);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_locked_row_holds_up_nobody_else() {
    let db = Db::new().await;
    let mut settings = Settings::default();
    settings.database.lock_timeout = Duration::from_millis(50);
    let (engine, shutdown) = open_with(&db, &settings);
    let worker = Uuid::now_v7();
    engine.enqueue((0..20).map(|_| job("q")).collect()).await.expect("enqueues");
    let taken = engine.acquire(call(worker, 20)).await.expect("acquires");
    let held = taken[7].execution.job_id;
    let (holder, observer) = (db.connect().await, db.connect().await);
    holder.batch_execute("begin").await.expect("begins");
    let lock = "select from executions where job_id = $1 for update";
    holder.query(lock, &[&held]).await.expect("locks");

    let entries = taken.iter().map(|job| (job.execution, None)).collect();
    let completing = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.complete(worker, entries).await })
    };
    let query = "select count(*) from jobs where state = 'completed'";
    wait_until("the neighbours are completed", SOON, || async {
        observer.query_one(query, &[]).await.expect("reads").get::<_, i64>(0) == 19
    })
    .await;
    assert!(!completing.is_finished());
    holder.batch_execute("rollback").await.expect("lets go");
    let verdicts = completing.await.expect("joins").expect("completes");
    assert_eq!(verdicts, [FinishVerdict::Completed; 20]);
    drop((holder, observer));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn jobs_of_a_caller_who_went_away_are_given_back() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    engine.enqueue(vec![job("q")]).await.expect("enqueues");
    let (holder, observer) = (db.connect().await, db.connect().await);
    holder.batch_execute("begin; lock table grants").await.expect("locks");
    let caller = {
        let engine = engine.clone();
        tokio::spawn(async move { engine.acquire(call(Uuid::now_v7(), 1)).await })
    };
    let waiting = "select count(*) from pg_stat_activity
                   where wait_event_type = 'Lock' and datname = current_database()";
    wait_until("the acquire is under way", SOON, || async {
        observer.query_one(waiting, &[]).await.expect("reads").get::<_, i64>(0) == 1
    })
    .await;
    caller.abort();
    holder.batch_execute("rollback").await.expect("lets go");
    let query = "select count(*) from executions where outcome = 'released'";
    wait_until("the job is given back", SOON, || async {
        observer.query_one(query, &[]).await.expect("reads").get::<_, i64>(0) == 1
    })
    .await;
    drop((holder, observer));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn waiting_for_a_job_ends_when_it_does() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let stop = CancellationToken::new();
    let id = engine.enqueue(vec![job("q")]).await.expect("enqueues")[0].job_id;
    let early = engine.job_wait(id, Duration::from_millis(20), &stop).await.expect("reads");
    assert_eq!(early.expect("is there").summary.state, JobState::Ready);
    let waiter = {
        let (engine, stop) = (engine.clone(), stop.clone());
        tokio::spawn(async move { engine.job_wait(id, SOON, &stop).await })
    };
    engine.cancel(vec![id]).await.expect("cancels");
    let ended = waiter.await.expect("joins").expect("reads").expect("is there");
    assert_eq!(ended.summary.state, JobState::Cancelled);
    assert!(engine.job_wait(Uuid::nil(), SOON, &stop).await.expect("reads").is_none());
    shutdown.drain(SOON).await;
    db.finish().await;
}
