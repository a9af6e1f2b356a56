//! The duties, run by loops of their own.

use std::time::Duration;

use rowlock::config::Settings;
use rowlock::engine::{AcquireCall, Engine};
use rowlock::maintenance;
use rowlock::shutdown::Shutdown;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::engine::{job, open};
use crate::harness::{Db, wait_until};

const SOON: Duration = Duration::from_secs(30);

/// An engine whose duties run at this interval.
fn maintained(db: &Db, interval: Duration) -> (Engine, Shutdown) {
    let (engine, shutdown) = open(db);
    maintenance::start(engine.pool(), interval, &shutdown);
    (engine, shutdown)
}

async fn until(what: &str, client: &Client, query: &str) {
    wait_until(what, SOON, || async {
        client.query_one(query, &[]).await.expect("reads").get::<_, bool>(0)
    })
    .await;
}

#[tokio::test]
async fn a_scheduled_job_is_ready_on_time() {
    let db = Db::new().await;
    // The round alone would come much too late.
    let (_engine, shutdown) = maintained(&db, Duration::from_secs(3600));
    let client = db.connect().await;
    let first = "select not exists (select from scheduled) and exists (select from ready)";
    let later = "select enqueue('test', run_at => clock_timestamp() + interval '400 ms')";
    client.query_one(later, &[]).await.expect("enqueues");
    until("the job is ready", &client, first).await;
    let late = "select extract(epoch from r.ready_at - j.run_at)::float8
                from ready r join jobs j on j.id = r.job_id";
    let late: f64 = client.query_one(late, &[]).await.expect("reads").get(0);
    // About 0.01 on a machine that has nothing else to do.
    assert!((0.0..1.0).contains(&late), "{late} s late");
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn jobs_of_a_silent_worker_come_back() {
    let db = Db::new().await;
    let (engine, shutdown) = maintained(&db, Duration::from_millis(100));
    engine.enqueue(vec![job("q"), job("q")]).await.expect("enqueues");
    let call = AcquireCall {
        lease: Duration::from_secs(1),
        max_jobs: 2,
        ..AcquireCall::new(Uuid::now_v7(), vec!["q".to_owned()])
    };
    assert_eq!(engine.acquire(call).await.expect("acquires").len(), 2);
    let client = db.connect().await;
    until("both are ready", &client, "select count(*) = 2 from ready").await;
    until("the worker is lost", &client, "select status = 'lost' from workers").await;
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn what_the_commit_could_not_link_is_linked() {
    let db = Db::new().await;
    let (engine, shutdown) = maintained(&db, Duration::from_millis(100));
    let parent = engine.enqueue(vec![job("q")]).await.expect("enqueues")[0].job_id;
    let client = db.connect().await;
    client.batch_execute("begin; set local rowlock.notify = off").await.expect("begins");
    let child = "select enqueue('test', depends_on => array[$1::uuid])";
    client.query_one(child, &[&parent]).await.expect("enqueues");
    client.batch_execute("commit").await.expect("commits");
    until("the child is linked", &client, "select count(*) = 1 from dependencies").await;
    until("no link is left", &client, "select count(*) = 0 from links").await;
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn what_ended_long_ago_is_pruned() {
    let db = Db::new().await;
    let (engine, shutdown) = open(&db);
    let client = db.connect().await;
    let old = "select id_at(clock_timestamp() - interval '3 days')";
    let old: Uuid = client.query_one(old, &[]).await.expect("reads").get(0);
    engine.enqueue(vec![job("q").id(old), job("q")]).await.expect("enqueues");
    engine.cancel(vec![old]).await.expect("cancels");
    let age = "update jobs set finished_at = finished_at - interval '2 days' where id = $1";
    client.execute(age, &[&old]).await.expect("ages");
    maintenance::start(engine.pool(), Duration::from_millis(100), &shutdown);
    until("the old one is gone", &client, "select count(*) = 1 from jobs").await;
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn floors_follow_the_jobs() {
    let db = Db::new().await;
    let (engine, shutdown) = maintained(&db, Duration::from_secs(1));
    let client = db.connect().await;
    for round in 1..=3 {
        engine.enqueue((0..200).map(|_| job("q")).collect()).await.expect("enqueues");
        let call =
            AcquireCall { max_jobs: 200, ..AcquireCall::new(Uuid::now_v7(), vec!["q".to_owned()]) };
        assert_eq!(engine.acquire(call).await.expect("acquires").len(), 200);
        // A run in the midst of the enqueue leaves less than a step for the next one.
        let top = 200 * round + 1;
        let risen = format!(
            "select count(*) = 1 and max(floors[1]) > {top} - limit_of('floor_step')
             and max(floors[1]) <= {top} from lane_floors"
        );
        until("the floors are above them", &client, &risen).await;
    }
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}

#[tokio::test]
async fn duties_outlive_a_database_that_goes_away() {
    let db = Db::new().await;
    let (_engine, shutdown) = maintained(&db, Duration::from_millis(100));
    let client = db.connect().await;
    let name = Settings::default().database.application_name;
    for _ in 0..5 {
        let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                   where datname = current_database() and application_name like $1 || '%'";
        wait_until("there is a session to cut", SOON, || async {
            client.query_one(cut, &[&name]).await.expect("cuts").get::<_, i64>(0) > 0
        })
        .await;
    }
    let soon = "select enqueue('test', run_at => clock_timestamp() + interval '200 ms')";
    client.query_one(soon, &[]).await.expect("enqueues");
    until("it is promoted", &client, "select count(*) = 1 from ready").await;
    drop(client);
    shutdown.drain(SOON).await;
    db.finish().await;
}
