//! Requests that are refused before a verb runs, and what the answer says.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Api, Db};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn what_is_not_a_good_body_is_refused_by_its_kind() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let post = async |headers: &[(&str, &str)], body: &str| {
        api.send("POST", "/v1/jobs", headers, body).await
    };
    for body in [
        "",
        "{",
        "[{\"kind\":\"a\"}",
        "{\"kind\":\"a\"} x",
        "{\"kind\":\"a\",\"args\":{\"b\":tru}}",
        "nul",
    ] {
        post(&[JSON], body).await.problem(400, "malformed");
    }
    let missing = post(&[], r#"{"kind":"a"}"#).await.problem(415, "unsupported_media_type");
    assert!(missing["hint"].as_str().unwrap().contains("application/json"), "{missing}");
    for wrong in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        post(&[("content-type", wrong)], "{}").await.problem(415, "unsupported_media_type");
    }
    post(&[JSON, ("content-encoding", "gzip")], "{}").await.problem(415, "unsupported_media_type");
    for good in ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json"] {
        post(&[("content-type", good)], r#"{"kind":"a"}"#).await.json(201);
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn too_much_is_refused_before_it_is_read() {
    let db = Db::new().await;
    let api = Api::start_with(&db, |setup| setup.http.body_limit = 100_000).await;
    // Announced: the answer comes though not a byte of the body does.
    let headers = [JSON, ("content-length", "100001")];
    api.send("POST", "/v1/jobs", &headers, "").await.problem(413, "RL413");
    // Not announced: it comes in pieces that never end.
    let headers = [JSON, ("transfer-encoding", "chunked")];
    let stream = api.open("POST", "/v1/jobs", &headers, "").await;
    let (mut reading, mut writing) = stream.into_split();
    let endless = tokio::spawn(async move {
        let piece = format!("2710\r\n{}\r\n", " ".repeat(10_000));
        while writing.write_all(piece.as_bytes()).await.is_ok() {}
    });
    let mut answer = vec![0; 12];
    reading.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 413");
    endless.abort();
    // At the limit it is read, and refused for what is in it.
    let args = format!("\"{}\"", "x".repeat(99_950));
    let body = format!(r#"{{"kind":"a","args":{args}}}"#);
    assert!(body.len() <= 100_000);
    api.post("/v1/jobs", &body).await.json(201);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn the_limits_of_a_call_are_the_databases() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let args = "x".repeat(262_145);
    let problem =
        api.post("/v1/jobs", json!({"kind": "a", "args": args})).await.problem(413, "RL413");
    assert!(problem["detail"].as_str().unwrap().contains("args"), "{problem}");
    let many: Vec<_> = (0..10_001).map(|_| json!({"kind": "a"})).collect();
    api.post("/v1/jobs", Value::from(many)).await.problem(413, "RL413");
    let queues: Vec<_> = (0..101).map(|number| format!("q{number}")).collect();
    let worker = uuid::Uuid::new_v4();
    let acquire = json!({"worker": worker, "queues": queues});
    api.post("/v1/acquire", acquire).await.problem(413, "RL413");
    let execution = json!({"job_id": worker, "attempt": 1, "token": worker});
    let executions = vec![execution; 10_001];
    let body = json!({"worker": worker, "executions": executions});
    for verb in ["complete", "fail", "release"] {
        let answer = api.post(&format!("/v1/executions/{verb}"), &body).await;
        answer.problem(413, "RL413");
    }
    let beat = json!({"executions": executions});
    let beat = api.post(&format!("/v1/workers/{worker}/heartbeat"), beat).await;
    beat.problem(413, "RL413");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems_too() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for path in ["/", "/v1", "/v1/nothing", "/v1/jobs/", "/v2/jobs", "/v1/queues/a/b/pause"] {
        api.get(path).await.problem(404, "not_found");
    }
    let wrong = api.send("DELETE", "/v1/jobs", &[], "").await;
    wrong.problem(405, "method_not_allowed");
    let allow = wrong.header("allow").expect("the methods");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    api.get("/v1/acquire").await.problem(405, "method_not_allowed");
    for path in [
        "/v1/jobs/7",
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=501",
        "/v1/jobs?state=done",
        "/v1/jobs?colour=red",
        "/v1/jobs?cursor=zz",
        "/v1/jobs?limit=x",
        "/v1/jobs?queue=%00",
        "/v1/jobs?kind=%00",
    ] {
        api.get(path).await.problem(422, "RL422");
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn with_a_token_only_the_open_routes_are_open() {
    let db = Db::new().await;
    let api =
        Api::start_with(&db, |setup| setup.http.token = Some("s3cret".parse().unwrap())).await;
    for path in ["/v1/jobs", "/v1/nothing", "/metrics", "/"] {
        for headers in
            [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "s3cret")]]
        {
            let answer = api.send("GET", path, headers, "").await;
            answer.problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"rowlock\""));
        }
    }
    let pass = ("authorization", "Bearer s3cret");
    api.send("GET", "/v1/jobs", &[pass], "").await.json(200);
    api.send("POST", "/v1/jobs", &[pass, JSON], r#"{"kind":"a"}"#).await.json(201);
    assert_eq!(api.send("GET", "/metrics", &[pass], "").await.status, 200);
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        api.get(path).await.json(200);
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for from in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")] {
        let answer = api.send("POST", "/v1/queues/q/pause", &[from], "").await;
        answer.problem(403, "cross_site");
        api.send("GET", "/v1/queues", &[from], "").await.json(200);
    }
    assert_eq!(api.get("/v1/queues").await.json(200)["queues"], json!([]));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_does_not_hold_the_request() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let headers = [JSON, ("content-length", "50")];
    let mut stream = api.open("POST", "/v1/jobs", &headers, "{").await;
    let mut answer = vec![0; 12];
    let answered = tokio::time::timeout(Duration::from_secs(40), stream.read_exact(&mut answer));
    answered.await.expect("within the deadline").expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 408");
    api.stop().await;
    db.finish().await;
}
