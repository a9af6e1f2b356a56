//! Wake-ups: prompt where LISTEN works, and polling where it does not.

use std::time::{Duration, Instant};

use rand::Rng;
use rowlock::config::Settings;
use rowlock::db::{Options, Pool};
use rowlock::engine::{AcquireCall, Engine, Mode, Wakeups};
use rowlock::model::AcquiredJob;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::open_with;
use crate::harness::{Db, wait_until};

/// Far beyond what a wake-up takes on a busy machine, and far below [`NEVER`].
const SOON: Duration = Duration::from_secs(60);

/// A poll interval that no test lives to see the end of.
const NEVER: Duration = Duration::from_secs(3600);

fn settings(poll: Duration) -> Settings {
    let mut settings = Settings::default();
    settings.queue.poll = poll;
    settings.database.pool_size = 6;
    settings
}

/// A long poll of a fresh worker, which completes what it gets.
fn long_poll(engine: &Engine, most: i32) -> JoinHandle<Vec<AcquiredJob>> {
    let engine = engine.clone();
    tokio::spawn(async move {
        let worker = Uuid::now_v7();
        let queues = vec!["q".to_owned()];
        let call = AcquireCall { max_jobs: most, ..AcquireCall::new(worker, queues) };
        let jobs = engine.acquire_wait(call, SOON, &CancellationToken::new()).await;
        let jobs = jobs.expect("acquires");
        let done = jobs.iter().map(|job| (job.execution, None)).collect();
        engine.complete(worker, done).await.expect("completes");
        jobs
    })
}

async fn watched(client: &Client) -> i64 {
    let query = "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock'
                 and database = (select oid from pg_database where datname = current_database())";
    client.query_one(query, &[]).await.expect("reads").get(0)
}

async fn until_watched(client: &Client, locks: i64) {
    wait_until("as many queues are watched", SOON, || async { watched(client).await == locks })
        .await;
}

async fn enqueue(client: &Client) {
    client.query_one("select enqueue('test', queue => 'q')", &[]).await.expect("enqueues");
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

async fn listener_session(client: &Client) -> Option<i32> {
    let query = "select pid from pg_stat_activity
                 where datname = current_database() and application_name = 'rowlock listener'";
    client.query_opt(query, &[]).await.expect("reads").map(|row| row.get(0))
}

#[tokio::test]
async fn an_enqueue_wakes_a_sleeper_and_a_busy_one_watches_nothing() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let client = db.connect().await;
    for _ in 0..3 {
        let polling = long_poll(&engine, 1);
        until_watched(&client, 1).await;
        enqueue(&client).await;
        assert_eq!(polling.await.expect("joins").len(), 1);
        until_watched(&client, 0).await;
    }
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn one_commit_of_many_jobs_wakes_as_many_as_it_takes() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let client = db.connect().await;
    let polls: Vec<_> = (0..5).map(|_| long_poll(&engine, 2)).collect();
    until_watched(&client, 1).await;
    let many = "select count(*) from enqueue_many($1::text::jsonb)";
    let jobs = [r#"{"kind":"test","queue":"q"}"#; 10].join(",");
    client.query_one(many, &[&format!("[{jobs}]")]).await.expect("enqueues");
    for poll in polls {
        assert_eq!(poll.await.expect("joins").len(), 2);
    }
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn a_listener_that_is_cut_off_comes_back_and_has_missed_nothing() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let client = db.connect().await;
    for _ in 0..3 {
        let polling = long_poll(&engine, 1);
        until_watched(&client, 1).await;
        let session = listener_session(&client).await.expect("it listens");
        client.query_one("select pg_terminate_backend($1)", &[&session]).await.expect("cuts");
        // Until it is back nobody is told of anything, so this one has to be looked for.
        wait_until("the session is gone", SOON, || async {
            listener_session(&client).await != Some(session)
        })
        .await;
        enqueue(&client).await;
        assert_eq!(polling.await.expect("joins").len(), 1);

        let polling = long_poll(&engine, 1);
        until_watched(&client, 1).await;
        enqueue(&client).await;
        assert_eq!(polling.await.expect("joins").len(), 1);
    }
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

/// Anybody who may log in may notify. Nothing that they say is believed, and little comes of it.
#[tokio::test]
async fn forged_notifications_are_at_worst_looks_for_nothing() {
    const EACH: i64 = 2_000;
    let db = Db::new().await;
    let client = db.connect().await;
    let count = "do $$ begin execute format('alter database %I set track_functions = ''all''',
                 current_database()); end $$";
    client.batch_execute(count).await.expect("sets");
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let forger = connect(&db.login(&[]).await).await;
    let polling = long_poll(&engine, 1);
    until_watched(&client, 1).await;
    let long = "x".repeat(7_900);
    let payloads =
        ["q", "", "Q", "q'; drop table ready; --", "\u{202e}\r\n\u{1b}[2J", "watch?", &long];
    let notify = "select pg_notify('rowlock', $1)";
    let began = Instant::now();
    for _ in 0..EACH {
        for payload in payloads {
            forger.query_one(notify, &[&payload]).await.expect("notifies");
        }
    }
    enqueue(&client).await;
    assert_eq!(polling.await.expect("joins").len(), 1);
    let calls = "select coalesce(sum(calls), 0)::bigint from pg_stat_user_functions
                 where funcname = 'acquire'";
    wait_until("the calls are counted", SOON, || async {
        client.query_one(calls, &[]).await.expect("reads").get::<_, i64>(0) > 0
    })
    .await;
    let calls: i64 = client.query_one(calls, &[]).await.expect("reads").get(0);
    // Ten looks and a pause of 100 ms, over and over.
    let bound = 20 + i64::try_from(began.elapsed().as_millis() / 10).expect("small");
    println!("{calls} acquires, at most {bound}, for {EACH} notifications that name the queue");
    assert!(calls < bound);
    drop((client, forger));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn who_enqueued_before_the_watch_and_commits_after_it_is_not_missed() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let (client, observer) = (db.connect().await, db.connect().await);
    client.batch_execute("begin").await.expect("begins");
    // Nobody sleeps yet, so nobody is notified at the commit.
    enqueue(&client).await;
    let polling = long_poll(&engine, 1);
    until_watched(&observer, 1).await;
    client.batch_execute("commit").await.expect("commits");
    assert_eq!(polling.await.expect("joins").len(), 1);
    drop((client, observer));
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn without_a_listener_polling_does_it() {
    let db = Db::new().await;
    let settings = settings(Duration::from_millis(50));
    let options = Options::new(db.url().as_str().into(), &settings.database);
    let pool = Pool::new(&options).expect("the url is good");
    let engine = Engine::new(pool, &settings.queue, Wakeups::polling());
    assert_eq!(engine.mode(), Mode::Poll);
    let client = db.connect().await;
    let polling = long_poll(&engine, 1);
    wait_until("it has looked", SOON, || async {
        client.query_one("select count(*) = 1 from workers", &[]).await.expect("reads").get(0)
    })
    .await;
    enqueue(&client).await;
    assert_eq!(polling.await.expect("joins").len(), 1);
    assert_eq!(watched(&client).await, 0);
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_paused_queue_is_not_watched_and_a_resume_wakes() {
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let client = db.connect().await;
    engine.pause_queue("q").await.expect("pauses");
    enqueue(&client).await;
    let polling = long_poll(&engine, 1);
    let other = {
        let engine = engine.clone();
        let call = AcquireCall::new(Uuid::now_v7(), vec!["q".to_owned(), "other".to_owned()]);
        tokio::spawn(
            async move { engine.acquire_wait(call, SOON, &CancellationToken::new()).await },
        )
    };
    // The other queue's watch shows that the paused one was thought of and left out.
    until_watched(&client, 1).await;
    assert!(!polling.is_finished());
    engine.resume_queue("q").await.expect("resumes");
    wait_until("somebody has the job", SOON, || async {
        polling.is_finished() || other.is_finished()
    })
    .await;
    enqueue(&client).await;
    let first = polling.await.expect("joins");
    let second = other.await.expect("joins").expect("acquires");
    assert_eq!((first.len(), second.len()), (1, 1));
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

/// Which round it is; none are left when it is `OVER`.
type Round = tokio::sync::watch::Receiver<u32>;

const OVER: u32 = u32::MAX;

/// Takes and completes jobs; with a patience, goes away within it, in the middle of whatever that
/// is, and stays away until the next round: nobody else comes to look instead.
fn take_jobs(engine: &Engine, mut round: Round, patience: Option<Duration>) -> JoinHandle<()> {
    let engine = engine.clone();
    tokio::spawn(async move {
        let end = CancellationToken::new();
        let over = {
            let (end, mut round) = (end.clone(), round.clone());
            async move {
                round.wait_for(|round| *round == OVER).await.expect("the test goes on");
                end.cancel();
            }
        };
        tokio::spawn(over);
        while *round.borrow_and_update() != OVER {
            let worker = Uuid::now_v7();
            let most = rand::rng().random_range(1..4);
            let queues = vec!["q".to_owned()];
            let call = AcquireCall { max_jobs: most, ..AcquireCall::new(worker, queues) };
            let waiting = engine.acquire_wait(call, NEVER, &end);
            let jobs = match patience {
                None => waiting.await.expect("acquires"),
                Some(patience) => {
                    let patience = patience.mul_f64(rand::rng().random());
                    match tokio::time::timeout(patience, waiting).await {
                        Ok(jobs) => jobs.expect("acquires"),
                        Err(_) => {
                            round.changed().await.expect("the test goes on");
                            continue;
                        }
                    }
                }
            };
            let done = jobs.iter().map(|job| (job.execution, None)).collect();
            engine.complete(worker, done).await.expect("completes");
        }
    })
}

#[tokio::test]
async fn no_enqueue_is_slept_through_by_sleepers_that_come_and_go() {
    const ROUNDS: u32 = 250;
    const PRODUCERS: usize = 4;
    const EACH: usize = 10;
    let db = Db::new().await;
    let (engine, shutdown) = open_with(&db, &settings(NEVER));
    let (next, round) = tokio::sync::watch::channel(0);
    let patience = [None, None, Some(20), Some(20), Some(20), Some(20)];
    let takers: Vec<_> = patience
        .iter()
        .map(|millis| take_jobs(&engine, round.clone(), millis.map(Duration::from_millis)))
        .collect();
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        producers.push(db.connect().await);
    }
    let observer = db.connect().await;
    let mut slowest = Duration::ZERO;
    for number in 1..=ROUNDS {
        next.send_replace(number);
        let enqueues = producers.iter().map(|producer| async {
            for _ in 0..EACH {
                enqueue(producer).await;
                // So that takers fall asleep and wake all the time, and at the end too.
                let pause = Duration::from_millis(8).mul_f64(rand::rng().random());
                tokio::time::sleep(pause).await;
            }
        });
        futures_util::future::join_all(enqueues).await;
        // Nothing follows to wake anybody: one lost wake-up would stand here until `NEVER`.
        let began = Instant::now();
        wait_until("all are taken", SOON, || async {
            let query = "select not exists (select from ready)";
            observer.query_one(query, &[]).await.expect("reads").get(0)
        })
        .await;
        slowest = slowest.max(began.elapsed());
    }
    println!("the slowest round of {ROUNDS} was empty {slowest:?} after its last enqueue");
    next.send_replace(OVER);
    for taker in takers {
        taker.await.expect("joins");
    }
    drop((producers, observer));
    shutdown.drain(SOON).await;
    db.finish().await;
}
