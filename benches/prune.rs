//! A minute's retention under full load: do tables and indexes reach a steady size, and what does
//! pruning cost? `make bench ROW=prune_steady`; `PRUNE_SECONDS` (600) for each of the two runs.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::support::{Bench, Report, Rows, rate};
use serde_json::json;
use tokio::time::sleep;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

pub(crate) const ROWS: &[&str] = &["prune_steady"];

const QUEUE: &str = "pruned";
const BATCH: i32 = 500;
/// So many wait at most: work is always there, and the depth is not what grows.
const DEPTH: i64 = 20_000;
const SAMPLE: Duration = Duration::from_secs(30);
/// Pruning has something to do from here on.
const RETENTION: Duration = Duration::from_secs(60);

const ENQUEUE: &str = "select count(*) from enqueue_batch(array_fill('k'::text, array[1000]),
    array_fill('{}'::jsonb, array[1000]), array_fill('pruned'::text, array[1000]),
    null, null, null, null, null, null)";

const SIZES: &str = "select
    sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint,
    (sum(pg_table_size(c.oid)) filter (where c.relname = 'ready'))::bigint
    from pg_class c where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r'";

/// What one run saw.
struct Seen {
    /// Completions a second once pruning had begun.
    rate: f64,
    pruned: i64,
    /// Bytes of tables and indexes, sample by sample.
    sizes: Vec<i64>,
}

/// Both runs, without pruning first.
pub(crate) async fn report(_: Rows) {
    let seconds = std::env::var("PRUNE_SECONDS").map_or(600, |text| text.parse().expect("seconds"));
    let run = Duration::from_secs(seconds);
    let columns = ["seconds", "jobs/s", "pruned", "tables MB", "indexes MB"];
    let mut report = Report::begin("prune_steady", &columns).await;
    // The table only grows here: long enough to compare, not longer.
    let without = measure(&mut report, run.min(RETENTION * 2), false).await;
    let with = measure(&mut report, run, true).await;
    let two_thirds = with.sizes.len() * 2 / 3;
    let growth = match (with.sizes.get(two_thirds.saturating_sub(1)), with.sizes.last()) {
        (Some(before), Some(end)) => *end as f64 / *before as f64,
        _ => f64::NAN,
    };
    report.line(&json!({
        "row": "prune_steady", "unit": "ratio", "value": growth, "pruned": with.pruned,
        "rate_with": with.rate.round(), "rate_without": without.rate.round(),
        "rate_ratio": with.rate / without.rate, "seconds": seconds,
    }));
    report.row(vec!["growth of the last third".to_owned(), format!("{growth:.2}")]);
    report.end();
}

async fn measure(report: &mut Report, run: Duration, pruning: bool) -> Seen {
    let bench = Bench::new(4).await;
    bench.client.batch_execute("select set_retention('pruned', '1 minute')").await.expect("sets");
    let (producer, pruner) = (open(&bench).await, open(&bench).await);
    let started = Instant::now();
    let (waiting, completed, pruned) = (Cell::new(0), Cell::new(0_usize), Cell::new(0));
    let worker = || async {
        let id = Uuid::now_v7();
        while started.elapsed() < run {
            let jobs = bench.acquire(id, QUEUE, BATCH).await;
            if jobs.is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            bench.complete(id, &jobs).await;
            completed.set(completed.get() + jobs.len());
            waiting.set(waiting.get() - i64::try_from(jobs.len()).expect("few"));
        }
    };
    let produce = async {
        while started.elapsed() < run {
            if DEPTH < waiting.get() {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            let made: i64 = producer.query_one(ENQUEUE, &[]).await.expect("enqueues").get(0);
            waiting.set(waiting.get() + made);
        }
    };
    // At the pace of a server.
    let prune = async {
        while pruning && started.elapsed() < run {
            let row = pruner.query_one("select done, more from prune(1000)", &[]).await;
            let row = row.expect("prunes");
            pruned.set(pruned.get() + row.get::<_, i64>(0));
            if !row.get::<_, bool>(1) {
                sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let (mut sizes, mut before) = (Vec::new(), 0);
    let look = async {
        let (mut at, mut last) = (Duration::ZERO, 0);
        while at < run {
            let part = SAMPLE.min(run - at);
            at += part;
            sleep(at.saturating_sub(started.elapsed())).await;
            let row = bench.client.query_one(SIZES, &[]).await.expect("sizes");
            let (tables, indexes): (i64, i64) = (row.get(0), row.get(1));
            sizes.push(tables + indexes);
            if at <= RETENTION {
                before = completed.get();
            }
            let now_rate = rate(completed.get() - last, part);
            last = completed.get();
            report.line(&json!({
                "row": "prune_steady_sample", "unit": "jobs/s", "value": now_rate.round(),
                "pruning": pruning, "seconds": at.as_secs(), "pruned": pruned.get(),
                "tables_bytes": tables, "indexes_bytes": indexes,
                "ready_bytes": row.get::<_, i64>(2),
            }));
            let cells = [at.as_secs_f64(), now_rate, pruned.get() as f64];
            let megabytes = [tables as f64 / 1e6, indexes as f64 / 1e6];
            report.row(cells.iter().chain(&megabytes).map(|cell| format!("{cell:.0}")).collect());
        }
    };
    tokio::join!(worker(), worker(), produce, prune, look);
    let late = run.saturating_sub(RETENTION).max(Duration::from_secs(1));
    let rate = rate(completed.get() - before, late);
    Seen { rate, pruned: pruned.get(), sizes }
}

/// A connection beside the pool.
async fn open(bench: &Bench) -> Client {
    let name = bench.client.query_one("select current_database()::text", &[]).await;
    let url = std::env::var("ROWLOCK_TEST_DATABASE_URL").expect("a cluster");
    let mut config: Config = url.parse().expect("a URL");
    config.dbname(name.expect("a name").get::<_, &str>(0)).options("-csearch_path=rowlock");
    let (client, connection) = config.connect(NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}
