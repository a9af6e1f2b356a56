//! The service itself: probes, metrics, the description, and a database that is away.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::{acquire, enqueue, held};
use crate::harness::{Api, Db, wait_until};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn without_a_database_calls_are_refused_and_the_process_lives() {
    let db = Db::new().await;
    let api = Api::start_with(&db, |setup| {
        setup.url = "postgres://nobody:s3cret@127.0.0.1:1/none".to_owned();
        setup.database.connect_timeout = Duration::from_millis(300);
    })
    .await;
    for answer in [
        api.get("/v1/jobs").await,
        api.post("/v1/jobs", json!({"kind": "a"})).await,
        api.get("/v1/queues").await,
    ] {
        answer.problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
        for inside in ["127.0.0.1", "s3cret", "nobody", "refused", "os error"] {
            assert!(!answer.body.contains(inside), "{answer:?}");
        }
    }
    api.get("/healthz").await.json(200);
    let ready = api.get("/readyz").await.json(503);
    assert_eq!(ready["database"], "unavailable");
    assert_eq!(ready["schema"], "unknown");
    let metrics = api.get("/metrics").await;
    assert!(metrics.body.contains("rowlock_database_up 0"), "{metrics:?}");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_pool_that_is_all_in_use_is_a_refusal_for_now() {
    let db = Db::new().await;
    let api = Api::start_with(&db, |setup| {
        setup.database.pool_size = 2;
        setup.database.connect_timeout = Duration::from_millis(500);
        setup.database.lock_timeout = Duration::from_secs(60);
        setup.database.statement_timeout = Duration::from_secs(120);
    })
    .await;
    let (holder, observer) = (db.connect().await, db.connect().await);
    holder.batch_execute("begin; lock table rowlock.jobs").await.expect("locks");
    let refused = async {
        let waiting = "select count(*) = 2 from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
        wait_until("both connections wait", SOON, || async {
            observer.query_one(waiting, &[]).await.expect("reads").get(0)
        })
        .await;
        let answer = api.get("/v1/queues").await;
        api.get("/healthz").await.json(200);
        holder.batch_execute("rollback").await.expect("lets go");
        answer
    };
    let (first, second, refused) = tokio::join!(api.get("/v1/jobs"), api.get("/v1/jobs"), refused);
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    first.json(200);
    second.json(200);
    api.get("/v1/queues").await.json(200);
    drop((holder, observer));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn readiness_names_the_schema_the_listener_and_the_stop() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    wait_until("the listener is up", SOON, || async {
        api.get("/readyz").await.json(200)["listener"] == "listen"
    })
    .await;
    let client = db.connect().await;
    let newer = "insert into rowlock.migrations (version, name, checksum)
                 select max(version) + 1, 'future', 'x' from rowlock.migrations";
    client.batch_execute(newer).await.expect("a newer binary was here");
    let other = api.get("/readyz").await.json(503);
    assert_eq!((&other["schema"], &other["ready"]), (&json!("other"), &json!(false)));
    let older = "delete from rowlock.migrations where name = 'future'";
    client.batch_execute(older).await.expect("it is gone");
    api.get("/readyz").await.json(200);
    api.shutdown.stop();
    let stopping = api.get("/readyz").await.json(503);
    assert_eq!(stopping["stopping"], true);
    drop(client);
    api.stop().await;
    db.finish().await;
}

/// The recorder is the process's own: nextest gives each test a process.
#[tokio::test]
async fn metrics_count_what_was_done() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for _ in 0..3 {
        enqueue(&api, "etl/a", "a").await;
    }
    let (worker, jobs) = acquire(&api, "etl/a", 2).await;
    let body = json!({"worker": worker, "executions": [held(&jobs[0])]});
    api.post("/v1/executions/complete", body).await.json(200);
    let answer = api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for line in [
        "rowlock_jobs_enqueued_total 3",
        "rowlock_jobs_acquired_total 2",
        "rowlock_jobs_finished_total{verb=\"complete\",verdict=\"completed\"} 1",
        "rowlock_enqueue_seconds_count 3",
        "rowlock_acquire_seconds_count 1",
        "rowlock_finish_seconds_count{verb=\"complete\"} 1",
        "rowlock_http_request_seconds_count{method=\"POST\",route=\"/v1/jobs\",status=\"201\"} 3",
        "rowlock_jobs{queue=\"etl/a\",state=\"ready\",priority=\"5\"} 1",
        "rowlock_jobs{queue=\"etl/a\",state=\"running\",priority=\"5\"} 1",
        "rowlock_database_up 1",
        "rowlock_batch_calls_bucket{verb=\"enqueue\",le=\"1\"} 3",
        "rowlock_batch_calls_count{verb=\"complete\"} 1",
        "rowlock_calls_waiting{verb=\"acquire\"} 0",
    ] {
        assert!(
            answer.body.lines().any(|found| found == line),
            "{line} is not in\n{}",
            answer.body
        );
    }
    for name in ["rowlock_pool_connections", "rowlock_listener_up", "rowlock_longest_wait_seconds"]
    {
        assert!(answer.body.contains(&format!("# TYPE {name} gauge")), "{name}");
    }
    assert!(answer.body.contains("rowlock_enqueue_seconds_bucket{le=\"0.005\"}"));
    // A path that a client makes up is no label.
    api.get("/v1/made-up").await.problem(404, "not_found");
    let answer = api.get("/metrics").await;
    assert!(!answer.body.contains("made-up"));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn the_description_is_ours_and_knows_every_word() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let description = api.get("/openapi.json").await.json(200);
    assert_eq!(description["info"]["title"], "Rowlock");
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schemas = description["components"]["schemas"].as_object().expect("schemas");
    let job = &schemas["NewJob"]["properties"];
    for key in [
        "kind",
        "args",
        "queue",
        "priority",
        "run_at",
        "depends_on",
        "on_parent_failure",
        "max_attempts",
        "timeout",
        "unique_key",
        "id",
        "ref",
    ] {
        assert!(job[key].is_object(), "{key}: {job}");
    }
    assert_eq!(schemas["NewJob"]["required"], json!(["kind"]));
    assert_eq!(job["on_parent_failure"]["enum"], json!(["cancel", "continue", "hold"]));
    let items = description["paths"].as_object().expect("paths").values();
    let operations: Vec<_> =
        items.flat_map(|item| item.as_object().expect("methods").values()).collect();
    let names: BTreeSet<_> =
        operations.iter().map(|operation| operation["operationId"].to_string()).collect();
    assert_eq!(names.len(), operations.len(), "{names:?}");
    for operation in &operations {
        let responses = operation["responses"].as_object().expect("responses");
        assert!(responses.contains_key("default"), "{operation}");
        for (_, refusal) in responses.iter().filter(|(status, _)| status.starts_with('4')) {
            assert!(refusal["content"]["application/problem+json"].is_object(), "{operation}");
        }
    }
    // Every reference leads somewhere.
    let text = description.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_request_id_is_given_back() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let answer = api.send("GET", "/healthz", &[("x-request-id", "abc-1")], "").await;
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    let made = api.get("/v1/nothing").await;
    assert_eq!(made.header("x-request-id").map(str::len), Some(36));
    api.stop().await;
    db.finish().await;
}
