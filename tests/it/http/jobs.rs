//! Enqueue, repeat, look at, list.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{acquire, enqueue, held};
use crate::harness::{Answer, Api, Db};

#[tokio::test]
async fn numbers_come_back_digit_for_digit() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let number = "123456789012345678901234567890.12300";
    let body = format!(r#"{{"kind":"a","args":{{"n":{number}}},"timeout":"1 hour 30 minutes"}}"#);
    let created = api.post("/v1/jobs", &body).await;
    let id = created.json(201)["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), Some(format!("/v1/jobs/{id}").as_str()));

    let worker = Uuid::new_v4();
    let ask = json!({"worker": worker, "queues": ["default"]});
    let acquired = api.post("/v1/acquire", ask).await;
    assert!(acquired.body.contains(number), "{acquired:?}");
    let job = acquired.json(200)["jobs"][0].clone();
    assert_eq!(job["timeout"], "PT5400S");
    let (attempt, token) = (&job["attempt"], &job["token"]);
    let end = format!(
        r#"{{"worker":"{worker}","executions":[{{"job_id":"{id}","attempt":{attempt},"token":{token},"result":{{"r":{number}}}}}]}}"#
    );
    api.post("/v1/executions/complete", end).await.json(200);

    let shown = api.get(&format!("/v1/jobs/{id}")).await;
    assert_eq!(shown.body.matches(number).count(), 2, "{shown:?}");
    assert_eq!(shown.json(200)["state"], "completed");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn an_array_is_one_call_and_answers_in_order() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let (outside, again) = (enqueue(&api, "q", "parent").await, Uuid::now_v7());
    let jobs = json!([
        {"kind": "a", "queue": "q", "id": again},
        {"kind": "b", "queue": "q", "ref": "b", "priority": 0, "unique_key": "k"},
        {"kind": "c", "queue": "q", "depends_on": ["b", outside], "on_parent_failure": "hold"},
    ]);
    let first = api.post("/v1/jobs", &jobs).await.json(201);
    assert_eq!(first[0]["id"], json!(again));
    assert_eq!(first[1]["ref"], "b");
    let ids: BTreeSet<_> = (0..3).map(|place| first[place]["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);

    let child = first[2]["id"].as_str().unwrap();
    let child = api.get(&format!("/v1/jobs/{child}")).await.json(200);
    assert_eq!((&child["state"], &child["waits_for"]), (&json!("blocked"), &json!(2)));
    let parents: BTreeSet<_> = child["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parent| parent["job_id"].clone().to_string())
        .collect();
    assert_eq!(parents, BTreeSet::from([first[1]["id"].to_string(), json!(outside).to_string()]));
    assert_eq!(child["parents"][0]["on_parent_failure"], "hold");
    let parent = api.get(&format!("/v1/jobs/{outside}")).await.json(200);
    assert_eq!(parent["children"][0]["job_id"], first[2]["id"]);

    // The same id and the same key are the same jobs.
    let repeat =
        json!([{"kind": "a", "queue": "q", "id": again}, {"kind": "x", "unique_key": "k"}]);
    let repeat = api.post("/v1/jobs", repeat).await.json(200);
    assert_eq!((&repeat[0]["id"], &repeat[1]["id"]), (&first[0]["id"], &first[1]["id"]));
    assert_eq!(repeat[0]["created"], false);
    let other = json!({"kind": "other", "queue": "q", "id": again});
    api.post("/v1/jobs", other).await.problem(409, "RL409");
    let nobody = json!({"kind": "a", "depends_on": [Uuid::now_v7()]});
    api.post("/v1/jobs", nobody).await.problem(422, "RL422");
    assert_eq!(api.post("/v1/jobs", "[]").await.json(200), json!([]));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_workflow_is_all_or_nothing() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let graph = json!({"jobs": [
        {"ref": "list", "kind": "list"},
        {"ref": "a", "kind": "extract", "depends_on": ["list"]},
        {"ref": "b", "kind": "extract", "depends_on": ["list"]},
        {"ref": "join", "kind": "relate", "depends_on": ["a", "b"]},
    ]});
    let answer = api.post("/v1/workflows", graph).await.json(201);
    let refs: Vec<_> = answer["jobs"].as_array().unwrap().iter().map(|job| &job["ref"]).collect();
    assert_eq!(refs, ["list", "a", "b", "join"]);
    let cycle = json!({"jobs": [
        {"ref": "a", "kind": "a", "depends_on": ["b"]},
        {"ref": "b", "kind": "b", "depends_on": ["a"]},
    ]});
    api.post("/v1/workflows", cycle).await.problem(422, "RL422");
    api.post("/v1/workflows", json!({"jobs": [], "name": "x"})).await.problem(422, "RL422");
    api.post("/v1/workflows", json!([])).await.problem(422, "RL422");
    let jobs = api.get("/v1/jobs").await.json(200);
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(4));
    api.stop().await;
    db.finish().await;
}

async fn post_with_key(api: &Api, key: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    api.send("POST", "/v1/jobs", &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_key_repeats_the_same_jobs_and_no_others() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let jobs = json!([{"kind": "a", "args": {"n": 1}}, {"kind": "b"}]);
    let first = post_with_key(&api, "order 7", &jobs).await.json(201);
    let repeat = post_with_key(&api, "order 7", &jobs).await.json(200);
    for place in 0..2 {
        assert_eq!(first[place]["id"], repeat[place]["id"]);
        assert_eq!(
            (&first[place]["created"], &repeat[place]["created"]),
            (&json!(true), &json!(false))
        );
    }
    let other = json!([{"kind": "a", "args": {"n": 2}}, {"kind": "b"}]);
    post_with_key(&api, "order 7", &other).await.problem(409, "RL409");
    let fresh = post_with_key(&api, "order 8", &jobs).await.json(201);
    assert_ne!(fresh[0]["id"], first[0]["id"]);
    for key in ["", &"x".repeat(201)] {
        post_with_key(&api, key, &jobs).await.problem(422, "RL422");
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_key_stands_for_all_of_its_call() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let outside = crate::http::enqueue(&api, "q", "parent").await;
    let job = |kind: &str| json!({"kind": kind, "queue": "q"});
    let child = |parents: &[&str], policy: &str| json!({"kind": "c", "queue": "q", "depends_on": parents, "on_parent_failure": policy});
    let named = |name: &str| json!({"kind": name, "queue": "q", "ref": name});
    let asked = json!([named("a"), named("b"), child(&["a", &outside], "hold")]);
    let first = post_with_key(&api, "k", &asked).await.json(201);
    let count = async || {
        let listed = api.get("/v1/jobs?limit=100").await.json(200);
        listed["jobs"].as_array().expect("jobs").len()
    };
    assert_eq!(count().await, 4);
    for (other, why) in [
        (json!([named("a"), named("b")]), "fewer"),
        (json!([named("a"), named("b"), child(&["a", &outside], "hold"), job("d")]), "more"),
        (json!([named("a"), named("b"), child(&["b", &outside], "hold")]), "another place"),
        (json!([named("a"), named("b"), child(&["a"], "hold")]), "no outside parent"),
        (json!([named("a"), named("b"), child(&[], "hold")]), "no parent"),
        (json!([named("a"), named("b"), child(&["a", &outside], "continue")]), "another policy"),
        (json!([named("a"), child(&[], "hold"), child(&["a", &outside], "hold")]), "a new edge"),
    ] {
        let answer = post_with_key(&api, "k", &other).await;
        assert_eq!(answer.status, 409, "{why}: {answer:?}");
        answer.problem(409, "RL409");
        assert_eq!(count().await, 4, "{why}");
    }
    // The order of parents is no content.
    let again = json!([named("a"), named("b"), child(&[&outside, "a"], "hold")]);
    let repeat = post_with_key(&api, "k", &again).await.json(200);
    for place in 0..3 {
        assert_eq!(first[place]["id"], repeat[place]["id"]);
    }
    // One job under a key, then an array of two that begins with it.
    post_with_key(&api, "one", &job("x")).await.json(201);
    post_with_key(&api, "one", &json!([job("x"), job("y")])).await.problem(409, "RL409");
    assert_eq!(count().await, 5);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_hundred_requests_at_once_with_one_key_make_one_job() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let job = json!({"kind": "a", "args": {"n": 1}});
    let requests = (0..100).map(|_| post_with_key(&api, "once", &job));
    let answers = futures_util::future::join_all(requests).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    let found = answers.iter().filter(|answer| answer.status == 200).count();
    let ids: BTreeSet<String> =
        answers.iter().map(|answer| answer.json(answer.status)["id"].to_string()).collect();
    assert_eq!((created, found, ids.len()), (1, 99, 1));
    let jobs = api.get("/v1/jobs").await.json(200);
    assert_eq!(jobs["jobs"].as_array().map(Vec::len), Some(1));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn pages_hold_every_job_once_newest_first() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let many: Vec<_> = (0..25)
        .map(|n| json!({"kind": if n % 5 == 0 { "five" } else { "other" }, "queue": "etl/a&b"}))
        .map(|mut job| {
            job["queue"] = json!("etl/a:b");
            job
        })
        .collect();
    let made = api.post("/v1/jobs", Value::from(many)).await.json(201);
    enqueue(&api, "elsewhere", "five").await;
    let mut seen = Vec::new();
    let mut path = "/v1/jobs?queue=etl%2Fa%3Ab&state=ready&limit=10".to_owned();
    loop {
        let answer = api.get(&path).await;
        let page = answer.json(200);
        let jobs = page["jobs"].as_array().unwrap();
        assert!(jobs.len() <= 10);
        seen.extend(jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(answer.header("link"), None);
            break;
        };
        let link = answer.header("link").expect("a link");
        path = link.split(['<', '>']).nth(1).expect("a path").to_owned();
        assert!(path.contains(cursor), "{path}");
        assert!(seen.len() <= 25, "the pages do not end");
    }
    let mut expected: Vec<String> =
        made.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(seen, expected);

    let five = api.get("/v1/jobs?kind=five&queue=etl/a:b").await.json(200);
    assert_eq!(five["jobs"].as_array().map(Vec::len), Some(5));
    let page = api.get("/v1/jobs?limit=1").await.json(200);
    let cursor = page["next_cursor"].as_str().unwrap();
    api.get(&format!("/v1/jobs?limit=1&kind=five&cursor={cursor}")).await.problem(422, "RL422");
    api.get(&format!("/v1/jobs?limit=2&cursor={cursor}")).await.json(200);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn waiting_for_a_job_ends_when_it_does_or_in_time() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let id = enqueue(&api, "q", "a").await;
    let began = Instant::now();
    let unfinished = api.get(&format!("/v1/jobs/{id}?wait=1")).await.json(200);
    assert_eq!(unfinished["state"], "ready");
    assert!(Duration::from_secs(1) <= began.elapsed());

    let path = format!("/v1/jobs/{id}?wait=30");
    let began = Instant::now();
    let (waited, ()) = tokio::join!(api.get(&path), async {
        let (worker, jobs) = acquire(&api, "q", 1).await;
        let end = json!({"worker": worker, "executions": [held(&jobs[0])]});
        api.post("/v1/executions/complete", end).await.json(200);
    });
    let done = waited.json(200);
    assert_eq!(done["state"], "completed");
    assert_eq!(done["executions"][0]["outcome"], "completed");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());

    api.get(&format!("/v1/jobs/{}?wait=5", Uuid::now_v7())).await.problem(404, "RL404");
    api.get(&format!("/v1/jobs/{id}?wait=long")).await.problem(422, "RL422");
    api.stop().await;
    db.finish().await;
}
