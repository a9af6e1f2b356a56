//! Every route that the description lists, once and well.

use std::collections::BTreeSet;

use serde_json::json;

use super::{acquire, enqueue, held, state};
use crate::harness::{Api, Db};

/// `METHOD path` of every route in the description.
pub(super) fn described() -> BTreeSet<String> {
    let json = serde_json::to_value(rowlock::http::description()).expect("JSON");
    let paths = json["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &serde_json::Value)| {
        let methods = item.as_object().expect("methods").keys();
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

/// The template of the description that a request was for.
fn template(routes: &BTreeSet<String>, method: &str, path: &str) -> Option<String> {
    let fits = |route: &&String| {
        let (template_method, template) = route.split_once(' ').expect("two words");
        let (ours, theirs) = (template.split('/'), path.split('/'));
        template_method == method
            && ours.clone().count() == theirs.clone().count()
            && ours.zip(theirs).all(|(ours, theirs)| ours.starts_with('{') || ours == theirs)
    };
    // A literal route comes before one with a variable at the same place.
    routes.iter().filter(fits).min_by_key(|route| route.matches('{').count()).cloned()
}

#[test]
fn the_description_claims_no_licence() {
    let json = serde_json::to_value(rowlock::http::description()).expect("JSON");
    assert_eq!(json["info"]["title"], "Rowlock");
    assert_eq!(json["info"].get("license"), None);
}

#[test]
fn the_page_lists_every_described_route() {
    let page = include_str!("../../../docs/HTTP.md");
    let missing = |route: &String| !page.contains(&format!("\n| `{route}` |"));
    let missing: Vec<_> = described().into_iter().filter(missing).collect();
    assert!(missing.is_empty(), "docs/HTTP.md does not list {missing:?}");
}

#[tokio::test]
async fn every_described_route_answers() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    visit_jobs(&api).await;
    visit_work(&api).await;
    visit_the_rest(&api).await;

    let routes = described();
    let asked = api.asked();
    let visited: BTreeSet<String> =
        asked.iter().filter_map(|(method, path)| template(&routes, method, path)).collect();
    let missing: Vec<_> = routes.difference(&visited).collect();
    assert!(missing.is_empty(), "no request for {missing:?}");
    api.stop().await;
    db.finish().await;
}

async fn visit_jobs(api: &Api) {
    let one = enqueue(api, "tour", "mail").await;
    let graph = json!({"jobs": [
        {"ref": "first", "kind": "a", "queue": "graph"},
        {"ref": "second", "kind": "b", "queue": "graph", "depends_on": ["first"]},
    ]});
    let graph = api.post("/v1/workflows", graph).await.json(201);
    assert_eq!(graph["jobs"][1]["ref"], "second");
    let path = format!("/v1/workflows/{}", graph["workflow"].as_str().expect("an id"));
    assert_eq!(api.get("/v1/workflows").await.json(200)["workflows"][0]["jobs"], 2);
    let cancelled = api.post(&format!("{path}/cancel"), "").await.json(200);
    assert_eq!(cancelled["verdicts"], json!({"cancelled": 2}));
    let retried = api.post(&format!("{path}/retry"), "").await.json(200);
    assert_eq!(retried["verdicts"], json!({"retried": 2}));
    assert_eq!(api.get(&path).await.json(200)["edges"][0]["jobs"], 1);
    assert_eq!(api.get("/v1/jobs").await.json(200)["jobs"].as_array().map(Vec::len), Some(3));
    assert_eq!(state(api, &one).await, "ready");
    let cancelled = api.post(&format!("/v1/jobs/{one}/cancel"), "").await.json(200);
    assert_eq!(cancelled["verdict"], "cancelled");
    let retried = api.post(&format!("/v1/jobs/{one}/retry"), "").await.json(200);
    assert_eq!(retried["verdict"], "retried");
    let body = json!({"priority": 4});
    let moved = api.post(&format!("/v1/jobs/{one}/reprioritize"), body).await.json(200);
    assert_eq!(moved["verdict"], "reprioritized");
    let why = api.get(&format!("/v1/jobs/{one}/explain")).await.json(200);
    assert_eq!(why["state"], "ready");
    let given = api.get(&format!("/v1/jobs/{one}/inputs")).await.json(200);
    assert_eq!(given["inputs"], json!([]));
}

async fn visit_work(api: &Api) {
    for _ in 0..3 {
        enqueue(api, "tour", "mail").await;
    }
    let (worker, jobs) = acquire(api, "tour", 4).await;
    assert_eq!(jobs.len(), 4);
    let beat = json!({"executions": jobs.iter().map(held).collect::<Vec<_>>()});
    let beat = api.post(&format!("/v1/workers/{worker}/heartbeat"), beat).await.json(200);
    assert_eq!(beat["executions"][3]["verdict"], "held");
    let verbs = [
        ("complete", "completed", json!({})),
        ("fail", "retrying", json!({"error": "no"})),
        ("snooze", "snoozed", json!({"until": "2030-01-01T00:00:00Z"})),
        ("release", "released", json!({})),
    ];
    for ((verb, verdict, extra), job) in verbs.into_iter().zip(&jobs) {
        let mut entry = held(job);
        entry
            .as_object_mut()
            .expect("an object")
            .extend(extra.as_object().cloned().unwrap_or_default());
        let body = json!({"worker": worker, "executions": [entry]});
        let answer = api.post(&format!("/v1/executions/{verb}"), body).await.json(200);
        assert_eq!(answer["executions"][0]["verdict"], verdict, "{verb}");
        assert_eq!(answer["executions"][0]["job_id"], job["job_id"]);
    }
}

async fn visit_the_rest(api: &Api) {
    for verb in ["pause", "resume"] {
        let answer = api.post(&format!("/v1/queues/tour/{verb}"), "").await.json(200);
        assert_eq!(answer["changed"], true, "{verb}");
    }
    for path in ["/v1/queues", "/v1/workers", "/v1/stats", "/healthz", "/readyz", "/openapi.json"] {
        api.get(path).await.json(200);
    }
    assert_eq!(api.get("/metrics").await.status, 200);
}
