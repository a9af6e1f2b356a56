//! What wake-ups cost other services whose commits enqueue: with, without, and beside a NOTIFY in
//! every commit.

use std::time::Instant;

use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};

use crate::support::{
    Bench, Child, Handling, Report, Rows, Task, Work, Worked, connect, median, noop, rate, span,
    until,
};

pub(crate) const ROWS: &[&str] = &["commit_slowdown_by_wakeups"];

/// Clients that commit.
const CLIENTS: usize = 40;

/// Interleaved pairs.
const PAIRS: usize = 9;

/// Slots of the worker that has no free one.
const SLOTS: usize = 100;

/// How a commit wakes.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// As it comes.
    Wakeups,
    /// `rowlock.notify = off`.
    Silent,
    /// Silent, and a NOTIFY of its own in every commit.
    NotifyEach,
}

/// A client with a table of its own, and its statements.
struct Committer {
    client: Client,
    enqueue: Statement,
    notify: Statement,
}

pub(crate) async fn report(_: Rows) {
    let mut report = Report::rows("wakeups").await;
    let bench = Bench::new(2).await;
    bench.fill(10 * SLOTS, |_| noop()).await;
    // One worker has all its slots busy, another sleeps on a queue of its own, as in production.
    let busy = Work::endless(&bench.url).handling(Handling::Sleep(1_000)).slots(SLOTS);
    let busy = Child::start(&Task::Work(busy));
    let idle = Child::start(&Task::Work(Work::endless(&bench.url).queue("idle")));
    let running = "select count(*) from jobs where state = 'running'";
    until("the worker is saturated", async || bench.count(running).await == SLOTS as i64).await;
    let sleepers = "select count(*) from pg_locks where locktype = 'advisory' and granted
        and mode = 'ShareLock' and database = (select oid from pg_database
            where datname = current_database())";
    until("the other sleeps", async || bench.count(sleepers).await == 1).await;
    let listener = connect(&bench.url).await;
    listener.batch_execute("listen bench_wakeups").await.expect("listens");

    let mut committers = committers(&bench).await;
    let mut figures = Vec::new();
    for pair in 0..PAIRS {
        let order = [Mode::Wakeups, Mode::Silent];
        let order = if pair % 2 == 0 { order } else { [order[1], order[0]] };
        let mut rates = [0.0; 2];
        for mode in order {
            let place = usize::from(mode == Mode::Silent);
            (rates[place], committers) = commit(committers, mode).await;
        }
        figures.push((rates[0], rates[1]));
    }
    let mut noisy = Vec::new();
    for _ in 0..3 {
        let rate;
        (rate, committers) = commit(committers, Mode::NotifyEach).await;
        noisy.push(rate);
    }
    drop(committers);
    for child in [busy, idle] {
        child.stop();
        let _: Worked = child.end().await;
    }
    bench.verify().await;
    bench.end().await;
    line(&mut report, &figures, median(noisy));
    report.end();
}

fn line(report: &mut Report, pairs: &[(f64, f64)], notify_each: f64) {
    let slowdown = |pair: &(f64, f64)| 1.0 - pair.0 / pair.1;
    let mut pairs = pairs.to_vec();
    pairs.sort_by(|a, b| slowdown(a).total_cmp(&slowdown(b)));
    let (with, without) = pairs[pairs.len() / 2];
    let runs = pairs.iter().map(slowdown);
    let beside = json!({
        "with": with, "without": without, "notify_each": notify_each,
        "runs": runs.collect::<Vec<_>>(),
    });
    report.figure(ROWS[0], "ratio", 1.0 - with / without, beside);
}

async fn committers(bench: &Bench) -> Vec<Committer> {
    let mut committers = Vec::new();
    for number in 0..CLIENTS {
        let client = connect(&bench.url).await;
        let table = format!("create table public.own_{number} (n int)");
        client.batch_execute(&table).await.expect("a table");
        let sql = |more: &str| {
            format!(
                "with own as (insert into public.own_{number} values (1))
                select rowlock.enqueue('noop', queue => 'bench'){more}"
            )
        };
        let enqueue = client.prepare(&sql("")).await.expect("prepares");
        let notify = client.prepare(&sql(", pg_notify('bench_wakeups', 'x')")).await;
        committers.push(Committer { client, enqueue, notify: notify.expect("prepares") });
    }
    committers
}

/// Commits a second of all of them.
async fn commit(committers: Vec<Committer>, mode: Mode) -> (f64, Vec<Committer>) {
    let setting = if mode == Mode::Wakeups { "on" } else { "off" };
    for committer in &committers {
        let set = format!("set rowlock.notify = {setting}");
        committer.client.batch_execute(&set).await.expect("a setting");
    }
    let (started, window) = (Instant::now(), span(1.5));
    let mut tasks = JoinSet::new();
    for committer in committers {
        tasks.spawn(async move {
            let notify = mode == Mode::NotifyEach;
            let statement = if notify { &committer.notify } else { &committer.enqueue };
            let mut done = 0;
            while started.elapsed() < window {
                committer.client.query_one(statement, &[]).await.expect("commits");
                done += 1;
            }
            (done, committer)
        });
    }
    let (done, committers): (Vec<usize>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
    (rate(done.into_iter().sum(), started.elapsed()), committers)
}
