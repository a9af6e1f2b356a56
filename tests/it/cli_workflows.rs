//! `rowlock workflow` and `rowlock workflows`, as a person and a program see them.

use std::process::{Command, Output};

use rowlock::Client as Rowlock;
use rowlock::model::{NewJob, NewWorkflow};
use serde_json::{Value, json};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{drain, run};

const ROWLOCK: &str = env!("CARGO_BIN_EXE_rowlock");

fn rowlock(db: &Db, args: &[&str]) -> Output {
    let output = Command::new(ROWLOCK).args(args).env("DATABASE_URL", db.url()).output();
    output.expect("rowlock runs")
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8").trim().to_owned()
}

/// A list, thirty extracts, a report; enqueued through the library.
async fn nightly(client: &Client) -> Uuid {
    let job = |kind: &str| NewJob::new(kind, &()).expect("JSON");
    let mut jobs = vec![job("list").reference("list")];
    let mut report = job("report");
    for n in 0..30 {
        jobs.push(job("extract").depends_on("list").reference(format!("e{n}")));
        report = report.depends_on(format!("e{n}").as_str());
    }
    jobs.push(report);
    let workflow = NewWorkflow::new("nightly");
    let answer = Rowlock::default().enqueue_workflow(client, &workflow, &jobs).await;
    let answer = answer.expect("enqueued");
    assert_eq!((answer.id, answer.jobs.len()), (Some(workflow.id), 32));
    workflow.id
}

#[tokio::test]
async fn it_is_drawn_listed_cancelled_and_retried() {
    let db = Db::new().await;
    let client = db.connect().await;
    let id = nightly(&client).await.to_string();
    let listed = printed(&rowlock(&db, &["workflows"]));
    assert!(listed.contains(&id) && listed.contains("nightly  running  0 of 32"), "{listed}");
    let drawn = printed(&rowlock(&db, &["workflow", &id]));
    let rest = "\n\n● list           ready      default\n\
                ↓ · extract ×30  blocked    default\n\
                ↓ · report       blocked    default";
    assert!(drawn.starts_with("nightly  running  0 of 32 done\n"), "{drawn}");
    assert!(drawn.ends_with(rest), "{drawn}");
    assert!(!drawn.contains('\x1b'), "no colours but at a terminal");
    let cancelled = printed(&rowlock(&db, &["workflow", &id, "--cancel", "--json"]));
    assert_eq!(
        serde_json::from_str::<Value>(&cancelled).expect("JSON"),
        json!({"verdict": "cancelled", "jobs": 32})
    );
    let retried = printed(&rowlock(&db, &["workflow", &id, "--retry"]));
    assert!(retried.contains("retried  32"), "{retried}");
    let whole = printed(&rowlock(&db, &["workflow", &id, "--json"]));
    let whole: Value = serde_json::from_str(&whole).expect("JSON");
    assert_eq!((&whole["ready"], &whole["blocked"]), (&json!(1), &json!(31)));
    assert_eq!(whole["nodes"].as_array().map(Vec::len), Some(32));
    drain(&client).await;
    let listed = printed(&rowlock(&db, &["workflows", "--json", "-n", "1"]));
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed["state"], &listed["completed"]), (&json!("completed"), &json!(32)));
    db.finish().await;
}

#[tokio::test]
async fn exit_codes_tell_absence_and_what_stayed() {
    let db = Db::new().await;
    let (client, holder) = (db.connect().await, db.connect().await);
    let id = nightly(&client).await.to_string();
    let code = |args: &[&str]| rowlock(&db, args).status.code();
    let nobody = Uuid::now_v7().to_string();
    for more in [None, Some("--once"), Some("--json"), Some("--cancel"), Some("--retry")] {
        let args: Vec<&str> = ["workflow", nobody.as_str()].into_iter().chain(more).collect();
        assert_eq!(code(&args), Some(3), "{more:?}");
    }
    run(&holder, "begin; select from jobs where kind = 'report' for no key update").await;
    assert_eq!(code(&["workflow", &id, "--cancel"]), Some(1));
    run(&holder, "commit").await;
    assert_eq!(code(&["workflow", &id, "--cancel"]), Some(0));
    assert_eq!(code(&["workflow", &id, "--cancel", "--retry"]), Some(2));
    db.finish().await;
}

/// At a terminal of 40 columns, which `script` makes where there is one.
#[tokio::test]
async fn a_terminal_sees_it_until_its_end() {
    let db = Db::new().await;
    let client = db.connect().await;
    let id = nightly(&client).await;
    let script = || {
        let mut command = tokio::process::Command::new("script");
        command.args(["-qec", &format!("stty cols 40 rows 8; exec {ROWLOCK} workflow {id}")]);
        command.arg("/dev/null").env("DATABASE_URL", db.url()).kill_on_drop(true);
        command
    };
    if script().arg("--version").output().await.is_err() {
        return db.finish().await;
    }
    let drawing = tokio::spawn(script().output());
    let looked = "select exists (select from pg_stat_activity
        where query like '%workflow_jobs(%' and pid <> pg_backend_pid())";
    crate::harness::wait_until("it has drawn", crate::worker::DEADLINE, || async {
        client.query_one(looked, &[]).await.expect("reads").get(0)
    })
    .await;
    drain(&client).await;
    let output = tokio::time::timeout(crate::worker::DEADLINE, drawing).await.expect("it ends");
    let text = String::from_utf8(output.expect("joined").expect("runs").stdout).expect("UTF-8");
    assert!(text.contains("running  0 of 32") && text.contains("completed  32 of 32"), "{text}");
    let plain = |line: &str| line.replace("\x1b[32m", "").replace("\x1b[0m", "").chars().count();
    // Clearing what was drawn stands before the second drawing.
    let last = text.rsplit("\x1b[").next().unwrap_or(&text);
    assert!(last.lines().all(|line| plain(line) <= 40), "{text}");
    assert!(text.contains("more lines: --once"), "{text}");
    db.finish().await;
}
