//! The plans of the hot functions with cold statistics, and updates that stay HOT.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use uuid::Uuid;

use crate::harness::sql::{acquire, complete, fail, finish, release, run, value};
use crate::harness::{Db, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// A connection that reports the plan of every statement, those inside functions too.
async fn explained(db: &Db) -> Option<(Client, Arc<Mutex<Vec<String>>>)> {
    let config: tokio_postgres::Config = db.url().parse().expect("a URL");
    let (client, mut connection) = config.connect(NoTls).await.expect("connects");
    let plans = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&plans);
    tokio::spawn(async move {
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                sink.lock().expect("not poisoned").push(notice.message().to_owned());
            }
        }
    });
    // Some packages come without it; those of the distributions have it.
    if let Err(error) = client.batch_execute("load 'auto_explain'").await {
        assert_eq!(error.code().map(SqlState::code), Some("58P01"), "{error:?}");
        return None;
    }
    run(
        &client,
        "set auto_explain.log_min_duration = 0;
         set auto_explain.log_nested_statements = on; set auto_explain.log_level = notice;
         set client_min_messages = notice",
    )
    .await;
    Some((client, plans))
}

/// Tables that grow: a hot statement finds their rows by an index.
const GROWING: [&str; 5] = ["ready", "jobs", "executions", "scheduled", "lane_floors"];

async fn walk_through_the_verbs(client: &Client) {
    for _ in 0..8 {
        let worker = Uuid::new_v4();
        let got = acquire(client, worker, 12).await;
        finish(client, "heartbeat", &got, "").await;
        let most = got.len();
        complete(client, &got[..most.min(6)]).await;
        fail(client, &got[most.min(6)..most.min(9)]).await;
        release(client, &got[most.min(9)..]).await;
        run(client, "select * from try_duty('floors', 100)").await;
    }
}

async fn no_bad_plan(db: &Db) {
    let Some((client, plans)) = explained(db).await else { return };
    walk_through_the_verbs(&client).await;
    run(&client, "select 1").await;
    let plans = plans.lock().expect("not poisoned");
    assert!(100 < plans.len(), "only {} plans were reported", plans.len());
    let bad = |plan: &&String| {
        let scanned = GROWING.iter().any(|table| {
            plan.contains(&format!("Seq Scan on {table} "))
                || plan.contains(&format!("Bitmap Heap Scan on {table} "))
        });
        let read = GROWING.iter().any(|table| plan.contains(&format!(" on {table} ")));
        scanned || plan.contains("JIT:") || read && plan.contains("Merge Join")
    };
    let bad: Vec<&String> = plans.iter().filter(bad).collect();
    assert!(bad.is_empty(), "{} plans, among them: {:.4000}", bad.len(), bad[0]);
}

#[tokio::test]
async fn on_empty_tables_and_cold_statistics_plans_are_good() {
    let db = Db::new().await;
    no_bad_plan(&db).await;
    let client = db.connect().await;
    run(&client, "select enqueue('k') from generate_series(1, 60)").await;
    no_bad_plan(&db).await;
    db.finish().await;
}

#[tokio::test]
async fn on_many_jobs_never_analysed_plans_are_good() {
    let db = Db::new().await;
    let client = db.connect().await;
    let fill = "alter table jobs set (autovacuum_enabled = off);
        alter table ready set (autovacuum_enabled = off);
        select count(*) from generate_series(1, 10) call, lateral enqueue_many((
            select jsonb_agg(jsonb_build_object('kind', 'k', 'priority', n % 10, 'args', call))
            from generate_series(1, 10000) n))";
    run(&client, fill).await;
    no_bad_plan(&db).await;
    db.finish().await;
}

#[tokio::test]
async fn a_steady_flow_updates_in_place() {
    let db = Db::new().await;
    let client = db.connect().await;
    for _ in 0..40 {
        let fill = "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object(
            'kind', 'k', 'args', jsonb_build_object('path', repeat('x', 40)))) from generate_series(1, 100)))";
        run(&client, fill).await;
        let got = acquire(&client, Uuid::new_v4(), 100).await;
        // A transaction open anywhere in the cluster keeps old versions on their pages.
        let drawn: i64 = value(&client, "select pg_current_xact_id()::text::bigint").await;
        let gone =
            format!("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint > {drawn}");
        wait_until("older transactions end", DEADLINE, || async { value(&client, &gone).await })
            .await;
        assert_eq!(complete(&client, &got).await, vec!["completed"; 100]);
    }
    // Statistics arrive with the end of the session or after a while.
    drop(client);
    let client = db.connect().await;
    let share = |table: &str| {
        format!(
            "select case when n_tup_upd >= 4000 then n_tup_hot_upd::float8 / n_tup_upd else -1 end
             from pg_stat_user_tables where relname = '{table}'"
        )
    };
    wait_until("counts arrive", DEADLINE, || async {
        0.0 <= value::<f64>(&client, &share("jobs")).await
            && 0.0 <= value::<f64>(&client, &share("executions")).await
    })
    .await;
    let jobs = value::<f64>(&client, &share("jobs")).await;
    let executions = value::<f64>(&client, &share("executions")).await;
    assert!(0.95 < jobs && 0.95 < executions, "HOT: jobs {jobs}, executions {executions}");
    db.finish().await;
}
