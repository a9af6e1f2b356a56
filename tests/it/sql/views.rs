//! The views answer what they say, and cost no more as history grows.

use std::slice::from_ref;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire_with, column, complete, discard, enqueue, fail, pages, run, value,
};

#[tokio::test]
async fn queue_stats_count_by_queue_state_and_priority() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k', priority => n % 2) from generate_series(1, 5) n").await;
    let parent = enqueue(&client, "'k', queue => 'b'").await;
    enqueue(&client, &format!("'k', queue => 'b', depends_on => '{{{parent}}}'")).await;
    enqueue(&client, "'k', queue => 'b', run_at => clock_timestamp() + interval '1 h'").await;
    acquire_with(&client, Uuid::new_v4(), "'{b}', 1").await;
    run(&client, "select pause_queue('b')").await;
    run(&client, "update ready set ready_at = ready_at - interval '1 h' where seq = 1").await;
    let sql = "select concat_ws(' ', queue, state, priority, jobs, paused,
            round(oldest_seconds / 3600)) from queue_stats order by queue, state, priority";
    let rows: Vec<String> = column(&client, sql).await;
    let wanted = [
        "b blocked 5 1 t",
        "b running 5 1 t 0",
        "b scheduled 5 1 t -1",
        "default ready 0 2 f 0",
        "default ready 1 3 f 1",
    ];
    assert_eq!(rows, wanted);
    db.finish().await;
}

#[tokio::test]
async fn the_longest_wait_is_that_of_the_first_in_its_lane() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "insert into queues (name, aging_interval) values ('default', null)").await;
    run(&client, "select enqueue('k', priority => n % 2) from generate_series(1, 6) n").await;
    run(&client, "select enqueue('k', priority => 9, queue => q) from unnest('{a,b}'::text[]) q")
        .await;
    enqueue(&client, "'k', run_at => clock_timestamp() + interval '1 h'").await;
    run(&client, "select pause_queue('b')").await;
    run(&client, "update ready set ready_at = ready_at - interval '1 h' * (7 - seq) where seq < 7")
        .await;
    let sql = "select concat_ws(' ', queue, priority, round(seconds / 3600),
            ready_at = (select min(r.ready_at) from ready r
                where r.queue = l.queue and r.priority = l.priority), paused)
        from longest_waits l order by queue, priority";
    let rows: Vec<String> = column(&client, sql).await;
    assert_eq!(rows, ["a 9 0 t f", "b 9 0 t t", "default 0 5 t f", "default 1 6 t f"]);
    // What is acquired waits no longer.
    acquire_with(&client, Uuid::new_v4(), "'{default}', 4").await;
    let rows: Vec<String> = column(&client, sql).await;
    assert_eq!(rows[2..], ["default 1 4 t f"], "{rows:?}");
    db.finish().await;
}

#[tokio::test]
async fn the_longest_waits_cost_a_probe_a_lane() {
    let db = Db::new().await;
    let client = db.connect().await;
    let fill = "select from enqueue_many((select jsonb_agg(jsonb_build_object(
            'kind', 'k', 'queue', 'q' || n % 7, 'priority', n % 10)) from generate_series(1, 7000) n))";
    let read = "select * from longest_waits";
    for jobs in [7000, 14000, 21000] {
        run(&client, fill).await;
        let seen = pages(&client, read).await;
        // Two or three pages of the index and one of the table, a lane; and the catalogs.
        assert!(seen < 70 * 5 + 100, "{jobs} jobs: {seen} pages");
    }
    assert_eq!(value::<i64>(&client, &format!("select count(*) from ({read}) l")).await, 70);
    db.finish().await;
}

#[tokio::test]
async fn executions_and_workers_are_told_of() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k', timeout => '1 h') from generate_series(1, 4)").await;
    let worker = Uuid::new_v4();
    let got = acquire_with(&client, worker, "'{default}', 4, name => 'w', capacity => 9").await;
    complete(&client, &got[..1]).await;
    discard(&client, &got[1..2]).await;
    fail(&client, &got[2..3]).await;
    let outcomes: Vec<String> = column(
        &client,
        "select concat_ws(' ', queue, outcome, executions, round(share::numeric, 2))
         from outcome_stats order by outcome",
    )
    .await;
    assert_eq!(outcomes, ["default completed 1 0.33", "default failed 2 0.67"]);
    let stats = "select concat_ws(' ', name, status, capacity, load, recent_executions,
        round(recent_success_share::numeric, 2), health) from worker_stats";
    assert_eq!(value::<String>(&client, stats).await, "w live 9 1 3 0.33 failing");
    let running = "select concat_ws(' ', job_id, attempt, worker_name, cancelling,
        times_out_at = started_at + interval '1 h') from running";
    let wanted = format!("{} 1 w f t", got[3].job_id);
    assert_eq!(value::<String>(&client, running).await, wanted);
    let details = format!(
        "select concat_ws(' ', state, attempt, failures, last_outcome) from job_details
         where id = '{}'",
        got[2].job_id
    );
    assert_eq!(value::<String>(&client, &details).await, "scheduled 1 1 failed");
    run(&client, "update workers set lease_ends_at = now() - interval '1 s'").await;
    assert_eq!(value::<String>(&client, "select health from worker_stats").await, "lost");
    assert_eq!(complete(&client, from_ref(&got[3])).await, ["completed"]);
    db.finish().await;
}

#[tokio::test]
async fn acquire_latency_is_from_ready_to_acquired() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 100)").await;
    acquire_with(&client, Uuid::new_v4(), "'{default}', 100").await;
    run(
        &client,
        "update executions e set ready_at = e.started_at - x.n * interval '1 second'
         from (select job_id, row_number() over (order by job_id) as n from executions) x
         where x.job_id = e.job_id",
    )
    .await;
    let sql = "select concat_ws(' ', coalesce(queue, 'all'), executions, average_seconds,
        p95_seconds, round(p99_seconds::numeric, 2)) from acquire_latency order by queue";
    let rows: Vec<String> = column(&client, sql).await;
    assert_eq!(rows, ["default 100 50.5 95.05 99.01", "all 100 50.5 95.05 99.01"]);
    run(&client, "update executions set started_at = started_at - interval '61 minutes'").await;
    let rows: Vec<String> = column(&client, sql).await;
    assert!(rows.iter().all(|row| row.contains(" 0")), "{rows:?}");
    db.finish().await;
}

/// Pages that a statement touches.
async fn buffers(client: &Client, sql: &str) -> i64 {
    let explain = format!("explain (analyze, buffers, format json) {sql}");
    let plan = client.query_one(&explain, &[]).await.expect("explains");
    let plan: serde_json::Value = plan.get(0);
    let plan = &plan[0]["Plan"];
    plan["Shared Hit Blocks"].as_i64().expect("a number")
        + plan["Shared Read Blocks"].as_i64().expect("a number")
}

#[tokio::test]
async fn their_cost_does_not_grow_with_history() {
    let db = Db::new().await;
    let client = db.connect().await;
    // As if enqueued, run and completed in the past, `many` at a time.
    let history = |many: i32, hours: i32| {
        format!(
            "with made as (
                 insert into jobs (id, state, priority, attempt, max_attempts, args_bytes, run_at,
                     created_at, finished_at, queue, kind, args)
                 select overlay(gen_random_uuid()::text placing left(id_at(now() - interval '{hours} h'
                         - n * interval '1 ms')::text, 14) || '7' from 1 for 15)::uuid,
                     'completed', 5, 1, 25, 2, now(), now(), now(), 'default', 'k', '{{}}'
                 from generate_series(1, {many}) n returning id)
             insert into executions (job_id, attempt, token, worker, ready_at, started_at, finished_at, outcome)
             select id, 1, gen_random_uuid(), '{}', now(), now(), now(), 'completed' from made;
             ",
            Uuid::nil()
        )
    };
    run(&client, &history(20_000, 1)).await;
    run(&client, "vacuum analyze").await;
    let views = [
        "queue_stats",
        "longest_waits",
        "acquire_latency",
        "outcome_stats",
        "worker_stats",
        "running",
        "job_details where id = '00000000-0000-7000-8000-000000000000'",
    ];
    let mut before = Vec::new();
    for view in views {
        before.push(buffers(&client, &format!("select * from {view}")).await);
    }
    run(&client, &history(180_000, 3)).await;
    run(&client, "vacuum analyze").await;
    for (view, before) in views.iter().zip(before) {
        let after = buffers(&client, &format!("select * from {view}")).await;
        assert!(after < before * 3 / 2 + 100, "{view}: {before}, then {after} pages");
    }
    db.finish().await;
}
