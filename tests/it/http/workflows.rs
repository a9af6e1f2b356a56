//! Workflows over HTTP: enqueue, look at, list, cancel, retry.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{acquire, enqueue, held};
use crate::harness::{Answer, Api, Db};

/// A list, so many extracts after it, and a report after them.
fn fan(name: &Value, width: usize) -> Value {
    let extract = |n| json!({"ref": format!("e{n}"), "kind": "extract", "queue": "q", "depends_on": ["list"]});
    let names: Vec<String> = (0..width).map(|n| format!("e{n}")).collect();
    let mut jobs = vec![json!({"ref": "list", "kind": "list", "queue": "q"})];
    jobs.extend((0..width).map(extract));
    jobs.push(json!({"kind": "report", "queue": "q", "depends_on": names}));
    json!({"workflow": name, "jobs": jobs})
}

fn id_of(answer: &Value) -> String {
    answer["workflow"].as_str().expect("an id").to_owned()
}

async fn complete_all(api: &Api, most: u32) {
    let (worker, jobs) = acquire(api, "q", most).await;
    let ended: Vec<Value> = jobs.iter().map(held).collect();
    let body = json!({"worker": worker, "executions": ended});
    api.post("/v1/executions/complete", body).await.json(200);
}

#[tokio::test]
async fn a_small_one_shows_every_job_and_a_wide_one_those_that_are_alike() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let answer = api.post("/v1/workflows", fan(&json!("small"), 3)).await;
    let small = answer.json(201);
    let path = format!("/v1/workflows/{}", id_of(&small));
    assert_eq!(answer.header("location"), Some(path.as_str()));
    let job = small["jobs"][0]["id"].as_str().expect("an id");
    assert_eq!(api.get(&format!("/v1/jobs/{job}")).await.json(200)["workflow"], small["workflow"]);
    let shown = api.get(&path).await.json(200);
    assert_eq!((&shown["name"], &shown["state"]), (&json!("small"), &json!("running")));
    assert_eq!(shown["counts"], json!({"ready": 1, "blocked": 4}));
    let nodes = shown["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.iter().map(|node| &node["layer"]).collect::<Vec<_>>(), [0, 1, 1, 1, 2]);
    assert_eq!(shown["edges"].as_array().map(Vec::len), Some(6));
    assert_eq!(shown["edges"][0]["parent"], small["jobs"][0]["id"]);

    let wide =
        id_of(&api.post("/v1/workflows", fan(&json!({"name": "wide"}), 500)).await.json(201));
    complete_all(&api, 2).await;
    complete_all(&api, 200).await;
    let shown = api.get(&format!("/v1/workflows/{wide}")).await.json(200);
    assert_eq!((&shown["jobs"], &shown["finished_at"]), (&json!(502), &Value::Null));
    let nodes = shown["nodes"].as_array().expect("nodes");
    let mut kinds: Vec<_> = nodes
        .iter()
        .map(|node| format!("{} {} {}", node["kind"], node["state"], node["jobs"]))
        .collect();
    kinds.sort();
    let done = shown["counts"]["completed"].as_i64().expect("a count");
    assert!((1..500).contains(&done), "{shown}");
    let expected = [
        format!("\"extract\" \"completed\" {}", done - 1),
        format!("\"extract\" \"ready\" {}", 501 - done),
        "\"list\" \"completed\" 1".to_owned(),
        "\"report\" \"blocked\" 1".to_owned(),
    ];
    assert_eq!(kinds, expected);
    let edges = shown["edges"].as_array().expect("edges");
    let stands_for: i64 = edges.iter().filter_map(|edge| edge["jobs"].as_i64()).sum();
    assert_eq!((edges.len(), stands_for), (4, 1_000));
    assert_eq!((&shown["jobs_left_out"], &shown["edges_left_out"]), (&json!(0), &json!(0)));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn pages_go_from_the_newest_on() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(id_of(
            &api.post("/v1/workflows", fan(&json!(format!("n{n}")), 1)).await.json(201),
        ));
    }
    enqueue(&api, "q", "in none").await;
    let mut seen = Vec::new();
    let mut path = "/v1/workflows?limit=2".to_owned();
    loop {
        let page = api.get(&path).await.json(200);
        let workflows = page["workflows"].as_array().expect("a page").clone();
        seen.extend(workflows.iter().map(|one| one["id"].as_str().expect("an id").to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/workflows?limit=2&cursor={next}");
    }
    made.reverse();
    assert_eq!(seen, made);
    for query in ["limit=0", "limit=101", "cursor=x", "state=running"] {
        api.get(&format!("/v1/workflows?{query}")).await.problem(422, "RL422");
    }
    // A cursor of jobs is none of workflows.
    let jobs = api.get("/v1/jobs?limit=1").await.json(200);
    let cursor = jobs["next_cursor"].as_str().expect("more");
    api.get(&format!("/v1/workflows?cursor={cursor}")).await.problem(422, "RL422");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn the_whole_is_cancelled_and_retried() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let id = id_of(&api.post("/v1/workflows", fan(&json!("n"), 4)).await.json(201));
    let path = format!("/v1/workflows/{id}");
    complete_all(&api, 1).await;
    let (worker, jobs) = acquire(&api, "q", 1).await;
    let answer = api.post(&format!("{path}/cancel"), "").await.json(200);
    let verdicts = json!({"cancelled": 4, "cancelling": 1, "finished": 1});
    assert_eq!(answer, json!({"workflow": id, "verdicts": verdicts}));
    let body = json!({"worker": worker, "executions": [held(&jobs[0])]});
    api.post("/v1/executions/complete", body).await.json(200);
    let shown = api.get(&path).await.json(200);
    assert_eq!((&shown["state"], &shown["done"]), (&json!("cancelled"), &json!(6)));
    assert!(shown["finished_at"].is_string());
    let answer = api.post(&format!("{path}/retry"), "").await.json(200);
    assert_eq!(answer["verdicts"], json!({"retried": 5, "completed": 1}));
    for unknown in [Uuid::now_v7().to_string(), Uuid::nil().to_string()] {
        api.get(&format!("/v1/workflows/{unknown}")).await.problem(404, "RL404");
        for verb in ["cancel", "retry"] {
            api.post(&format!("/v1/workflows/{unknown}/{verb}"), "").await.problem(404, "RL404");
        }
    }
    api.get("/v1/workflows/x").await.problem(422, "RL422");
    api.stop().await;
    db.finish().await;
}

async fn post_with_key(api: &Api, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", "night 7")];
    api.send("POST", "/v1/workflows", &headers, &body.to_string()).await
}

#[tokio::test]
async fn a_key_finds_the_same_workflow_again() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let body = fan(&json!("n"), 2);
    let first = post_with_key(&api, &body).await.json(201);
    let repeat = post_with_key(&api, &body).await;
    assert_eq!(repeat.json(200)["workflow"], first["workflow"]);
    let location = format!("/v1/workflows/{}", id_of(&first));
    assert_eq!(repeat.header("location"), Some(location.as_str()));
    post_with_key(&api, &fan(&json!("other"), 2)).await.problem(409, "RL409");
    post_with_key(&api, &fan(&json!("n"), 3)).await.problem(409, "RL409");
    let id = first["workflow"].clone();
    api.post("/v1/workflows", fan(&json!({"id": id}), 2)).await.problem(409, "RL409");
    for bad in [json!(7), json!({"x": 1}), json!({"id": "x"}), json!("")] {
        api.post("/v1/workflows", fan(&bad, 2)).await.problem(422, "RL422");
    }
    let listed = api.get("/v1/workflows").await.json(200);
    assert_eq!(listed["workflows"].as_array().map(Vec::len), Some(1));
    // Without a name, and without jobs.
    let unnamed = api.post("/v1/workflows", json!({"jobs": [{"kind": "k"}]})).await.json(201);
    let path = format!("/v1/workflows/{}", id_of(&unnamed));
    assert_eq!(api.get(&path).await.json(200)["name"], Value::Null);
    let nothing = api.post("/v1/workflows", json!({"workflow": "n", "jobs": []})).await.json(200);
    assert_eq!(nothing["workflow"], Value::Null);
    api.stop().await;
    db.finish().await;
}
