//! The API as a client sees it: real requests to a served router over a real database.

mod bodies;
mod jobs;
mod operate;
mod service;
mod tokens;
mod tour;
mod work;
mod workflows;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Api;

/// Enqueues a job of this kind into this queue; its id.
async fn enqueue(api: &Api, queue: &str, kind: &str) -> String {
    let answer = api.post("/v1/jobs", json!({"kind": kind, "queue": queue})).await.json(201);
    answer["id"].as_str().expect("an id").to_owned()
}

/// Acquires for a fresh worker; the worker and the jobs.
async fn acquire(api: &Api, queue: &str, max_jobs: u32) -> (Uuid, Vec<Value>) {
    let worker = Uuid::new_v4();
    let body = json!({"worker": worker, "queues": [queue], "max_jobs": max_jobs});
    let answer = api.post("/v1/acquire", body).await.json(200);
    (worker, answer["jobs"].as_array().expect("jobs").clone())
}

/// The three-part name of an acquired job, as the finishing routes want it.
fn held(job: &Value) -> Value {
    json!({"job_id": job["job_id"], "attempt": job["attempt"], "token": job["token"]})
}

/// The state of a job.
async fn state(api: &Api, id: &str) -> String {
    let job = api.get(&format!("/v1/jobs/{id}")).await.json(200);
    job["state"].as_str().expect("a state").to_owned()
}
