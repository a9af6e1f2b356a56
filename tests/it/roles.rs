//! Login roles that are members of a role of the schema, and of nothing else.

use rowlock::db::migrate::{self, Error};
use rowlock::{Client as Rowlock, Job, NewJob, Outcome};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Db, Service, rowlock, wait_until};
use crate::worker::{DEADLINE, job, reaches, start, worker_at};

const WORKER: &str = "01900000-0000-7000-8000-000000000001";

async fn json_of(service: &Service, method: &str, path: &str, body: &Value) -> Value {
    let (status, text) = service.request(method, path, &body.to_string()).await;
    assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn the_service_needs_no_owner() {
    let db = Db::new().await;
    let client = db.connect().await;
    let url = db.login(&["service"]).await;
    let service = Service::start(&["--database-url", &url]).await;
    let soon = "select to_char(clock_timestamp() + interval '200 ms', 'YYYY-MM-DD\"T\"HH24:MI:SS.USOF:00')";
    let soon: String = client.query_one(soon, &[]).await.expect("a time").get(0);
    json_of(&service, "POST", "/v1/jobs", &json!({"kind": "k", "run_at": soon})).await;
    // Maintenance promotes it, and the long poll hears of that.
    let take = json!({"worker": WORKER, "queues": ["default"], "wait_ms": 20_000});
    let taken = json_of(&service, "POST", "/v1/acquire", &take).await;
    let held = &taken["jobs"][0];
    let done = json!({"worker": WORKER, "executions": [
        {"job_id": held["job_id"], "attempt": held["attempt"], "token": held["token"]}]});
    let answer = json_of(&service, "POST", "/v1/executions/complete", &done).await;
    assert!(answer.to_string().contains("\"completed\""), "{answer}");
    let stats = json_of(&service, "GET", "/v1/stats", &Value::Null).await;
    assert_eq!(stats["outcomes"][0]["outcome"], "completed", "{stats}");
    for path in ["/v1/queues", "/v1/workers", "/v1/jobs", "/v1/workflows", "/readyz"] {
        json_of(&service, "GET", path, &Value::Null).await;
    }
    let (status, metrics) = service.request("GET", "/metrics", "").await;
    assert_eq!(status, 200);
    assert!(metrics.lines().any(|line| line == "rowlock_database_up 1"), "{metrics}");
    for duty in ["link", "promote", "rescue", "prune", "floors"] {
        let ran = format!("rowlock_maintenance_runs_total{{duty=\"{duty}\",outcome=\"ok\"}}");
        assert!(metrics.contains(&ran), "{ran} is not in {metrics}");
    }
    assert!(!metrics.contains("outcome=\"failed\""), "{metrics}");
    service.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, log) = service.ended().await;
    assert!(status.success() && !log.contains("permission denied"), "{log}");
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn who_may_not_migrate_is_told_who_may() {
    let db = Db::new().await;
    let owner = db.connect().await;
    let url = db.login(&["service"]).await;
    let mut client = rowlock::db::connect(&url.as_str().into()).await.expect("connects");
    let schema = "rowlock".parse().expect("a name");
    assert!(migrate::run(&mut client, &schema).await.expect("up to date").is_unchanged());
    owner.batch_execute("update function_files set checksum = 'other'").await.expect("updates");
    let error = migrate::run(&mut client, &schema).await.expect_err("it is not the owner");
    assert!(matches!(error, Error::NotAllowed { .. }), "{error}");
    assert!(error.to_string().contains("run `rowlock migrate` as rowlock_owner"), "{error}");
    let nowhere = "somewhere_else".parse().expect("a name");
    let error = migrate::run(&mut client, &nowhere).await.expect_err("it may not create schemas");
    assert!(matches!(error, Error::NotAllowed { .. }), "{error}");
    drop((client, owner));
    db.finish().await;
}

#[tokio::test]
async fn the_worker_library_needs_no_more_than_the_worker_role() {
    type Answer = Result<Outcome, String>;
    let db = Db::new().await;
    let client = db.connect().await;
    let url = db.login(&["worker"]).await;
    let running = start(worker_at(&url).poll(DEADLINE * 3).queue("default", 2).on(
        "mixed",
        |job: Job| async move {
            match job.attempt() {
                1 => Answer::Err("once".to_owned()),
                _ => Answer::Ok(Outcome::Complete),
            }
        },
    ));
    let producer = db.login(&["producer"]).await;
    let (producer, connection) =
        tokio_postgres::connect(&producer, tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    let parent = Rowlock::default().enqueue_one(&producer, job("mixed")).await.expect("taken");
    let child: NewJob = job("mixed").depends_on(parent.job_id);
    let child: Uuid = Rowlock::default().enqueue_one(&producer, child).await.expect("taken").job_id;
    reaches(&client, parent.job_id, "scheduled").await;
    for id in [parent.job_id, child] {
        wait_until("it is due", DEADLINE, || async {
            let due = "update scheduled set run_at = clock_timestamp()";
            client.batch_execute(due).await.expect("updates");
            client.batch_execute("select maintain()").await.expect("maintains");
            let query = "select state = 'completed' from jobs where id = $1";
            client.query_one(query, &[&id]).await.expect("the job is there").get(0)
        })
        .await;
    }
    running.stop().await;
    drop((client, producer));
    db.finish().await;
}

#[tokio::test]
async fn a_worker_role_sleeps_on_no_paused_queue() {
    let db = Db::new().await;
    let client = db.connect().await;
    client.batch_execute("select pause_queue('paused')").await.expect("pauses");
    let url = db.login(&["worker"]).await;
    let running = start(
        worker_at(&url)
            .poll(DEADLINE * 3)
            .queue("open", 1)
            .queue("paused", 1)
            .on("quick", |_: Job| async { Ok::<_, String>(Outcome::Complete) }),
    );
    let watched = "select coalesce(bool_or(k.name = 'open'), false),
                          coalesce(bool_or(k.name = 'paused'), false)
                   from pg_locks l
                   join (select n as name, wake_key(n) as key
                         from unnest('{open,paused}'::text[]) n) k
                     on k.key = (l.classid::bigint << 32) | l.objid::bigint
                   where l.locktype = 'advisory' and l.mode = 'ShareLock' and l.objsubid = 1
                     and l.database = (select oid from pg_database where datname = current_database())";
    wait_until("it sleeps on the open queue", DEADLINE, || async {
        client.query_one(watched, &[]).await.expect("reads").get(0)
    })
    .await;
    assert!(!client.query_one(watched, &[]).await.expect("reads").get::<_, bool>(1));
    running.stop().await;
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn an_observer_reads_the_figures() {
    let db = Db::new().await;
    let url = db.login(&["observer"]).await;
    let output = rowlock(&["stats", "--database-url", &url]).output().await.expect("runs");
    assert!(output.status.success(), "{output:?}");
    db.finish().await;
}
