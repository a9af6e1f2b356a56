//! What a job costs the database: WAL, commits, dead rows; and how few commits notify.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::drain::{JOBS, by_worker};
use crate::enqueue::by_tasks;
use crate::support::{
    Bench, Child, RUNS, Report, Rows, Stats, Task, Work, Worked, noop, open_engine, scaled, span,
    until,
};

pub(crate) const ROWS: &[&str] =
    &["wal_bytes_per_job", "commits_per_job", "dead_tuples_per_job", "notify_share"];

/// More than a worker does in the window, whatever the scale.
const BACKLOG: usize = 500_000;

/// Sessions tell their counts once a second, so it is longer than that.
const WINDOW: Duration = Duration::from_secs(3);

/// One of the counters.
type Counter = fn(&Stats) -> i64;

/// Tasks that enqueue one job a call.
const TASKS: usize = 64;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("wal").await;
    if rows.any(&ROWS[..3]) {
        let mut lives = Vec::new();
        for _ in 0..RUNS {
            lives.push(life().await);
        }
        let figures: [(&str, &str, Counter); 3] = [
            (ROWS[0], "bytes", |stats| stats.wal_bytes),
            (ROWS[1], "commits", |stats| stats.commits),
            (ROWS[2], "rows", |stats| stats.dead),
        ];
        for (row, unit, figure) in figures.into_iter().filter(|row| rows.has(row.0)) {
            line(&mut report, row, unit, &lives, figure);
        }
    }
    if rows.has("notify_share") {
        let mut shares = Vec::new();
        for _ in 0..RUNS {
            shares.push(notifying().await);
        }
        report.ratio("notify_share", ["notifications", "commits"], &shares);
    }
    report.end();
}

/// The counters of some jobs' lives, by their parts.
struct Life {
    singly: (f64, Stats),
    bulk: (f64, Stats),
    drain: (f64, Stats),
}

/// The value is a bulk enqueue and a drain; what one job a call takes stands beside.
fn line(report: &mut Report, row: &str, unit: &str, lives: &[Life], figure: Counter) {
    let each = |part: &(f64, Stats)| figure(&part.1) as f64 / part.0;
    let whole = |life: &Life| each(&life.bulk) + each(&life.drain);
    let mut lives: Vec<_> = lives.iter().collect();
    lives.sort_by(|a, b| whole(a).total_cmp(&whole(b)));
    let middle = lives[lives.len() / 2];
    let hot = middle.drain.1.hot_updates as f64 / middle.drain.1.updates as f64;
    let beside = json!({
        "enqueue_bulk": each(&middle.bulk), "enqueue_64_tasks": each(&middle.singly),
        "drain": each(&middle.drain), "hot_share_of_drain": hot,
        "runs": lives.iter().map(|life| whole(life)).collect::<Vec<_>>(),
    });
    report.figure(row, unit, whole(middle), beside);
}

async fn life() -> Life {
    let bench = Bench::new(2).await;
    let before = Stats::read(&bench).await;
    let engine = open_engine(&bench.url, 20);
    let one_by_one = by_tasks(&engine, TASKS, span(3.0)).await.1.len();
    drop(engine);
    let after_singles = Stats::read(&bench).await;
    let jobs = scaled(JOBS);
    bench.fill(jobs, |_| noop()).await;
    let after_bulk = Stats::read(&bench).await;
    by_worker(&bench, one_by_one + jobs).await;
    let after_drain = Stats::read(&bench).await;
    bench.expect(one_by_one + jobs, 0).await;
    bench.end().await;
    Life {
        singly: (one_by_one as f64, after_singles.since(before)),
        bulk: (jobs as f64, after_bulk.since(after_singles)),
        drain: ((one_by_one + jobs) as f64, after_drain.since(after_bulk)),
    }
}

/// Notifications and commits while producers enqueue and a worker always has more to do.
async fn notifying() -> (f64, f64) {
    let bench = Bench::new(2).await;
    bench.fill(BACKLOG, |_| noop()).await;
    let (listener, heard) = listen(&bench.url).await;
    let worker = Child::start(&Task::Work(Work::endless(&bench.url)));
    let begun = "select count(*) from (select from executions limit 1) e";
    until("the worker works", async || bench.count(begun).await == 1).await;
    let commits = "select xact_commit from pg_stat_database where datname = current_database()";
    let before = (heard.load(Ordering::Relaxed), bench.count(commits).await);
    let engine = open_engine(&bench.url, 20);
    by_tasks(&engine, 8, WINDOW).await;
    assert!(bench.ready().await > 0, "the run was not saturated");
    let after = (heard.load(Ordering::Relaxed), bench.count(commits).await);
    drop(listener);
    worker.stop();
    let _: Worked = worker.end().await;
    bench.end().await;
    assert!(before.1 < after.1, "commits are counted");
    ((after.0 - before.0) as f64, (after.1 - before.1) as f64)
}

/// Counts the notifications of the schema's channel, while the client lives.
async fn listen(url: &str) -> (tokio_postgres::Client, Arc<AtomicI64>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    let heard = Arc::new(AtomicI64::new(0));
    let count = heard.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    client.batch_execute("listen rowlock").await.expect("listens");
    (client, heard)
}
