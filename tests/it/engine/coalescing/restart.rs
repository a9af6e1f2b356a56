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

/// The strikes so far, and the calls that one of them fell into.
#[derive(Default)]
struct Strikes {
    count: AtomicUsize,
    struck: AtomicUsize,
}

impl Strikes {
    /// Waits for a call, and sees whether a strike fell into it.
    async fn watch<T>(&self, call: impl Future<Output = T>) -> T {
        let before = self.count.load(Ordering::Relaxed);
        let answer = call.await;
        let struck = usize::from(before < self.count.load(Ordering::Relaxed));
        self.struck.fetch_add(struck, Ordering::Relaxed);
        answer
    }
}

/// What is away is tried again, a little later; anything else fails the test.
async fn again(error: Error) {
    let away = matches!(error, Error::Unavailable(_) | Error::InDoubt(_));
    assert!(away, "{}", error.chain());
    if let Recovery::Retry(pause) | Recovery::Repeat(pause) = error.recovery() {
        tokio::time::sleep(pause).await;
    }
}

/// Enqueues jobs with ids of its own, each until that is acknowledged.
async fn produce(engine: Engine, each: usize, told: Arc<AtomicUsize>, strikes: Arc<Strikes>) {
    for _ in 0..each {
        let job = job("q").id(Uuid::now_v7());
        while let Err(error) = strikes.watch(engine.enqueue_one(job.clone())).await {
            again(error).await;
        }
        told.fetch_add(1, Ordering::Relaxed);
    }
}

/// Acquires and completes until so many are done.
async fn consume(engine: Engine, all: usize, done: Arc<AtomicUsize>, strikes: Arc<Strikes>) {
    let call = AcquireCall { lease: SOON, ..AcquireCall::new(Uuid::now_v7(), vec!["q".into()]) };
    while done.load(Ordering::Relaxed) < all {
        let jobs = match strikes.watch(engine.acquire(call.clone())).await {
            Ok(jobs) => jobs,
            Err(error) => {
                again(error).await;
                continue;
            }
        };
        for job in jobs {
            let entries = vec![(job.execution, None)];
            let complete = || engine.complete(call.worker, entries.clone());
            while let Err(error) = strikes.watch(complete()).await {
                again(error).await;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_crash_of_the_server_loses_and_doubles_nothing_of_what_is_under_way() {
    let victim = Victim::new().await;
    let (settings, shutdown) = (Settings::default(), Shutdown::new());
    let url = victim.cluster.url(embedded::DATABASE);
    let options = Options::new(url.as_str().into(), &settings.database);
    let engine = Engine::open(&options, &settings.queue, &shutdown).expect("the url is good");
    let (producers, each) = (20, 30);
    let [told, done] = [0; 2].map(|_| Arc::new(AtomicUsize::new(0)));
    let strikes = Arc::new(Strikes::default());
    // What a lost reply granted stays with its worker, so not all of them come to their end.
    let enough = producers * each / 2;
    let producing = callers(engine.clone(), producers, |engine, _| {
        produce(engine, each, told.clone(), strikes.clone())
    });
    let consuming = callers(engine.clone(), 10, |engine, _| {
        consume(engine, enough, done.clone(), strikes.clone())
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
            strikes.count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let all = async { tokio::join!(producing, consuming, striking) };
    tokio::time::timeout(SOON * 3, all).await.expect("all of them end");
    assert!(0 < strikes.struck.load(Ordering::Relaxed));
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
