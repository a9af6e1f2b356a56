//! Tokens of the database: what a token of some queues sees, and how tokens come and go.

mod routes;

use std::time::{Duration, Instant};

use rowlock::config::Settings;
use rowlock::db::{Options, Pool};
use rowlock::engine::{Engine, Wakeups};
use rowlock::model::{Action, ApiToken, Scope};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Api, Db, wait_until};

const SOON: Duration = Duration::from_secs(30);
const JSON: (&str, &str) = ("content-type", "application/json");

/// A service that wants tokens, and the owner of the schema beside it.
struct Guarded {
    db: Db,
    api: Api,
    owner: Engine,
    everything: ApiToken,
}

impl Guarded {
    async fn start() -> Guarded {
        let db = Db::new().await;
        let api = Api::start_with(&db, |setup| setup.http.tokens = true).await;
        let settings = Settings::default();
        let options = Options::new(db.url().as_str().into(), &settings.database);
        let pool = Pool::new(&options).expect("the url is good");
        let owner = Engine::new(pool, &settings.queue, Wakeups::polling());
        let scope = Scope { actions: Action::ALL.to_vec(), queues: None };
        let everything = owner.create_token("all", &scope, None).await.expect("a token");
        Guarded { db, api, owner, everything }
    }

    async fn token(&self, actions: &[Action], queues: &[&str]) -> ApiToken {
        self.expiring(actions, queues, None).await
    }

    async fn expiring(
        &self,
        actions: &[Action],
        queues: &[&str],
        expires_in: Option<Duration>,
    ) -> ApiToken {
        let queues = queues.iter().map(ToString::to_string).collect();
        let scope = Scope { actions: actions.to_vec(), queues: Some(queues) };
        self.owner.create_token("some", &scope, expires_in).await.expect("a token")
    }

    async fn ask(&self, token: &str, method: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let authorization = ("authorization", bearer.as_str());
        let none = token.is_empty();
        let headers = if none { &[JSON][..] } else { &[JSON, authorization][..] };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.api.send(method, path, headers, &body).await
    }

    async fn get(&self, token: &ApiToken, path: &str) -> Answer {
        self.ask(token.expose(), "GET", path, &Value::Null).await
    }

    async fn post(&self, token: &ApiToken, path: &str, body: Value) -> Answer {
        self.ask(token.expose(), "POST", path, &body).await
    }

    /// Enqueues by the token that allows everything; the id.
    async fn enqueue(&self, job: Value) -> String {
        let answer = self.post(&self.everything, "/v1/jobs", job).await.json(201);
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// A worker that has acquired from this queue.
    async fn worker(&self, queue: &str) -> (Uuid, Vec<Value>) {
        let worker = Uuid::new_v4();
        let body = json!({"worker": worker, "queues": [queue], "max_jobs": 10});
        let answer = self.post(&self.everything, "/v1/acquire", body).await.json(200);
        (worker, answer["jobs"].as_array().expect("jobs").clone())
    }

    async fn end(self) {
        self.api.stop().await;
        drop(self.owner);
        self.db.finish().await;
    }
}

#[tokio::test]
async fn what_is_of_other_queues_is_not_there() {
    let guarded = Guarded::start().await;
    let mine = guarded.token(Action::ALL, &["mine", "mine/*"]).await;
    let only = guarded.token(&[Action::Observe], &["mine"]).await;
    let theirs = guarded.enqueue(json!({"kind": "a", "queue": "theirs"})).await;
    let own = guarded.enqueue(json!({"kind": "a", "queue": "mine"})).await;
    let deeper = guarded.enqueue(json!({"kind": "a", "queue": "mine/deeper"})).await;

    for (token, expected) in [(&mine, vec![&deeper, &own]), (&only, vec![&own])] {
        let page = guarded.get(token, "/v1/jobs?limit=10").await.json(200);
        let ids: Vec<&str> = page["jobs"]
            .as_array()
            .expect("jobs")
            .iter()
            .filter_map(|job| job["id"].as_str())
            .collect();
        assert_eq!(ids, expected);
    }
    assert_eq!(guarded.get(&mine, "/v1/jobs?queue=theirs").await.json(200)["jobs"], json!([]));
    // At once, as for one that does not exist.
    let started = Instant::now();
    let foreign = guarded.get(&mine, &format!("/v1/jobs/{theirs}?wait=20")).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let nobody = Uuid::now_v7().to_string();
    let unknown = guarded.get(&mine, &format!("/v1/jobs/{nobody}?wait=20")).await;
    assert_eq!(foreign.body.replace(&theirs, "ID"), unknown.body.replace(&nobody, "ID"));

    // Neither is a parent of another queue.
    let child = |parent: &str| json!({"kind": "c", "queue": "mine", "depends_on": [parent]});
    let foreign = guarded.post(&mine, "/v1/jobs", child(&theirs)).await;
    let unknown = guarded.post(&mine, "/v1/jobs", child(&nobody)).await;
    unknown.problem(422, "RL422");
    assert_eq!(foreign.body.replace(&theirs, "ID"), unknown.body.replace(&nobody, "ID"));
    guarded.post(&mine, "/v1/jobs", child(&own)).await.json(201);
    // A job without a queue is one of `default`.
    guarded.post(&mine, "/v1/jobs", json!({"kind": "a"})).await.problem(403, "forbidden");
    let several = json!([{"kind": "a", "queue": "mine"}, {"kind": "a", "queue": "theirs"}]);
    guarded.post(&mine, "/v1/jobs", several).await.problem(403, "forbidden");

    // A workflow is whose all of its jobs are.
    let mixed = json!({"jobs": [
        {"ref": "a", "kind": "a", "queue": "mine"},
        {"kind": "b", "queue": "theirs", "depends_on": ["a"]},
    ]});
    let mixed = guarded.post(&guarded.everything, "/v1/workflows", mixed).await.json(201);
    let path = format!("/v1/workflows/{}", mixed["workflow"].as_str().expect("an id"));
    guarded.get(&mine, &path).await.problem(404, "RL404");
    guarded.post(&mine, &format!("{path}/cancel"), Value::Null).await.problem(404, "RL404");
    assert_eq!(guarded.get(&mine, "/v1/workflows").await.json(200)["workflows"], json!([]));
    guarded.get(&guarded.everything, &path).await.json(200);

    let queues = guarded.get(&mine, "/v1/queues").await.json(200);
    let names: Vec<&Value> =
        queues["queues"].as_array().expect("queues").iter().map(|queue| &queue["name"]).collect();
    assert_eq!(names, ["mine", "mine/deeper"]);
    guarded.end().await;
}

#[tokio::test]
async fn nobody_speaks_for_a_worker_of_other_queues() {
    let guarded = Guarded::start().await;
    let mine = guarded.token(&[Action::Work, Action::Observe], &["mine"]).await;
    guarded.enqueue(json!({"kind": "a", "queue": "theirs"})).await;
    let (worker, jobs) = guarded.worker("theirs").await;
    let job = &jobs[0];
    let held = json!([{"job_id": job["job_id"], "attempt": job["attempt"], "token": job["token"]}]);

    // It would give back what the worker holds, end it, or bring its lease to an end.
    let path = format!("/v1/workers/{worker}/heartbeat");
    let beat = json!({"executions": [], "seen_call": 1_000_000, "lease": "1 second"});
    guarded.post(&mine, &path, beat).await.problem(403, "forbidden");
    let body = json!({"worker": worker, "executions": held});
    for verb in ["complete", "release"] {
        let path = format!("/v1/executions/{verb}");
        guarded.post(&mine, &path, body.clone()).await.problem(403, "forbidden");
    }
    let ask = json!({"worker": worker, "queues": ["mine"], "lease": "1 second"});
    guarded.post(&mine, "/v1/acquire", ask).await.problem(403, "forbidden");
    assert_eq!(guarded.get(&mine, "/v1/workers").await.json(200)["workers"], json!([]));

    let theirs = guarded.token(&[Action::Work], &["theirs"]).await;
    let answer = guarded.post(&theirs, "/v1/executions/complete", body).await.json(200);
    assert_eq!(answer["executions"][0]["verdict"], "completed");
    guarded.end().await;
}

#[tokio::test]
async fn a_token_is_rotated_with_an_overlap_and_revoked_at_once() {
    let guarded = Guarded::start().await;
    let old = guarded.token(&[Action::Observe], &["mine"]).await;
    let hour = Duration::from_secs(3600);
    let new = guarded.owner.rotate_token(old.id(), hour, None).await.expect("rotated");
    for token in [&old, &new] {
        guarded.get(token, "/v1/jobs").await.json(200);
    }
    let kept = guarded.owner.tokens().await.expect("reads");
    let of = |token: &ApiToken| kept.iter().find(|it| it.id == token.id()).expect("it is kept");
    assert_eq!((&of(&old).name, &of(&old).scope), (&of(&new).name, &of(&new).scope));
    assert!(of(&old).expires_at.is_some() && of(&new).expires_at.is_none());
    assert!(of(&old).last_used_at.is_some() && of(&new).last_used_at.is_some());

    // Without an overlap, and by revocation, it is over as soon as nobody remembers it.
    let next = guarded.owner.rotate_token(new.id(), Duration::ZERO, None).await.expect("rotated");
    assert!(guarded.owner.revoke_token(old.id()).await.expect("revoked"));
    assert!(!guarded.owner.revoke_token(old.id()).await.expect("it is there"));
    for token in [&old, &new] {
        wait_until("it is refused", SOON, || async {
            guarded.get(token, "/v1/jobs").await.status == 401
        })
        .await;
        let again = guarded.owner.rotate_token(token.id(), hour, None).await.unwrap_err();
        assert!(again.to_string().starts_with("RL404"), "{again}");
    }
    guarded.get(&next, "/v1/jobs").await.json(200);
    guarded.end().await;
}

#[tokio::test]
async fn the_database_holds_no_usable_token() {
    let guarded = Guarded::start().await;
    let token = guarded.token(Action::ALL, &["mine"]).await;
    guarded.get(&token, "/v1/jobs").await.json(200);
    let client = guarded.db.connect().await;
    let dump = "select string_agg(t::text, ' ') from tokens t";
    let dump: String = client.query_one(dump, &[]).await.expect("reads").get(0);
    assert!(dump.contains(token.id()), "{dump}");
    let secret = token.expose().rsplit('_').next().expect("a secret");
    for at in 0..=secret.len() - 8 {
        assert!(!dump.contains(&secret[at..at + 8]), "{dump} has {}", &secret[at..at + 8]);
    }
    let words = dump.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64);
    let mut digests = 0;
    for digest in words {
        digests += 1;
        for guess in [digest.to_owned(), format!("rlk_{}_{digest}", token.id())] {
            let answer = guarded.ask(&guess, "GET", "/v1/jobs", &Value::Null).await;
            answer.problem(401, "unauthorized");
        }
    }
    assert_eq!(digests, 2);
    drop(client);
    guarded.end().await;
}
