//! The other hot tables under a pinned horizon: those of scheduled and blocked jobs, of grants and of
//! workers. What the last of the work costs there, against the same without a pin.

use std::time::{Duration, Instant};

use serde_json::json;
use time::OffsetDateTime;
use tokio::time::sleep;
use uuid::Uuid;

use crate::drain::by_worker;
use crate::enqueue::with_parent;
use crate::pinned::Pin;
use crate::support::{Bench, Report, Rows, Service, connect, noop, rate, scaled};

pub(crate) const ROWS: &[&str] = &["promote_pinned", "cascade_pinned", "heartbeat_pinned"];

/// Jobs that are scheduled, or half parents and half children.
const JOBS: usize = 200_000;

/// Jobs of one run of the duty, as the service asks for.
const BATCH: i32 = 1_000;

/// Turns of acquire, complete, heartbeat and rescue.
const TURNS: usize = 10_000;

/// The last tenth of the work counts.
const SHARE: usize = 10;

pub(crate) async fn report(rows: Rows) {
    let mut report = Report::rows("pinned_tables").await;
    if rows.has("promote_pinned") {
        let (plain, pinned) = (promote(Pin::None).await, promote(Pin::Snapshot).await);
        line(&mut report, "promote_pinned", pinned, plain);
    }
    if rows.has("cascade_pinned") {
        let (plain, pinned) = (cascade(Pin::None).await, cascade(Pin::Snapshot).await);
        line(&mut report, "cascade_pinned", pinned, plain);
    }
    if rows.has("heartbeat_pinned") {
        let (plain, pinned) = (heartbeat(Pin::None).await, heartbeat(Pin::Snapshot).await);
        line(&mut report, "heartbeat_pinned", pinned, plain);
    }
    report.end();
}

fn line(report: &mut Report, row: &str, pinned: f64, plain: f64) {
    let beside = json!({ "pinned": pinned, "plain": plain, "measured": "once" });
    report.figure(row, "ratio", pinned / plain, beside);
}

/// Jobs a second that promotion makes ready, in the last of its runs.
async fn promote(pin: Pin) -> f64 {
    let jobs = scaled(JOBS);
    let bench = Bench::new(2).await;
    // One time for all: it must be ahead when the last one is stored, and is the past then.
    let due = OffsetDateTime::now_utc() + Duration::from_secs(5 + jobs as u64 / 10_000);
    bench.fill(jobs, move |_| noop().run_at(due)).await;
    let scheduled = bench.count("select count(*) from scheduled").await;
    assert_eq!(scheduled, i64::try_from(jobs).expect("few"), "jobs scheduled in time");
    let pinned = pin.hold(&bench).await;
    let ahead = due - OffsetDateTime::now_utc();
    sleep(Duration::try_from(ahead).unwrap_or_default()).await;
    let (mut done, mut last) = (0, Instant::now());
    let counted = jobs / SHARE;
    while done < jobs {
        if done <= jobs - counted {
            last = Instant::now();
        }
        let sql = "select done from promote($1)";
        let promoted: i64 = bench.client.query_one(sql, &[&BATCH]).await.expect("promotes").get(0);
        assert!(promoted > 0, "{done} of {jobs} promoted");
        done += usize::try_from(promoted).expect("a count");
    }
    let took = last.elapsed();
    pinned.release().await;
    bench.expect(0, jobs).await;
    bench.end().await;
    rate(counted, took)
}

/// Jobs a second of the last pairs of a parent and its child, while one worker runs them.
async fn cascade(pin: Pin) -> f64 {
    let jobs = scaled(JOBS);
    let bench = Bench::new(2).await;
    bench.fill(jobs, with_parent).await;
    let service = Service::start(&bench.url).await;
    let pinned = pin.hold(&bench).await;
    by_worker(&bench, jobs).await;
    pinned.release().await;
    service.end().await;
    bench.expect(jobs, 0).await;
    let rate = bench.drain_rate(jobs - jobs / SHARE, jobs).await;
    bench.verify().await;
    bench.end().await;
    rate
}

/// Heartbeats with a run of rescue a second, at the end of many grants of one worker.
async fn heartbeat(pin: Pin) -> f64 {
    let turns = scaled(TURNS);
    let bench = Bench::new(2).await;
    bench.fill(turns, |_| noop()).await;
    let service = Service::start(&bench.url).await;
    let pinned = pin.hold(&bench).await;
    let client = connect(&bench.url).await;
    // The client alone would need more time than what it measures; commits need not be durable.
    client
        .batch_execute("set search_path = rowlock, pg_temp; set synchronous_commit = off")
        .await
        .expect("settings");
    let acquire = "select job_id, attempt, token from acquire($1, array['bench'], 1)";
    let acquire = client.prepare(acquire).await.expect("prepares");
    let complete = "select verdict from complete($1, array[$2::uuid], array[$3::int],
        array[$4::uuid])";
    let complete = client.prepare(complete).await.expect("prepares");
    let beat =
        "select (select count(*) from heartbeat($1, '{}', '{}', '{}')), done from rescue(1000)";
    let beat = client.prepare(beat).await.expect("prepares");
    let (worker, counted) = (Uuid::now_v7(), turns / SHARE);
    let mut took = Duration::ZERO;
    for turn in 0..turns {
        let job = client.query_one(&acquire, &[&worker]).await.expect("a job");
        let (id, attempt, token): (Uuid, i32, Uuid) = (job.get(0), job.get(1), job.get(2));
        client.query_one(&complete, &[&worker, &id, &attempt, &token]).await.expect("completes");
        let began = Instant::now();
        client.query_one(&beat, &[&worker]).await.expect("beats");
        if turns - counted <= turn {
            took += began.elapsed();
        }
    }
    pinned.release().await;
    service.end().await;
    bench.expect(turns, 0).await;
    bench.verify().await;
    bench.end().await;
    rate(counted, took)
}
