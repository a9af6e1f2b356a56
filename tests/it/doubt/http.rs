//! The API, with the service's database or the client's answer lost.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{CALL_TIMEOUT, DEADLINE, LOSSES, Scene};
use crate::harness::{Answer, Api, Service};
use crate::proxy::{Fault, Loss, Protocol, Proxy, Upstream, When};

async fn api(scene: &Scene) -> Api {
    let options = scene.options();
    Api::start_with(&scene.db, |setup| {
        setup.url = options.url.expose().to_owned();
        setup.database = options.settings;
    })
    .await
}

fn code(answer: &Answer) -> String {
    let problem: serde_json::Value = serde_json::from_str(&answer.body).expect("a problem");
    assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{problem}");
    problem["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn an_unknown_outcome_is_said_and_an_idempotency_key_resolves_it() {
    let scene = Scene::new().await;
    let api = api(&scene).await;
    let mut stored = 0;
    for (when, loss) in LOSSES {
        let body = json!({"kind": "k"}).to_string();
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let answer = api.post("/v1/jobs", &body).await;
        assert_eq!((answer.status, code(&answer).as_str()), (504, "outcome_unknown"), "{answer:?}");
        stored += i64::from(when == When::After);
        assert_eq!(scene.jobs().await, stored);

        let key = Uuid::now_v7().to_string();
        let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
        scene.proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let first = api.send("POST", "/v1/jobs", &headers, &body).await;
        let second = api.send("POST", "/v1/jobs", &headers, &body).await;
        assert_eq!(first.status, if when == When::Before { 201 } else { 200 }, "{first:?}");
        assert_eq!(second.status, 200, "{second:?}");
        stored += 1;
        assert_eq!(scene.jobs().await, stored, "{when:?} {loss:?}");

        scene.proxy.arm(Fault::once(when, loss, "acquire"));
        let ask = json!({"worker": Uuid::now_v7(), "queues": ["none"]}).to_string();
        let answer = api.post("/v1/acquire", ask).await;
        assert_eq!((answer.status, code(&answer).as_str()), (504, "outcome_unknown"), "{answer:?}");
    }
    assert!(api.shutdown.drain(CALL_TIMEOUT).await);
    scene.end().await;
}

#[tokio::test]
async fn what_a_worker_says_is_repeated_by_the_service() {
    let scene = Scene::new().await;
    let api = api(&scene).await;
    let worker = Uuid::now_v7();
    for (when, loss) in LOSSES.into_iter().filter(|(_, loss)| *loss == Loss::Cut) {
        api.post("/v1/jobs", json!({"kind": "k"})).await.json(201);
        let ask = json!({"worker": worker, "queues": ["default"]});
        let job = api.post("/v1/acquire", ask).await.json(200)["jobs"][0].clone();
        let keys = ["job_id", "attempt", "token"];
        let held = Value::from_iter(keys.map(|key| (key, job[key].clone())));

        scene.proxy.arm(Fault::once(when, loss, "heartbeat"));
        let beat = format!("/v1/workers/{worker}/heartbeat");
        let answer = api.post(&beat, json!({"executions": [held.clone()]})).await.json(200);
        assert_eq!(answer["executions"][0]["verdict"], "held", "{answer}");
        scene.proxy.arm(Fault::once(when, loss, "complete"));
        let end = json!({"worker": worker, "executions": [held]});
        let answer = api.post("/v1/executions/complete", end).await.json(200);
        let verdict = if when == When::After { "repeated" } else { "completed" };
        assert_eq!(answer["executions"][0]["verdict"], verdict, "{answer}");

        let answer = api.post("/v1/jobs", json!({"kind": "k"})).await.json(201);
        let id = answer["id"].as_str().expect("an id").to_owned();
        scene.proxy.arm(Fault::once(when, loss, "cancel("));
        let answer = api.post(&format!("/v1/jobs/{id}/cancel"), "").await.json(200);
        assert_eq!(answer["verdict"], "cancelled", "{answer}");
    }
    assert_eq!(scene.proxy.struck(), 6);
    assert!(api.shutdown.drain(CALL_TIMEOUT).await);
    scene.end().await;
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_is_sent_again_and_finds_its_job() {
    let scene = Scene::new().await;
    let service = Service::start(&["--database-url", &scene.db.url()]).await;
    let upstream = Upstream::Tcp(service.address().to_owned());
    let wire = Proxy::start(upstream, Protocol::Http).await;
    for (stored, when) in (1..).zip([When::Before, When::After]) {
        let key = Uuid::now_v7().to_string();
        wire.arm(Fault::once(when, Loss::Cut, "post /v1/jobs"));
        assert!(post(&wire, &key).await.is_none(), "{when:?}");
        assert_eq!(i64::try_from(wire.struck()), Ok(stored));
        let answer = post(&wire, &key).await.expect("an answer");
        let status = if when == When::Before { "201" } else { "200" };
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
        assert_eq!(scene.jobs().await, stored);
    }
    drop(service);
    scene.end().await;
}

async fn post(wire: &Proxy, key: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(wire.address()).await.ok()?;
    let body = r#"{"kind": "k"}"#;
    let request = format!(
        "POST /v1/jobs HTTP/1.1\r\nhost: x\r\nconnection: close\r\nidempotency-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    let reading = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
    reading.expect("an end").ok()?;
    (!answer.is_empty()).then_some(answer)
}
