//! One field of a job at a time, through every door that has it: two SQL functions, two routes and
//! the library. What is refused is named and not stored; what is kept comes back as it went.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use rowlock::engine::Engine;
use rowlock::model::{Code, NewJob};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{answered, cases, refusal};
use crate::engine::open;
use crate::harness::sql::{column, value};
use crate::harness::{Api, Db};

/// A field with a value, and what each door makes of it.
pub(super) struct Case {
    pub(super) field: &'static str,
    /// The value as JSON text, which may be none.
    pub(super) json: String,
    /// What `enqueue_many` says: a SQLSTATE, or `kept`.
    pub(super) many: &'static str,
    /// What `enqueue` says; `-` where the value is none of the argument's type in SQL.
    pub(super) one: &'static str,
    /// The status over HTTP, where it is refused.
    pub(super) http: u16,
}

const KEPT: &str = "kept";

/// Accepted at every door.
pub(super) fn kept(field: &'static str, json: impl Into<String>) -> Case {
    Case { field, json: json.into(), many: KEPT, one: KEPT, http: 201 }
}

/// Refused at every door as not valid.
pub(super) fn bad(field: &'static str, json: impl Into<String>) -> Case {
    Case { field, json: json.into(), many: "RL422", one: "RL422", http: 422 }
}

impl Case {
    /// Both SQL functions say this, before they have begun: Postgres reads no such value.
    pub(super) fn sql(self, code: &'static str) -> Case {
        Case { many: code, one: code, ..self }
    }

    /// `enqueue` says this instead.
    pub(super) fn one(self, code: &'static str) -> Case {
        Case { one: code, ..self }
    }

    /// The status over HTTP is this.
    pub(super) fn http(self, status: u16) -> Case {
        Case { http: status, ..self }
    }

    fn shown(&self) -> String {
        format!("{}: {:.60} ({} bytes)", self.field, self.json, self.json.len())
    }

    /// A job with the field, as JSON.
    fn body(&self) -> String {
        let given = [("kind", r#""k""#), ("queue", r#""input""#)];
        let others = given.iter().filter(|(name, _)| *name != self.field);
        let others: String = others.map(|(name, json)| format!(r#""{name}":{json},"#)).collect();
        format!(r#"{{{others}"{}":{}}}"#, self.field, self.json)
    }

    /// The value as the text that SQL reads, where it is one.
    fn text(&self) -> Option<String> {
        if self.field == "args" {
            return Some(self.json.clone());
        }
        match serde_json::from_str(&self.json).ok()? {
            Value::String(text) => Some(text),
            Value::Number(_) => Some(self.json.clone()),
            _ => None,
        }
    }

    /// A call of `enqueue` that takes the value as a text.
    fn call(&self) -> Option<String> {
        let ty = match self.field {
            "args" => "jsonb",
            "kind" | "queue" | "unique_key" | "on_parent_failure" => "text",
            "priority" | "max_attempts" => "int",
            "run_at" => "timestamptz",
            "timeout" => "interval",
            "id" => "uuid",
            _ => return None,
        };
        let given = [("kind", "'k'"), ("queue", "'input'")];
        let others = given.iter().filter(|(name, _)| *name != self.field);
        let others: String = others.map(|(name, sql)| format!("{name} => {sql}, ")).collect();
        Some(format!("select enqueue({others}{} => $1::text::{ty})", self.field))
    }

    /// The job for the library, where its types can say the value.
    fn job(&self) -> Option<NewJob> {
        let args = if self.field == "args" { &self.json } else { "{}" };
        let job = NewJob::from_raw("k", RawValue::from_string(args.to_owned()).ok()?);
        let job = job.queue("input");
        if self.field == "args" {
            return Some(job);
        }
        match (self.field, serde_json::from_str(&self.json).ok()?) {
            ("kind", Value::String(text)) => Some(NewJob { kind: text, ..job }),
            ("queue", Value::String(text)) => Some(job.queue(text)),
            ("unique_key", Value::String(text)) => Some(job.unique_key(text)),
            ("priority", Value::Number(number)) => {
                Some(job.priority(number.as_i64()?.try_into().ok()?))
            }
            ("max_attempts", Value::Number(number)) => {
                Some(job.max_attempts(number.as_i64()?.try_into().ok()?))
            }
            _ => None,
        }
    }
}

/// What was kept: the id, and the args in Postgres's own words.
type Kept = HashMap<Uuid, String>;

async fn through_sql(client: &Client, case: &Case, kept: &mut Kept) {
    let many = format!("[{}]", case.body());
    let sql = "select job_id from enqueue_many($1::text::jsonb)";
    through_function(client, case, sql, &many, case.many, kept).await;
    if let (Some(sql), Some(text)) = (case.call(), case.text())
        && case.one != "-"
    {
        through_function(client, case, &sql, &text, case.one, kept).await;
    }
}

async fn through_function(
    client: &Client,
    case: &Case,
    sql: &str,
    text: &str,
    expected: &str,
    kept: &mut Kept,
) {
    let shown = case.shown();
    let answer = client.query_one(sql, &[&text]).await;
    if expected != KEPT {
        let error = refusal(&shown, answer.map(|_| ()), expected);
        if expected.starts_with("RL") {
            let named = if case.field.starts_with('?') { "key" } else { case.field };
            assert!(error.message().contains(named), "{shown}: {error:?}");
        }
        return;
    }
    let id: Uuid = answer.unwrap_or_else(|error| panic!("{shown}: {sql}: {error:?}")).get(0);
    keep(client, case, id, kept).await;
}

async fn through_http(api: &Api, client: &Client, case: &Case, kept: &mut Kept) {
    let body = case.body();
    for (path, body) in
        [("/v1/jobs", body.clone()), ("/v1/workflows", format!(r#"{{"jobs":[{body}]}}"#))]
    {
        let shown = format!("{path}: {}", case.shown());
        let answer = api.post(path, body).await;
        // The key is that of a job from another door.
        let status =
            if case.field == "unique_key" && answer.status == 200 { 200 } else { case.http };
        let answer = answered(&shown, &answer, status);
        if case.http == 201 {
            let id = if path == "/v1/jobs" { &answer["id"] } else { &answer["jobs"][0]["id"] };
            let id: Uuid = id.as_str().expect("an id").parse().expect("a UUID");
            keep(client, case, id, kept).await;
        } else if case.many.starts_with("RL") && case.http == 422 {
            let detail = answer["detail"].as_str().unwrap_or_default();
            let named = case.field.trim_start_matches('?');
            assert!(detail.contains(named), "{shown}: {detail}");
        }
    }
}

async fn through_the_library(engine: &Engine, client: &Client, case: &Case, kept: &mut Kept) {
    let Some(job) = case.job() else { return };
    let shown = case.shown();
    match (engine.enqueue_one(job).await, case.http) {
        (Ok(enqueued), 201) => keep(client, case, enqueued.job_id, kept).await,
        (Err(error), 413) => assert_eq!(error.code(), Some(Code::TooLarge), "{shown}: {error:?}"),
        (Err(error), 422) => assert_eq!(error.code(), Some(Code::Invalid), "{shown}: {error:?}"),
        (answer, status) => panic!("{shown}: not {status}: {answer:?}"),
    }
}

/// Notes a job that was stored, and sees that its row has what was given.
async fn keep(client: &Client, case: &Case, id: Uuid, kept: &mut Kept) {
    let column = match case.field {
        "args" | "kind" | "queue" | "unique_key" => format!("to_jsonb({})", case.field),
        _ => "null::jsonb".to_owned(),
    };
    let sql = format!(
        "select coalesce({column} = $2::text::jsonb, true), args::text from jobs where id = $1"
    );
    let row = client.query_one(&sql, &[&id, &case.json]).await.expect("the job");
    assert!(row.get::<_, bool>(0) || case.json == "null", "{} is stored otherwise", case.shown());
    if case.field == "args" {
        let digits: String = client
            .query_one("select $1::text::jsonb::text", &[&case.json])
            .await
            .expect("JSON")
            .get(0);
        assert_eq!(row.get::<_, String>(1), digits, "{}", case.shown());
    }
    kept.insert(id, row.get(1));
}

#[derive(Deserialize)]
struct Acquired<'a> {
    #[serde(borrow)]
    jobs: Vec<AcquiredJob<'a>>,
}

#[derive(Deserialize)]
struct AcquiredJob<'a> {
    job_id: Uuid,
    attempt: i32,
    token: Uuid,
    #[serde(borrow)]
    args: &'a RawValue,
}

/// Runs everything that was kept, and a canary after it; args come over HTTP as they are stored.
async fn drain(api: &Api, client: &Client, mut kept: Kept) {
    let queues: Vec<String> =
        column(client, "select distinct queue from jobs union select 'canary'").await;
    let canary = api.post("/v1/jobs", r#"{"kind":"k","queue":"canary"}"#).await.json(201);
    let canary: Uuid = canary["id"].as_str().expect("an id").parse().expect("a UUID");
    kept.insert(canary, "{}".to_owned());
    let worker = Uuid::new_v4();
    loop {
        let body = serde_json::json!({"worker": worker, "queues": queues, "max_jobs": 1000});
        let answer = api.post("/v1/acquire", body).await;
        let got: Acquired<'_> = serde_json::from_str(&answer.body).expect("jobs");
        if got.jobs.is_empty() {
            break;
        }
        let mut executions = Vec::new();
        for AcquiredJob { job_id, attempt, token, args } in got.jobs {
            let expected = kept.remove(&job_id);
            assert_eq!(expected.as_deref(), Some(args.get()), "{job_id}");
            let execution =
                serde_json::json!({"job_id": job_id, "attempt": attempt, "token": token});
            executions.push(execution);
        }
        let body = serde_json::json!({"worker": worker, "executions": executions});
        let done = api.post("/v1/executions/complete", body).await.json(200);
        for execution in done["executions"].as_array().expect("verdicts") {
            assert_eq!(execution["verdict"], "completed");
        }
    }
    assert!(kept.is_empty(), "{} jobs did not come, of {kept:?}", kept.len());
}

#[tokio::test]
async fn every_field_of_a_job_at_every_door() {
    let db = Db::new().await;
    let client = db.connect().await;
    let api = Api::start(&db).await;
    let (engine, shutdown) = open(&db);
    let mut kept = Kept::new();
    let cases = cases::of_jobs();
    assert!(100 <= cases.len(), "only {} cases", cases.len());
    let mut faults = 0;
    for case in &cases {
        let doors = async {
            through_sql(&client, case, &mut kept).await;
            through_http(&api, &client, case, &mut kept).await;
            through_the_library(&engine, &client, case, &mut kept).await;
        };
        // Each fault is printed where it is found; the others are looked for all the same.
        faults += usize::from(AssertUnwindSafe(doors).catch_unwind().await.is_err());
    }
    assert_eq!(faults, 0, "of {} cases", cases.len());
    let stored: i64 = value(&client, "select count(*) from jobs").await;
    assert_eq!(usize::try_from(stored), Ok(kept.len()), "something refused was stored");
    drain(&api, &client, kept).await;
    drop(engine);
    assert!(shutdown.drain(std::time::Duration::from_secs(10)).await);
    api.stop().await;
    db.finish().await;
}
