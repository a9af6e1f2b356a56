//! A worker over HTTP: acquire, wait, heartbeat, finish.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::{acquire, enqueue, held, state};
use crate::harness::{Api, Db, wait_until};

const JSON: (&str, &str) = ("content-type", "application/json");
const SOON: Duration = Duration::from_secs(20);

fn ask(queue: &str, wait_ms: u64) -> String {
    json!({"worker": Uuid::new_v4(), "queues": [queue], "wait_ms": wait_ms}).to_string()
}

#[tokio::test]
async fn the_most_urgent_come_first_with_all_that_a_worker_needs() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for priority in [7, 0, 3] {
        let job = json!({"kind": "a", "queue": "q", "priority": priority, "args": {"p": priority}});
        api.post("/v1/jobs", job).await.json(201);
    }
    let (_, jobs) = acquire(&api, "q", 10).await;
    let order: Vec<_> = jobs.iter().map(|job| job["priority"].as_i64().unwrap()).collect();
    assert_eq!(order, [0, 3, 7]);
    assert_eq!(jobs[0]["args"], json!({"p": 0}));
    assert_eq!(jobs[0]["attempt"], 1);
    assert_eq!(jobs[0]["timeout"], Value::Null);
    for key in ["job_id", "token", "run_at", "created_at", "queue", "kind"] {
        assert!(jobs[0][key].is_string(), "{key}: {}", jobs[0]);
    }
    assert_eq!(acquire(&api, "q", 1).await.1.len(), 0);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_long_poll_returns_when_a_job_comes() {
    let db = Db::new().await;
    // A poll interval beyond the test: only a wake-up can end the wait.
    let api = Api::start_with(&db, |setup| setup.queue.poll = Duration::from_secs(300)).await;
    wait_until("the listener is up", SOON, || async {
        api.get("/readyz").await.json(200)["listener"] == "listen"
    })
    .await;
    let began = Instant::now();
    let body = ask("q", 30_000);
    let (answer, id) = tokio::join!(api.post("/v1/acquire", body), async {
        // The sleeper's lock is what producers see.
        let observer = db.connect().await;
        wait_until("the poll sleeps", SOON, || async {
            let query = "select exists (select from pg_locks where locktype = 'advisory'
                         and mode = 'ShareLock')";
            observer.query_one(query, &[]).await.expect("locks").get(0)
        })
        .await;
        enqueue(&api, "q", "a").await
    });
    let jobs = answer.json(200);
    assert_eq!(jobs["jobs"][0]["job_id"], json!(id));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_long_poll_ends_at_its_deadline_and_at_a_stop() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let began = Instant::now();
    let empty = api.post("/v1/acquire", ask("q", 700)).await.json(200);
    assert_eq!(empty, json!({"jobs": []}));
    assert!(Duration::from_millis(700) <= began.elapsed());

    let began = Instant::now();
    let body = ask("q", 30_000);
    let (answer, ()) = tokio::join!(api.post("/v1/acquire", body), async {
        let observer = db.connect().await;
        wait_until("the poll has looked", SOON, || async {
            let query = "select count(*) = 2 from rowlock.workers";
            observer.query_one(query, &[]).await.expect("workers").get(0)
        })
        .await;
        api.shutdown.stop();
    });
    assert_eq!(answer.json(200), json!({"jobs": []}));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_nothing_along() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let gone = api.open("POST", "/v1/acquire", &[JSON], &ask("q", 30_000)).await;
    let observer = db.connect().await;
    wait_until("the poll has looked", SOON, || async {
        let query = "select count(*) = 1 from rowlock.workers";
        observer.query_one(query, &[]).await.expect("workers").get(0)
    })
    .await;
    drop(gone);
    let id = enqueue(&api, "q", "a").await;
    // Whoever is still there gets it, at once or after it was given back.
    let mut stays = api.open("POST", "/v1/acquire", &[JSON], &ask("q", 20_000)).await;
    let mut answer = String::new();
    stays.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.contains(&id), "{answer}");
    let open = "select count(*) from rowlock.executions where finished_at is null";
    let open: i64 = observer.query_one(open, &[]).await.expect("executions").get(0);
    assert_eq!(open, 1);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_client_that_goes_away_while_inputs_are_read_takes_nothing_along() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let (holder, observer) = (db.connect().await, db.connect().await);
    enqueue(&api, "q", "a").await;
    // Only inputs are read from there.
    holder.batch_execute("begin; lock table rowlock.dependencies").await.expect("locks");
    let body = json!({"worker": Uuid::new_v4(), "queues": ["q"], "inputs": true}).to_string();
    let gone = api.open("POST", "/v1/acquire", &[JSON], &body).await;
    let waits = "select count(*) > 0 from pg_locks where not granted
                 and relation = 'rowlock.dependencies'::regclass";
    wait_until("inputs are waited for", SOON, || async {
        observer.query_one(waits, &[]).await.expect("locks").get(0)
    })
    .await;
    drop(gone);
    let given_back = "select count(*) = 1 from rowlock.executions where outcome = 'released'";
    wait_until("the job is given back", SOON, || async {
        observer.query_one(given_back, &[]).await.expect("executions").get(0)
    })
    .await;
    holder.batch_execute("commit").await.expect("commits");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn verdicts_come_in_the_order_of_the_question() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for _ in 0..3 {
        enqueue(&api, "q", "a").await;
    }
    let (worker, jobs) = acquire(&api, "q", 3).await;
    let mut too_large = held(&jobs[1]);
    too_large["result"] = json!("x".repeat(262_145));
    let mut stale = held(&jobs[2]);
    stale["token"] = json!(Uuid::new_v4());
    let entries = [held(&jobs[0]), too_large, stale, held(&jobs[0])];
    let body = json!({"worker": worker, "executions": entries});
    let answer = api.post("/v1/executions/complete", body).await.json(200);
    let verdicts: Vec<_> =
        answer["executions"].as_array().unwrap().iter().map(|entry| &entry["verdict"]).collect();
    assert_eq!(verdicts, ["completed", "result_too_large", "stale", "repeated"]);
    assert_eq!(state(&api, jobs[1]["job_id"].as_str().unwrap()).await, "running");

    let mut broken = held(&jobs[1]);
    broken["error"] = json!("it broke");
    broken["discard"] = json!(true);
    let body = json!({"worker": worker, "executions": [broken]});
    let answer = api.post("/v1/executions/fail", body).await.json(200);
    assert_eq!(answer["executions"][0]["verdict"], "discarded");
    let shown =
        api.get(&format!("/v1/jobs/{}", jobs[1]["job_id"].as_str().unwrap())).await.json(200);
    assert_eq!(shown["executions"][0]["error"], "it broke");
    assert_eq!(shown["executions"][0]["outcome"], "failed");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_heartbeat_says_what_to_stop() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    for _ in 0..3 {
        enqueue(&api, "q", "a").await;
    }
    let (worker, jobs) = acquire(&api, "q", 3).await;
    let id = |job: &Value| job["job_id"].as_str().unwrap().to_owned();
    let asked = api.post(&format!("/v1/jobs/{}/cancel", id(&jobs[1])), "").await.json(200);
    assert_eq!(asked["verdict"], "cancelling");
    let body = json!({"worker": worker, "executions": [held(&jobs[2])]});
    api.post("/v1/executions/release", body).await.json(200);
    let body =
        json!({"executions": jobs.iter().map(held).collect::<Vec<_>>(), "lease": "1 minute"});
    let beat = api.post(&format!("/v1/workers/{worker}/heartbeat"), body).await.json(200);
    let verdicts: Vec<_> =
        beat["executions"].as_array().unwrap().iter().map(|entry| &entry["verdict"]).collect();
    assert_eq!(verdicts, ["held", "cancel", "lost"]);
    let body = json!({"worker": worker, "executions": [held(&jobs[1])]});
    let answer = api.post("/v1/executions/complete", body).await.json(200);
    assert_eq!(answer["executions"][0]["verdict"], "cancelled");
    let workers = api.get("/v1/workers").await.json(200);
    assert_eq!(workers["workers"][0]["id"], json!(worker));
    assert_eq!(workers["workers"][0]["load"], 1);
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn what_a_worker_says_wrongly_is_refused() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let worker = Uuid::new_v4();
    let execution = json!({"job_id": worker, "attempt": 1, "token": worker});
    let mut too_late = execution.clone();
    too_late["until"] = json!("2100-01-01T00:00:00Z");
    let beat = format!("/v1/workers/{worker}/heartbeat");
    for (path, body) in [
        ("/v1/acquire", json!({"worker": "me", "queues": ["q"]})),
        ("/v1/acquire", json!({"worker": worker, "queues": []})),
        ("/v1/acquire", json!({"worker": worker, "queues": ["a b"]})),
        ("/v1/acquire", json!({"worker": worker, "queues": ["q"], "max_jobs": 0})),
        ("/v1/acquire", json!({"worker": worker, "queues": ["q"], "max_jobs": 1001})),
        ("/v1/acquire", json!({"worker": worker, "queues": ["q"], "lease": "1 ms"})),
        ("/v1/acquire", json!({"worker": worker, "queues": ["q"], "wait_ms": -1})),
        ("/v1/acquire", json!({"worker": worker, "queues": ["q"], "wait": 1})),
        ("/v1/executions/complete", json!({"worker": worker})),
        ("/v1/executions/complete", json!({"worker": worker, "executions": [{}]})),
        ("/v1/executions/fail", json!({"worker": worker, "executions": [{"job_id": worker}]})),
        ("/v1/executions/snooze", json!({"worker": worker, "executions": [execution]})),
        ("/v1/executions/snooze", json!({"worker": worker, "executions": [too_late]})),
        ("/v1/executions/release", json!({"worker": worker, "executions": [], "x": 1})),
        (beat.as_str(), json!({"executions": [], "lease": "25 hours"})),
        (beat.as_str(), json!([])),
        ("/v1/workers/me/heartbeat", json!({"executions": []})),
    ] {
        let answer = api.post(path, &body).await;
        assert_eq!(answer.status, 422, "{path} {body}: {answer:?}");
        answer.problem(422, "RL422");
    }
    // A job that nobody knows is stale, not an error: its batch-mates go on.
    let body = json!({"worker": worker, "executions": [execution]});
    for verb in ["complete", "fail", "release"] {
        let answer = api.post(&format!("/v1/executions/{verb}"), &body).await.json(200);
        assert_eq!(answer["executions"][0]["verdict"], "stale", "{verb}");
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn inputs_come_with_a_job_when_asked_for() {
    let db = Db::new().await;
    let api = Api::start(&db).await;
    let graph = json!({"jobs": [
        {"ref": "rows", "kind": "a", "queue": "q"},
        {"ref": "lost", "kind": "b", "queue": "q"},
        {"kind": "c", "queue": "q", "depends_on":
            ["rows", {"job": "lost", "on_parent_failure": "continue"}]},
    ]});
    let graph = api.post("/v1/workflows", graph).await.json(201);
    let (worker, jobs) = acquire(&api, "q", 2).await;
    let mut done = held(&jobs[0]);
    done["result"] = json!({"n": 7});
    let body = json!({"worker": worker, "executions": [done]});
    api.post("/v1/executions/complete", body).await.json(200);
    let mut lost = held(&jobs[1]);
    lost["discard"] = json!(true);
    let body = json!({"worker": worker, "executions": [lost]});
    api.post("/v1/executions/fail", body).await.json(200);
    let body = json!({"worker": worker, "queues": ["q"], "inputs": true});
    let got = api.post("/v1/acquire", body).await.json(200)["jobs"][0].clone();
    let ids = |n: usize| graph["jobs"][n]["id"].clone();
    let expected = json!([
        {"ref": "lost", "parent": ids(1), "state": "discarded", "result": null, "omitted": false},
        {"ref": "rows", "parent": ids(0), "state": "completed", "result": {"n": 7}, "omitted": false},
    ]);
    assert_eq!((&got["job_id"], &got["inputs"]), (&ids(2), &expected));
    let path = format!("/v1/jobs/{}/inputs", got["job_id"].as_str().expect("an id"));
    assert_eq!(api.get(&path).await.json(200)["inputs"], expected);
    let unknown = format!("/v1/jobs/{}/inputs", Uuid::now_v7());
    api.get(&unknown).await.problem(404, "RL404");
    api.stop().await;
    db.finish().await;
}
