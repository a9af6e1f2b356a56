//! What the views for people cost as history grows: each timed with a hundred thousand and with ten
//! million finished jobs behind it, and the same live work in front. `make bench ROW=views`.

use std::time::Instant;

use crate::support::{Bench, RUNS, Report, Rows, median, millis};
use serde_json::json;

const VIEWS: &[&str] = &[
    "select * from queue_stats",
    "select * from acquire_latency",
    "select * from outcome_stats",
    "select * from worker_stats",
    "select * from running",
    "select * from job_details where id = (select max(job_id::text)::uuid from recent_executions)",
];
const DEPTHS: [i64; 2] = [100_000, 10_000_000];
const STEP: i64 = 500_000;

/// Finished jobs with an execution each, `$2` seconds old at most, straight into the tables: a
/// history that no bench has the time to live through.
const HISTORY: &str = "
    with ids as (
        select (substr(id_at(clock_timestamp() - interval '1 hour' * (1 - n::float8 / $2))::text, 1, 13)
            || '-7' || substr(gen_random_uuid()::text, 16))::uuid as id
        from generate_series($1::bigint, least($1 + $3::bigint, $2::bigint) - 1) n),
    jobs_in as (
        insert into jobs (id, state, priority, attempt, max_attempts, args_bytes, run_at, created_at,
            finished_at, queue, kind, args)
        select id, 'completed', 5, 1, 25, 2, clock_timestamp(), clock_timestamp(), clock_timestamp(),
            'q' || (random() * 9)::int, 'bench', '{}' from ids)
    insert into executions (job_id, attempt, token, worker, ready_at, started_at, finished_at, outcome)
    select id, 1, gen_random_uuid(), '00000000-0000-7000-8000-000000000001', clock_timestamp(),
        clock_timestamp(), clock_timestamp(), 'completed' from ids";

/// Ten million rows take minutes and gigabytes: only when asked for by name.
pub(crate) async fn report(_: Rows) {
    let mut report = Report::begin("views", &["view", "ms at 100,000", "ms at 10,000,000"]).await;
    let mut figures = Vec::new();
    for depth in DEPTHS {
        figures.push(measure(depth).await);
    }
    for (at, view) in VIEWS.iter().enumerate() {
        let (small, large) = (figures[0][at], figures[1][at]);
        let name = view.split(' ').nth(3).expect("a view");
        report.line(&json!({
            "row": format!("views_{name}"), "unit": "ratio", "value": large / small,
            "ms_100000": small, "ms_10000000": large,
        }));
        report.row(vec![name.to_owned(), format!("{small:.2}"), format!("{large:.2}")]);
    }
    report.end();
}

async fn measure(depth: i64) -> Vec<f64> {
    let bench = Bench::new(2).await;
    for start in (0..depth).step_by(usize::try_from(STEP).expect("a step")) {
        bench.client.execute(HISTORY, &[&start, &depth, &STEP]).await.expect("history");
    }
    let live = "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object('kind', 'k',
        'queue', 'q' || n % 10, 'priority', n % 10)) from generate_series(1, 10000) n));
        select count(*) from acquire(gen_random_uuid(), array['q1', 'q2', 'q3'], 1000);
        vacuum analyze";
    for statement in live.split(';') {
        bench.client.batch_execute(statement).await.expect("live work");
    }
    let mut figures = Vec::new();
    for view in VIEWS {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let started = Instant::now();
            bench.client.query(*view, &[]).await.expect("the view answers");
            runs.push(millis(started.elapsed()));
        }
        figures.push(median(runs));
    }
    bench.end().await;
    figures
}
