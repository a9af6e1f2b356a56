//! While the database is away nothing spins and no log floods; and a wake-up that is lost costs no
//! more than a poll.

use std::fs;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rowlock::config::Settings;
use rowlock::db::Options;
use rowlock::worker::{Job, Outcome, Worker};
use tokio::process::Child;

use crate::harness::sql::value;
use crate::harness::{Db, Service, rowlock, wait_until};
use crate::proxy::{Mode, Protocol, Proxy, Upstream};
use crate::worker::{DEADLINE, enqueue, job, reaches, start};

/// How long the database is away.
const AWAY: Duration = Duration::from_secs(4);

/// Of one core, for a process that has nothing it could do.
const MOST_CPU: f64 = 0.1;

/// Lines that a process may say of one outage, and more that it may say each second of it.
const MOST_LINES: usize = 12;
const MOST_LINES_A_SECOND: usize = 3;

/// Callers that try again at once, whatever they are told.
const CALLERS: usize = 10;

/// The time that a process has had of a core.
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The name before it may hold anything, but no closing bracket after the last.
    let (_, rest) = stat.rsplit_once(") ").expect("a name in brackets");
    let ticks = |field: usize| -> u64 {
        rest.split(' ').nth(field).expect("a field").parse().expect("a number")
    };
    // Of which a second has 100, whatever the kernel's own are.
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Its share of a core while the time passes that an outage takes.
async fn share(pid: u32) -> f64 {
    let (before, began) = (cpu(pid), Instant::now());
    wait_until("the outage has lasted", AWAY * 2, || async { AWAY <= began.elapsed() }).await;
    (cpu(pid) - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

fn lines(log: &str) -> usize {
    log.lines().count()
}

#[tokio::test]
async fn a_service_without_its_database_rests_and_comes_back() {
    let db = Db::new().await;
    let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
    let url = proxy.url(&db.url());
    let service = Service::start(&["--database-url", &url, "--connect-timeout", "1s"]).await;
    for mode in [Mode::Refuse, Mode::Reset, Mode::BlackHole] {
        let before = lines(&service.log());
        proxy.set(mode);
        if mode == Mode::Refuse {
            proxy.cut_all();
        }
        let share = share(service.pid()).await;
        assert!(share < MOST_CPU, "{mode:?}: {share} of a core");
        let said = lines(&service.log()) - before;
        let most = MOST_LINES + MOST_LINES_A_SECOND * AWAY.as_secs() as usize;
        assert!(said <= most, "{mode:?}: {said} lines: {}", service.log());
        proxy.set(Mode::Pass);
        wait_until("it works again", DEADLINE, || async {
            service.request("POST", "/v1/jobs", r#"{"kind": "k"}"#).await.0 == 201
        })
        .await;
    }
    drop((service, proxy));
    db.finish().await;
}

#[tokio::test]
async fn callers_without_patience_fill_no_log() {
    let db = Db::new().await;
    let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
    let url = proxy.url(&db.url());
    let arguments = ["--database-url", &url, "--connect-timeout", "100ms"];
    let service = Service::start(&arguments).await;
    proxy.set(Mode::Reset);
    let (began, before) = (Instant::now(), lines(&service.log()));
    let most = |time: Duration| MOST_LINES + MOST_LINES_A_SECOND * time.as_secs() as usize;
    let answers = AtomicUsize::new(0);
    // So many that a line for each would be seen, however slow the machine is.
    let enough = || {
        let time = began.elapsed();
        AWAY <= time && (4 * most(time) < answers.load(Relaxed) || DEADLINE < time)
    };
    let call = || async {
        while !enough() {
            let (status, _) = service.request("POST", "/v1/jobs", r#"{"kind": "k"}"#).await;
            // What the first of them had sent is in doubt.
            assert!(matches!(status, 503 | 504), "{status}");
            answers.fetch_add(1, Relaxed);
        }
    };
    futures_util::future::join_all((0..CALLERS).map(|_| call())).await;
    let (time, answers) = (began.elapsed(), answers.into_inner());
    let said = lines(&service.log()) - before;
    let most = most(time);
    assert!(4 * most < answers, "only {answers} answers: the test shows nothing");
    assert!(said <= most, "{said} lines for {answers} answers");
    drop((service, proxy));
    db.finish().await;
}

fn work(url: &str) -> Child {
    let mut command = rowlock(&["work", "default", "--database-url", url, "--", "true"]);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.spawn().expect("rowlock can be run")
}

#[tokio::test]
async fn a_worker_without_its_database_rests_and_comes_back() {
    let db = Db::new().await;
    let direct = db.connect().await;
    let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
    let worker = work(&proxy.url(&db.url()));
    let first = enqueue(&direct, job("k")).await;
    reaches(&direct, first, "completed").await;
    for mode in [Mode::Refuse, Mode::Reset] {
        proxy.set(mode);
        proxy.cut_all();
        let share = share(worker.id().expect("it runs")).await;
        assert!(share < MOST_CPU, "{mode:?}: {share} of a core");
        proxy.set(Mode::Pass);
        let next = enqueue(&direct, job("k")).await;
        reaches(&direct, next, "completed").await;
    }
    drop((worker, proxy));
    db.finish().await;
}

#[tokio::test]
async fn a_wake_up_that_is_lost_costs_a_poll() {
    let db = Db::new().await;
    let direct = db.connect().await;
    let proxy = Proxy::start(Upstream::of(&db.url()), Protocol::Postgres).await;
    let settings = Settings::default();
    let mut options = Options::new(db.url().as_str().into(), &settings.database);
    options.settings.listen_url = Some(proxy.url(&db.url()).as_str().into());
    let worker = Worker::with_options(options)
        .queue("default", 1)
        .on("k", |_: Job| async { Ok::<_, String>(Outcome::Complete) });
    let running = start(worker);
    let sleeps = "select count(*) > 0 from pg_locks l join pg_database d on d.oid = l.database
                  where l.locktype = 'advisory' and l.mode = 'ShareLock'
                  and d.datname = current_database()";
    for _ in 0..3 {
        proxy.set(Mode::Pass);
        wait_until("the worker sleeps", DEADLINE, || async { value(&direct, sleeps).await }).await;
        // The session stays, and nothing that it is sent arrives.
        proxy.set(Mode::BlackHole);
        let began = Instant::now();
        let id = enqueue(&direct, job("k")).await;
        reaches(&direct, id, "completed").await;
        let waited = began.elapsed();
        // As much again for a busy machine; without a poll it would wait for ever.
        assert!(waited < 2 * settings.queue.poll, "{waited:?}");
    }
    running.stop().await;
    drop(proxy);
    db.finish().await;
}
