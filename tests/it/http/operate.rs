//! What an operator does: cancel, retry, pause, resume, look.

use serde_json::json;
use uuid::Uuid;

use super::{acquire, enqueue, held, state};
use crate::harness::{Api, Db};

#[tokio::test]
async fn queue_names_with_slashes_travel_percent_encoded() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    enqueue(&api, "etl/extract:v2", "a").await;
    let path = "/v1/queues/etl%2Fextract%3Av2";
    let paused = api.post(&format!("{path}/pause"), "").await.json(200);
    assert_eq!(paused, json!({"queue": "etl/extract:v2", "paused": true, "changed": true}));
    let again = api.post(&format!("{path}/pause"), "").await.json(200);
    assert_eq!(again["changed"], false);
    assert_eq!(acquire(&api, "etl/extract:v2", 1).await.1.len(), 0);
    let queues = api.get("/v1/queues").await.json(200);
    assert_eq!(queues["queues"][0]["name"], "etl/extract:v2");
    assert_eq!(queues["queues"][0]["paused"], true);
    assert_eq!(queues["queues"][0]["jobs"]["ready"], 1);
    assert_eq!(queues["queues"][0]["aging_interval"], "PT60S");

    let resumed = api.post(&format!("{path}/resume"), "").await.json(200);
    assert_eq!(resumed["changed"], true);
    assert_eq!(acquire(&api, "etl/extract:v2", 1).await.1.len(), 1);
    for bad in ["a%20b", "%2Fa", &"x".repeat(129), "a%00", "%FF"] {
        for verb in ["pause", "resume"] {
            let answer = api.post(&format!("/v1/queues/{bad}/{verb}"), "").await;
            assert_eq!(answer.status, 422, "{bad}: {answer:?}");
            answer.problem(422, "RL422");
        }
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn cancel_and_retry_answer_with_what_became_of_the_job() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let id = enqueue(&api, "q", "a").await;
    let verb = async |verb: &str| {
        let answer = api.post(&format!("/v1/jobs/{id}/{verb}"), "").await.json(200);
        answer["verdict"].as_str().unwrap().to_owned()
    };
    assert_eq!(verb("retry").await, "unfinished");
    assert_eq!(verb("cancel").await, "cancelled");
    assert_eq!(verb("cancel").await, "cancelled");
    assert_eq!(verb("retry").await, "retried");
    let (worker, jobs) = acquire(&api, "q", 1).await;
    assert_eq!(verb("cancel").await, "cancelling");
    let body = json!({"worker": worker, "executions": [held(&jobs[0])]});
    api.post("/v1/executions/release", body).await.json(200);
    assert_eq!(state(&api, &id).await, "cancelled");
    let unknown = Uuid::now_v7();
    for verb in ["cancel", "retry"] {
        api.post(&format!("/v1/jobs/{unknown}/{verb}"), "").await.problem(404, "RL404");
        api.post(&format!("/v1/jobs/x/{verb}"), "").await.problem(422, "RL422");
    }
    api.get(&format!("/v1/jobs/{unknown}")).await.problem(404, "RL404");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_job_explains_itself_and_takes_another_priority() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let id = enqueue(&api, "q", "a").await;
    let path = format!("/v1/jobs/{id}");
    let answer = api.get(&format!("{path}/explain")).await.json(200);
    assert_eq!((&answer["state"], &answer["ahead"]), (&json!("ready"), &json!(0)));
    assert!(answer["summary"].as_str().unwrap().contains("No worker listens on queue q"));
    let verdict = async |body: serde_json::Value| {
        api.post(&format!("{path}/reprioritize"), body).await.json(200)["verdict"].clone()
    };
    assert_eq!(verdict(json!({"priority": 0})).await, "reprioritized");
    assert_eq!(verdict(json!({"priority": 0})).await, "unchanged");
    assert_eq!(api.get(&path).await.json(200)["priority"], 0);
    for bad in [json!({"priority": 10}), json!({"priority": "1"}), json!({}), json!({"p": 1})] {
        api.post(&format!("{path}/reprioritize"), bad).await.problem(422, "RL422");
    }
    let unknown = format!("/v1/jobs/{}", Uuid::now_v7());
    api.get(&format!("{unknown}/explain")).await.problem(404, "RL404");
    let body = json!({"priority": 1});
    api.post(&format!("{unknown}/reprioritize"), body).await.problem(404, "RL404");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_retry_whose_key_is_taken_is_a_conflict() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let job = json!({"kind": "a", "unique_key": "k"});
    let first = api.post("/v1/jobs", &job).await.json(201)["id"].as_str().unwrap().to_owned();
    api.post(&format!("/v1/jobs/{first}/cancel"), "").await.json(200);
    api.post("/v1/jobs", &job).await.json(201);
    api.post(&format!("/v1/jobs/{first}/retry"), "").await.problem(409, "RL409");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_job_that_others_hold_is_refused_for_now() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let id = enqueue(&api, "q", "a").await;
    let holder = db.connect().await;
    holder.batch_execute("begin; select from rowlock.jobs for update").await.expect("locks");
    let answer = api.post(&format!("/v1/jobs/{id}/cancel"), "").await;
    answer.problem(429, "RL429");
    assert_eq!(answer.header("retry-after"), Some("1"));
    holder.batch_execute("rollback").await.expect("lets go");
    assert_eq!(state(&api, &id).await, "ready");
    drop(holder);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn figures_of_the_last_hour_are_shown() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for _ in 0..4 {
        enqueue(&api, "q", "a").await;
    }
    let (worker, jobs) = acquire(&api, "q", 4).await;
    let body =
        json!({"worker": worker, "executions": [held(&jobs[0]), held(&jobs[1]), held(&jobs[2])]});
    api.post("/v1/executions/complete", body).await.json(200);
    let body = json!({"worker": worker, "executions": [held(&jobs[3])]});
    api.post("/v1/executions/fail", body).await.json(200);
    let stats = api.get("/v1/stats").await.json(200);
    let all = stats["acquire_latency"].as_array().unwrap();
    assert!(all.iter().any(|row| row["queue"].is_null() && row["executions"] == 4), "{stats}");
    let share = |outcome: &str| {
        let rows = stats["outcomes"].as_array().unwrap();
        rows.iter().find(|row| row["outcome"] == outcome).map(|row| row["share"].clone())
    };
    assert_eq!(share("completed"), Some(json!(0.75)));
    assert_eq!(share("failed"), Some(json!(0.25)));
    api.stop().await;
    db.finish().await;
}
