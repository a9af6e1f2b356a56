//! What workers send: entries of the finishing verbs and the heartbeat at both doors, whole calls, and
//! requests that are none. A failure is always recorded; a job is never wedged.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use super::{answered, calls, refusal};
use crate::harness::sql::{Execution, acquire_with, enqueue, finish, run, value};
use crate::harness::{Api, Db};

/// An execution as it is named in a call: each part is a text, or a word for one of the test's own.
pub(super) struct Entry {
    pub(super) worker: &'static str,
    pub(super) job: &'static str,
    pub(super) attempt: &'static str,
    pub(super) token: &'static str,
    /// The verdict (`lost` for a heartbeat where it is `stale`), or the SQLSTATE.
    pub(super) sql: &'static str,
    /// The status over HTTP where it is no verdict.
    pub(super) http: u16,
}

/// A whole call, as SQL and as a request, either of which may be missing.
pub(super) struct Call {
    pub(super) sql: String,
    pub(super) code: &'static str,
    pub(super) path: &'static str,
    pub(super) body: String,
    pub(super) status: u16,
}

/// Two workers that hold a job each, from different queues.
struct Held {
    mine: Execution,
    other: Execution,
}

impl Held {
    async fn of(client: &Client) -> Held {
        let mut held = Vec::new();
        for queue in ["mine", "other"] {
            enqueue(client, &format!("'k', queue => '{queue}'")).await;
            let arguments = format!("'{{{queue}}}', 1, '1 h'");
            held.extend(acquire_with(client, Uuid::new_v4(), &arguments).await);
        }
        let other = held.pop().expect("two");
        Held { mine: held.pop().expect("two"), other }
    }

    /// The words replaced.
    fn fill(&self, text: &str) -> String {
        let words = [
            ("$W2", self.other.worker.to_string()),
            ("$J2", self.other.job_id.to_string()),
            ("$T2", self.other.token.to_string()),
            ("$W", self.mine.worker.to_string()),
            ("$J", self.mine.job_id.to_string()),
            ("$T", self.mine.token.to_string()),
            ("$A", self.mine.attempt.to_string()),
        ];
        words.iter().fold(text.to_owned(), |text, (word, with)| text.replace(word, with))
    }
}

const VERBS: [(&str, &str, &str); 5] = [
    ("complete", "", ""),
    ("fail", "", ""),
    ("snooze", ", '{2027-01-01Z}'", r#","until":"2027-01-01T00:00:00Z""#),
    ("release", "", ""),
    ("heartbeat", "", ""),
];

async fn entry_through_sql(client: &Client, held: &Held, entry: &Entry) {
    for (verb, more, _) in VERBS {
        let Entry { worker, job, attempt, token, .. } = entry;
        let sql = format!(
            "select verdict from {verb}(nullif('{worker}', 'null')::uuid, '{{{job}}}'::uuid[],
                '{{{attempt}}}'::int[], '{{{token}}}'::uuid[]{more})"
        );
        let sql = held.fill(&sql);
        let answer = client.query_one(&sql, &[]).await;
        if entry.sql.len() == 5 && entry.sql != "stale" {
            refusal(&sql, answer.map(|_| ()), entry.sql);
        } else {
            let expected = if verb == "heartbeat" { "lost" } else { entry.sql };
            let row = answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert_eq!(row.get::<_, &str>(0), expected, "{sql}");
        }
    }
}

/// A part as JSON: `null` and numbers as they are.
fn part(text: &str, number: bool) -> String {
    if number || text == "null" { text.to_owned() } else { format!("\"{text}\"") }
}

async fn entry_through_http(api: &Api, held: &Held, entry: &Entry) {
    for (verb, _, more) in VERBS {
        let more = if verb == "snooze" { more } else { "" };
        let execution = format!(
            r#"{{"job_id":{},"attempt":{},"token":{}{more}}}"#,
            part(entry.job, false),
            part(entry.attempt, true),
            part(entry.token, false)
        );
        let (path, body) = match verb {
            "heartbeat" if entry.worker == "null" => continue,
            "heartbeat" => (
                format!("/v1/workers/{}/heartbeat", entry.worker.replace('"', "%22")),
                format!(r#"{{"executions":[{execution}]}}"#),
            ),
            _ => (
                format!("/v1/executions/{verb}"),
                format!(r#"{{"worker":{},"executions":[{execution}]}}"#, part(entry.worker, false)),
            ),
        };
        let (path, body) = (held.fill(&path), held.fill(&body));
        let answer = answered(&body, &api.post(&path, &body).await, entry.http);
        if entry.http == 200 {
            let expected = if verb == "heartbeat" { "lost" } else { "stale" };
            assert_eq!(answer["executions"][0]["verdict"], expected, "{path}: {body}");
        }
    }
}

#[tokio::test]
async fn whose_the_execution_is_not_cannot_touch_it() {
    let db = Db::new().await;
    let client = db.connect().await;
    let api = Api::start(&db).await;
    let held = Held::of(&client).await;
    let entries = calls::of_entries();
    let mut faults = 0;
    for entry in &entries {
        let doors = async {
            entry_through_sql(&client, &held, entry).await;
            entry_through_http(&api, &held, entry).await;
        };
        faults += usize::from(AssertUnwindSafe(doors).catch_unwind().await.is_err());
    }
    assert_eq!(faults, 0, "of {} entries", entries.len());
    for execution in [held.mine, held.other] {
        let one = std::slice::from_ref(&execution);
        assert_eq!(finish(&client, "heartbeat", one, "").await, ["held"]);
        assert_eq!(finish(&client, "complete", one, "").await, ["completed"]);
    }
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn calls_of_workers_that_are_not_valid_change_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    let api = Api::start(&db).await;
    let held = Held::of(&client).await;
    enqueue(&client, "'waiting'").await;
    let calls = calls::of_workers();
    let mut faults = 0;
    for call in &calls {
        let doors = async {
            if !call.sql.is_empty() {
                let sql = format!("select * from {}", held.fill(&call.sql));
                let shown: String = sql.chars().take(200).collect();
                refusal(&shown, client.query(&sql, &[]).await.map(|_| ()), call.code);
            }
            if !call.path.is_empty() {
                let body = held.fill(&call.body);
                let shown: String = format!("{} {body}", call.path).chars().take(200).collect();
                answered(&shown, &api.post(&held.fill(call.path), &body).await, call.status);
            }
        };
        faults += usize::from(AssertUnwindSafe(doors).catch_unwind().await.is_err());
    }
    assert_eq!(faults, 0, "of {} calls", calls.len());
    let left = "select string_agg(state, ' ' order by id) from jobs";
    assert_eq!(value::<String>(&client, left).await, "running running ready");
    assert_eq!(finish(&client, "complete", &[held.mine], "").await, ["completed"]);
    assert_eq!(finish(&client, "release", &[held.other], "").await, ["released"]);
    api.stop().await;
    db.finish().await;
}

/// Errors as they come, as JSON, and what is kept of each.
fn errors() -> Vec<(String, String)> {
    let same = |text: &str| (json!(text).to_string(), text.to_owned());
    vec![
        same("plain"),
        same("two\nlines\tand a tab"),
        same("'; drop table executions; -- %s <script>"),
        same("é 😀 \u{202e}right to left"),
        (r#""a\u0000b""#.to_owned(), "ab".to_owned()),
        (r#""\u001b[31mred\u001b[0m\u0007""#.to_owned(), "[31mred[0m".to_owned()),
        (r#""cut \ud83d""#.to_owned(), "cut \u{fffd}".to_owned()),
        (r#""""#.to_owned(), String::new()),
        (json!("x".repeat(16_384)).to_string(), "x".repeat(16_384)),
        (json!("x".repeat(3_000_000)).to_string(), "x".repeat(16_384)),
        (json!("é".repeat(16_384)).to_string(), "é".repeat(4_096)),
    ]
}

#[tokio::test]
async fn a_failure_is_recorded_whatever_its_words() {
    let db = Db::new().await;
    let client = db.connect().await;
    let api = Api::start(&db).await;
    for (error, kept) in errors() {
        let held = Held::of(&client).await;
        let execution = r#"{"job_id":"$J","attempt":$A,"token":"$T","error":"#;
        let body = format!(r#"{{"worker":"$W","executions":[{execution}{error}}}]}}"#);
        let shown: String = error.chars().take(60).collect();
        let answer = api.post("/v1/executions/fail", held.fill(&body)).await;
        let answer = answered(&shown, &answer, 200);
        assert_eq!(answer["executions"][0]["verdict"], "retrying", "{shown}");
        let path = format!("/v1/jobs/{}", held.mine.job_id);
        let job = api.get(&path).await.json(200);
        assert_eq!(job["executions"][0]["error"], Value::from(kept.as_str()), "{shown}");
        // By SQL, where a text has neither NUL nor halves.
        if let Ok(text) = serde_json::from_str::<String>(&error)
            && !text.contains('\0')
        {
            let sql = "select verdict from fail($1, array[$2::uuid], array[$3::int], \
                       array[$4::uuid], array[$5::text])";
            let Execution { worker, job_id, attempt, token, .. } = held.other;
            let row = client.query_one(sql, &[&worker, &job_id, &attempt, &token, &text]).await;
            assert_eq!(row.expect("a verdict").get::<_, &str>(0), "retrying", "{shown}");
            let sql = format!(
                "select error from executions where job_id = '{job_id}' and attempt = {attempt}"
            );
            assert_eq!(value::<String>(&client, &sql).await, kept, "{shown}");
        } else {
            finish(&client, "release", &[held.other], "").await;
        }
    }
    api.stop().await;
    db.finish().await;
}

/// Results, as JSON, that are refused, with the verdict or the status, and those that are kept.
fn results() -> Vec<(String, u16, &'static str)> {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    vec![
        (deep(65), 200, "result_too_large"),
        (deep(3_000), 200, "result_too_large"),
        (deep(20_000), 200, "result_too_large"),
        (deep(200_000), 200, "result_too_large"),
        ("1e131071".to_owned(), 200, "result_too_large"),
        (format!("[{}0]", "1e131071,".repeat(9000)), 200, "result_too_large"),
        ("1e400000".to_owned(), 200, "result_too_large"),
        (format!("\"{}\"", "x".repeat(262_143)), 200, "result_too_large"),
        (r#""\u0000""#.to_owned(), 422, ""),
        (r#""\ud800""#.to_owned(), 200, "result_too_large"),
        ("tru".to_owned(), 400, ""),
        (format!("\"{}\"", "x".repeat(262_142)), 200, "completed"),
    ]
}

#[tokio::test]
async fn a_result_that_is_refused_leaves_the_job_to_be_completed_without() {
    let db = Db::new().await;
    let client = db.connect().await;
    let api = Api::start(&db).await;
    for (result, status, verdict) in results() {
        let held = Held::of(&client).await;
        let entry = |result: &str| {
            let execution = r#"{"job_id":"$J","attempt":$A,"token":"$T","result":"#;
            held.fill(&format!(r#"{{"worker":"$W","executions":[{execution}{result}}}]}}"#))
        };
        let shown: String = result.chars().take(60).collect();
        let answer = api.post("/v1/executions/complete", entry(&result)).await;
        let answer = answered(&shown, &answer, status);
        if status == 200 {
            assert_eq!(answer["executions"][0]["verdict"], verdict, "{shown}");
        }
        if verdict != "completed" {
            let answer = api.post("/v1/executions/complete", entry("null")).await.json(200);
            assert_eq!(answer["executions"][0]["verdict"], "completed", "{shown}");
        }
        finish(&client, "release", &[held.other], "").await;
    }
    run(&client, "select * from maintain()").await;
    api.stop().await;
    db.finish().await;
}
