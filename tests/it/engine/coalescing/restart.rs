//! A server that crashes while calls of many callers are under way.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rowlock::config::Settings;
use rowlock::db::Options;
use rowlock::embedded;
use rowlock::engine::{AcquireCall, Engine, Error, Recovery};
use rowlock::shutdown::Shutdown;
use uuid::Uuid;

use super::{callers, waiting};
use crate::engine::{SOON, job};
use crate::harness::sql::{column, pid, value};
use crate::harness::wait_until;
use crate::sql::crash::Victim;

/// What is away is tried again, a little later; anything else fails the test.
async fn again(error: Error, errors: &AtomicUsize) {
    let away = matches!(error, Error::Unavailable(_) | Error::InDoubt(_));
    assert!(away, "{}", error.chain());
    errors.fetch_add(1, Ordering::Relaxed);
    if let Recovery::Retry(pause) | Recovery::Repeat(pause) = error.recovery() {
        tokio::time::sleep(pause).await;
    }
}

/// Enqueues jobs with ids of its own, each until that is acknowledged.
async fn produce(engine: Engine, each: usize, told: Arc<AtomicUsize>, errors: Arc<AtomicUsize>) {
    for _ in 0..each {
        let job = job("q").id(Uuid::now_v7());
        while let Err(error) = engine.enqueue_one(job.clone()).await {
            again(error, &errors).await;
        }
        told.fetch_add(1, Ordering::Relaxed);
    }
}

/// Acquires and completes until so many are done.
async fn consume(engine: Engine, all: usize, done: Arc<AtomicUsize>, errors: Arc<AtomicUsize>) {
    let call = AcquireCall { lease: SOON, ..AcquireCall::new(Uuid::now_v7(), vec!["q".into()]) };
    while done.load(Ordering::Relaxed) < all {
        let jobs = match engine.acquire(call.clone()).await {
            Ok(jobs) => jobs,
            Err(error) => {
                again(error, &errors).await;
                continue;
            }
        };
        for job in jobs {
            let entries = vec![(job.execution, None)];
            while let Err(error) = engine.complete(call.worker, entries.clone()).await {
                again(error, &errors).await;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_crash_of_the_server_is_an_error_for_those_under_way_and_doubles_nothing() {
    let victim = Victim::new().await;
    let (settings, shutdown) = (Settings::default(), Shutdown::new());
    let url = victim.cluster.url(embedded::DATABASE);
    let options = Options::new(url.as_str().into(), &settings.database);
    let engine = Engine::open(&options, &settings.queue, &shutdown).expect("the url is good");
    let (producers, each) = (20, 30);
    let [told, done, errors] = [0; 3].map(|_| Arc::new(AtomicUsize::new(0)));
    // What a lost reply granted stays with its worker, so not all of them come to their end.
    let enough = producers * each / 2;
    let producing = callers(engine.clone(), producers, |engine, _| {
        produce(engine, each, told.clone(), errors.clone())
    });
    let consuming = callers(engine.clone(), 10, |engine, _| {
        consume(engine, enough, done.clone(), errors.clone())
    });
    let striking = async {
        for part in 1..=2 {
            wait_until("there is something to lose", SOON, || async {
                part * 50 < told.load(Ordering::Relaxed)
            })
            .await;
            let client = victim.connect_again().await;
            let backend = pid(&client).await;
            kill(Pid::from_raw(backend), Signal::SIGKILL).expect("kill -9");
        }
    };
    let all = async { tokio::join!(producing, consuming, striking) };
    tokio::time::timeout(SOON * 3, all).await.expect("all of them end");
    assert!(0 < errors.load(Ordering::Relaxed));
    for verb in ["enqueue", "acquire", "complete"] {
        assert_eq!(waiting(&engine, verb), 0);
    }
    let client = victim.connect_again().await;
    let ids: Vec<Uuid> = column(&client, "select id from jobs").await;
    assert_eq!(ids.len(), producers * each);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), producers * each);
    let completed: i64 =
        value(&client, "select count(*) from jobs where state = 'completed'").await;
    assert!(done.load(Ordering::Relaxed) as i64 <= completed, "{completed}");
    let broken: Vec<String> =
        column(&client, "select v::text from verify() v where violations > 0").await;
    assert!(broken.is_empty(), "{broken:#?}");
    shutdown.drain(Duration::from_secs(10)).await;
    drop((client, engine));
    victim.end().await;
}
