//! Secrets are put everywhere that something secret may stand, failures are provoked, and all that
//! the processes say is searched. At `trace`, so that no level says more.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::harness::sql::{run, value};
use crate::harness::{Db, Service, rowlock, wait_until};
use crate::worker::DEADLINE;

/// What may be said to nobody.
const PASSWORD: &str = "canary-password-81c1";
const TOKEN: &str = "canary-token-52f7";
const WRONG_TOKEN: &str = "canary-wrong-token-9a0e";
/// What may be said to whoever asks the API for it, and in no log or figure.
const ARGS: &str = "canary-args-3d5b";
const RESULT: &str = "canary-result-b7e2";
const ERROR: &str = "canary-error-0f44";
const KEY: &str = "canary-key-6c19";

const SECRETS: [&str; 3] = [PASSWORD, TOKEN, WRONG_TOKEN];
const CONTENT: [&str; 4] = [ARGS, RESULT, ERROR, KEY];

fn with_password(url: &str) -> String {
    format!("{url}&password={PASSWORD}")
}

/// None of the words stands in what was said.
fn silent(who: &str, said: &str, words: &[&str]) {
    for word in words {
        let line = said.lines().find(|line| line.contains(word));
        assert_eq!(line, None, "{who} says {word}");
    }
}

/// The whole answer, headers and all.
async fn ask(service: &Service, head: &str, authorization: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(service.address()).await.expect("connects");
    let request = format!(
        "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: {authorization}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(DEADLINE, read).await.expect("in time").expect("an answer");
    silent("an answer", &answer, &SECRETS);
    answer
}

struct Calls<'a> {
    service: &'a Service,
    bearer: String,
}

impl Calls<'_> {
    /// A call with the right token: the status and the body.
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.raw(path, &body.to_string()).await
    }

    async fn raw(&self, path: &str, body: &str) -> (u16, Value) {
        let answer = ask(self.service, &format!("POST {path}"), &self.bearer, body).await;
        let status = answer.split(' ').nth(1).expect("a status").parse().expect("a number");
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        (status, serde_json::from_str(body).unwrap_or_default())
    }
}

fn job(key: Option<&str>) -> Value {
    json!({"kind": "k", "queue": "http", "args": {"text": ARGS}, "unique_key": key})
}

/// Everything a worker says over HTTP; gives the token of an execution that is held.
async fn work(calls: &Calls<'_>) -> String {
    assert_eq!(calls.post("/v1/jobs", &job(Some(KEY))).await.0, 201);
    assert_eq!(calls.post("/v1/jobs", &job(None)).await.0, 201);
    assert_eq!(calls.post("/v1/jobs", &job(None)).await.0, 201);
    let worker = "01900000-0000-7000-8000-000000000001";
    let take = json!({"worker": worker, "queues": ["http"], "max_jobs": 3});
    let (status, taken) = calls.post("/v1/acquire", &take).await;
    assert_eq!(status, 200, "{taken}");
    let held = |n: usize| {
        let job = &taken["jobs"][n];
        json!({"job_id": job["job_id"], "attempt": job["attempt"], "token": job["token"]})
    };
    let with = |mut held: Value, name: &str, what: &str| {
        held[name] = json!(what);
        json!({"worker": worker, "executions": [held]})
    };
    let (status, answer) =
        calls.post("/v1/executions/complete", &with(held(0), "result", RESULT)).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = calls.post("/v1/executions/fail", &with(held(1), "error", ERROR)).await;
    assert_eq!(status, 200, "{answer}");
    // Once more, and with a token that is none.
    let token = held(2)["token"].as_str().expect("a token").to_owned();
    calls.post("/v1/executions/complete", &with(held(1), "result", RESULT)).await;
    calls.post("/v1/executions/fail", &with(held(2), "token", "no token")).await;
    let beat = json!({"executions": [held(2)]});
    let (status, answer) = calls.post(&format!("/v1/workers/{worker}/heartbeat"), &beat).await;
    assert_eq!(status, 200, "{answer}");
    token
}

/// Refusals, and failures inside.
async fn stumble(calls: &Calls<'_>, client: &Client) {
    for body in [
        format!("{{\"kind\": \"k\", \"args\": {{\"{ARGS}\": "),
        json!({"kind": "k", "args": {"text": ARGS}, "priority": 99}).to_string(),
        json!({"kind": "k", "args": {"text": ARGS}, "timeout": ARGS}).to_string(),
        json!({"kind": "k", "unknown": ARGS, "unique_key": KEY}).to_string(),
        json!({"kind": "k", "unique_key": KEY.repeat(20), "queue": "a b"}).to_string(),
    ] {
        let (status, _) = calls.raw("/v1/jobs", &body).await;
        assert!((400..500).contains(&status), "{body}: {status}");
    }
    // The DETAIL of the first has the row, the message of the others the value: the caller, whose
    // value it is, may be told that.
    for (trap, status, word) in [
        ("check (args->>'text' not like 'canary%')", 500, "23514"),
        ("check ((args->>'text')::int > 0)", 422, ""),
        ("check ((args->>'text')::timestamptz > 'epoch')", 422, ""),
    ] {
        run(client, &format!("alter table jobs add constraint trap {trap} not valid")).await;
        let (found, answer) = calls.post("/v1/jobs", &job(Some("another key"))).await;
        assert_eq!(found, status, "{answer}");
        assert!(status == 422 || !answer.to_string().contains("canary"), "{answer}");
        run(client, "alter table jobs drop constraint trap").await;
        assert!(calls.service.log().contains(word), "it does not say {word}");
    }
    // A duty that stumbles over a value of somebody's.
    run(
        client,
        "create function trap() returns trigger language plpgsql as $$ begin
            perform (select (args->>'text')::int from jobs where id = new.job_id); return new; end $$;
         create trigger trap before insert on ready for each row execute function trap();
         update scheduled set run_at = clock_timestamp()",
    )
    .await;
    wait_until("the duty has failed", DEADLINE, || async {
        calls.service.log().contains("promote failed and is tried again")
    })
    .await;
    run(client, "drop trigger trap on ready; drop function trap()").await;
    // Too slow, and away.
    run(client, "begin; lock table unique_keys").await;
    let (status, _) = calls.post("/v1/jobs", &job(Some("another key"))).await;
    assert!(status >= 429, "{status}");
    run(client, "rollback").await;
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name like 'rowlock%'";
    run(client, cut).await;
    calls.post("/v1/jobs", &job(None)).await;
}

#[tokio::test]
async fn a_service_keeps_secrets_out_of_all_that_it_says() {
    let db = Db::new().await;
    let client = db.connect().await;
    let url = with_password(&db.login(&["service"]).await);
    for format in ["text", "json"] {
        let service = Service::start(&[
            "--database-url",
            &url,
            "--token",
            TOKEN,
            "--log",
            "trace",
            "--log-format",
            format,
            "--lock-timeout",
            "300ms",
        ])
        .await;
        let calls = Calls { service: &service, bearer: format!("Bearer {TOKEN}") };
        let token = work(&calls).await;
        stumble(&calls, &client).await;
        for wrong in [&format!("Bearer {WRONG_TOKEN}"), &format!("Basic {WRONG_TOKEN}")] {
            let answer = ask(&service, "POST /v1/jobs", wrong, "{}").await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        }
        let metrics = ask(&service, "GET /metrics", &calls.bearer, "").await;
        assert!(metrics.contains("rowlock_http_request_seconds"), "{metrics}");
        silent("/metrics", &metrics, &CONTENT);
        service.signal(nix::sys::signal::Signal::SIGTERM);
        let (_, log) = service.ended().await;
        assert!(log.contains("DEBUG") && log.contains("a request failed"), "{log}");
        silent("the log", &log, &SECRETS);
        silent("the log", &log, &CONTENT);
        silent("the log", &log, &[&token]);
        run(&client, "select cancel(array(select id from jobs where finished_at is null))").await;
    }
    let stored = format!("select count(*) from executions where error like '%{ERROR}%'");
    assert_eq!(value::<i64>(&client, &stored).await, 2, "the canaries did arrive");
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_worker_keeps_secrets_out_of_all_that_it_says() {
    let db = Db::new().await;
    let client = db.connect().await;
    let url = with_password(&db.login(&["worker"]).await);
    let made = format!(
        "select enqueue('k', '{{\"text\": \"{ARGS}\"}}', 'w', unique_key => '{KEY}' || n)
         from generate_series(1, 3) n"
    );
    run(&client, &made).await;
    let script = format!("case $ROWLOCK_ATTEMPT in 1) exit 1;; *) echo '\"{RESULT}\"';; esac");
    let mut worker = rowlock(&["work", "w", "--log", "trace", "--poll", "20ms", "--shell"]);
    worker.args(["--", &script]).env("DATABASE_URL", &url);
    let worker = worker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let count = |sql: &'static str| value::<i64>(&client, sql);
    wait_until("all have failed once", DEADLINE, || async {
        count("select count(*) from executions where outcome = 'failed'").await == 3
    })
    .await;
    // What it is told at the end is refused, with the result in the server's words.
    run(&client, "alter table executions add constraint trap check (result::text not like '%canary%') not valid").await;
    wait_until("they run again", DEADLINE, || async {
        run(&client, "update scheduled set run_at = clock_timestamp()").await;
        run(&client, "select maintain()").await;
        count("select count(*) from executions where attempt = 2").await == 3
    })
    .await;
    wait_until("the server has refused", DEADLINE, || async {
        count("select count(*) from executions where error like '%23514%'").await > 0
    })
    .await;
    run(&client, "alter table executions drop constraint trap").await;
    let pid = nix::unistd::Pid::from_raw(worker.id().expect("it runs").try_into().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it is there");
    let ended = timeout(DEADLINE, worker.wait_with_output()).await.expect("in time");
    let output = ended.expect("it ends");
    for said in [&output.stdout, &output.stderr] {
        let said = String::from_utf8_lossy(said);
        silent("the worker", &said, &SECRETS);
        silent("the worker", &said, &CONTENT);
    }
    let tokens = "select array_agg(token::text) from executions";
    let tokens: Vec<String> = value(&client, tokens).await;
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("DEBUG"), "{log}");
    silent("the worker", &log, &tokens.iter().map(String::as_str).collect::<Vec<_>>());
    let errors = "select string_agg(error, '|') from executions";
    silent("the errors stored", &value::<String>(&client, errors).await, &CONTENT);
    run(&client, "select cancel(array(select id from jobs where finished_at is null))").await;
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn commands_keep_secrets_out_of_their_complaints() {
    let nowhere = format!("postgres://ann:{PASSWORD}@127.0.0.1:1/app?connect_timeout=1");
    let odd = format!("postgres://ann:{PASSWORD}@127.0.0.1:1/app?sslrootcert=x&unknown=1");
    let tls = format!("host=127.0.0.1 password='{PASSWORD}' sslmode=require port=1");
    let broken = format!("postgres://ann:{PASSWORD}@[::1/app");
    for url in [&nowhere, &odd, &tls, &broken] {
        for command in [
            &["migrate"][..],
            &["doctor"],
            &["jobs"],
            &["verify"],
            &["serve", "--listen", "127.0.0.1:0", "--connect-timeout", "100ms", "--log", "trace"],
        ] {
            let mut child = rowlock(command);
            child.env("DATABASE_URL", url).env("ROWLOCK_TOKEN", TOKEN);
            let ended = timeout(Duration::from_secs(30), child.output()).await.expect("in time");
            let output = ended.expect("it runs");
            assert!(!output.status.success(), "{command:?} {url}");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!said.is_empty());
            silent(&format!("{command:?}"), &said, &SECRETS);
        }
    }
}
