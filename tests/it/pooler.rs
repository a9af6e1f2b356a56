//! Everything through a PgBouncer in transaction mode, which gives each transaction any session.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rowlock::config::{Pooler, Settings};
use rowlock::db::{Options, Pool};
use rowlock::shutdown::Shutdown;
use rowlock::worker::{Job, Outcome, Worker};
use rowlock::{Client as Rowlock, NewJob, maintenance};
use serde_json::{Value, json};
use tokio_postgres::Client;

use crate::harness::{Db, PgBouncer, Service, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);
const JOBS: usize = 1_000;
/// Fewer than anything here has connections.
const SESSIONS: u32 = 3;

fn options(url: &str) -> Options {
    let mut options = Options::new(url.into(), &Settings::default().database);
    options.settings.pooler = Pooler::Transaction;
    options
}

async fn count(client: &Client, state: &str) -> i64 {
    let query = "select count(*) from rowlock.jobs where state = $1";
    client.query_one(query, &[&state]).await.expect("count").get(0)
}

async fn enqueue_all(client: &Client, kinds: &[&str]) {
    let job = |n| NewJob::new(kinds[n % kinds.len()], &n).expect("JSON");
    let jobs: Vec<NewJob> = (0..JOBS).map(job).collect();
    let rowlock = Rowlock::default();
    // Several calls, each of which may get another session.
    for part in jobs.chunks(JOBS / 10) {
        let answers = rowlock.enqueue(client, part).await.expect("the jobs are taken");
        assert!(answers.iter().all(|answer| answer.created));
    }
}

async fn connect(url: &str) -> Client {
    rowlock::db::connect(&url.into()).await.expect("connects")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_maintenance_run_through_a_transaction_pooler() {
    let db = Db::new().await;
    let pgbouncer = PgBouncer::start(&db.url(), SESSIONS).await;
    let url = pgbouncer.url(&db.url());
    let direct = db.connect().await;
    let through = connect(&url).await;
    enqueue_all(&through, &["done", "once"]).await;

    let shutdown = Shutdown::new();
    let pool = Pool::new(&options(&url)).expect("the url is good");
    maintenance::start(&pool, Duration::from_millis(100), &shutdown);
    let ran = Arc::<Mutex<Vec<i64>>>::default();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let seen = ran.clone();
        let worker = Worker::with_options(options(&url))
            .queue("default", 20)
            // Three heartbeats at least come and go.
            .lease(Duration::from_secs(1))
            .poll(Duration::from_millis(20))
            .on("done", move |job: Job| {
                let seen = seen.clone();
                async move {
                    seen.lock().expect("not poisoned").push(job.args().expect("a number"));
                    Ok::<_, String>(Outcome::Complete)
                }
            })
            .on("once", |job: Job| async move {
                // Put off the first time, so that promotion has its part.
                if job.attempt() == 1 {
                    return Ok(Outcome::Snooze(Duration::from_millis(1)));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, String>(Outcome::complete_with(&job.id()).expect("JSON"))
            });
        let own = shutdown.clone();
        workers.push(tokio::spawn(async move { worker.run(&own).await }));
    }
    wait_until("all jobs have run", DEADLINE, || async {
        count(&direct, "completed").await == i64::try_from(JOBS).expect("fits")
    })
    .await;
    shutdown.stop();
    for worker in workers {
        worker.await.expect("no panic").expect("the worker ends well");
    }
    assert!(shutdown.drain(DEADLINE).await, "all tasks end");

    let ran = ran.lock().expect("not poisoned").clone();
    assert_eq!(ran.len(), JOBS / 2, "each runs once");
    assert_eq!(ran.iter().collect::<HashSet<_>>().len(), JOBS / 2);
    let lost =
        "select count(*) from rowlock.executions where outcome not in ('completed', 'snoozed')";
    assert_eq!(direct.query_one(lost, &[]).await.expect("query").get::<_, i64>(0), 0);
    drop((pool, through));
    leaves_nothing(&url).await;
    drop(pgbouncer);
    db.finish().await;
}

/// Nothing of ours stays on the sessions that others get after us.
async fn leaves_nothing(url: &str) {
    let left = "select (select count(*) from pg_prepared_statements)
                     + (select count(*) from pg_locks
                        where locktype = 'advisory' and pid = pg_backend_pid())
                     + (select count(*) from pg_settings where source = 'session'
                        and name in ('search_path', 'lock_timeout', 'statement_timeout'))";
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let client = connect(url).await;
        // A transaction keeps its session, so the next one gets another.
        client.batch_execute("begin").await.expect("begin");
        let row = client.query_typed_one(left, &[]).await.expect("query");
        assert_eq!(row.get::<_, i64>(0), 0);
        sessions.push(client);
    }
}

#[tokio::test]
async fn the_service_runs_through_a_transaction_pooler() {
    let db = Db::new().await;
    let pgbouncer = PgBouncer::start(&db.url(), SESSIONS).await;
    let url = pgbouncer.url(&db.url());
    let service = Service::start(&["--database-url", &url, "--pooler", "transaction"]).await;
    let post = |path: &'static str, body: Value| {
        let service = &service;
        async move {
            let (status, text) = service.request("POST", path, &body.to_string()).await;
            assert!((200..300).contains(&status), "{path}: {status} {text}");
            serde_json::from_str::<Value>(&text).expect("JSON")
        }
    };
    let (_, ready) = service.request("GET", "/readyz", "").await;
    assert!(ready.contains(r#""listener":"poll""#), "{ready}");
    let worker = uuid::Uuid::now_v7();
    for round in 0..5 {
        let calls = (0..20).map(|n| post("/v1/jobs", json!({"kind": "a", "args": [round, n]})));
        futures_util::future::join_all(calls).await;
        // A waiting acquire finds them by polling, if not at once.
        let ask =
            json!({"worker": worker, "queues": ["default"], "max_jobs": 20, "wait_ms": 20_000});
        let answer = post("/v1/acquire", ask).await;
        let jobs = answer["jobs"].as_array().expect("jobs").clone();
        let keys = ["job_id", "attempt", "token"];
        let pick = |job: &Value| Value::from_iter(keys.map(|key| (key, job[key].clone())));
        let held: Vec<Value> = jobs.iter().map(pick).collect();
        assert_eq!(held.len(), 20);
        let beat = format!("/v1/workers/{worker}/heartbeat");
        let body = json!({ "executions": held }).to_string();
        let (status, text) = service.request("POST", &beat, &body).await;
        assert_eq!(status, 200, "{text}");
        post("/v1/executions/complete", json!({"worker": worker, "executions": held})).await;
    }
    let direct = db.connect().await;
    assert_eq!(count(&direct, "completed").await, 100);
    assert_eq!(service.request("GET", "/metrics", "").await.0, 200);
    assert_eq!(service.request("GET", "/v1/stats", "").await.0, 200);
    service.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, log) = service.ended().await;
    assert!(status.success(), "{log}");
    // That the pooler's login is a superuser is told, and nothing else.
    let wrong = |line: &&str| ["WARN", "ERROR"].iter().any(|level| line.contains(level));
    let wrong: Vec<&str> = log.lines().filter(wrong).collect();
    assert!(wrong.iter().all(|line| line.contains("check=\"superuser\"")), "{log}");
    leaves_nothing(&url).await;
    drop(pgbouncer);
    db.finish().await;
}

#[tokio::test]
async fn a_direct_connection_beside_the_pooler_wakes_a_worker() {
    let db = Db::new().await;
    let pgbouncer = PgBouncer::start(&db.url(), SESSIONS).await;
    let mut options = options(&pgbouncer.url(&db.url()));
    options.settings.listen_url = Some(db.url().as_str().into());
    // Beyond the test: only a wake-up can start the job.
    let poll = Duration::from_secs(300);
    let worker = Worker::with_options(options)
        .queue("default", 1)
        .poll(poll)
        .on("a", |_: Job| async { Ok::<_, String>(Outcome::Complete) });
    let shutdown = Shutdown::new();
    let own = shutdown.clone();
    let running = tokio::spawn(async move { worker.run(&own).await });
    let direct = db.connect().await;
    let through = connect(&pgbouncer.url(&db.url())).await;
    for done in 1..=3 {
        wait_until("the worker sleeps", DEADLINE, || async {
            let asleep = "select exists (select from pg_locks l join pg_database d
                          on d.oid = l.database where l.locktype = 'advisory'
                          and l.mode = 'ShareLock' and d.datname = current_database())";
            direct.query_one(asleep, &[]).await.expect("query").get(0)
        })
        .await;
        let job = NewJob::new("a", &done).expect("JSON");
        Rowlock::default().enqueue_one(&through, job).await.expect("taken");
        let what = "the job has run";
        wait_until(what, DEADLINE, || async { count(&direct, "completed").await == done }).await;
    }
    shutdown.stop();
    running.await.expect("no panic").expect("the worker ends well");
    assert!(shutdown.drain(DEADLINE).await, "all tasks end");
    drop((through, pgbouncer));
    db.finish().await;
}
