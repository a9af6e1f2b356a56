//! The commands for people, and `rowlock work`, run as a shell would.

use std::process::{Command as Plain, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{Db, wait_until};
use crate::worker::{DEADLINE, ended, enqueue, execution, job, reaches, state};
use rowlock::{Client as Rowlock, NewJob};

const ROWLOCK: &str = env!("CARGO_BIN_EXE_rowlock");

fn rowlock(db: &Db, args: &[&str]) -> Output {
    let output = Plain::new(ROWLOCK).args(args).env("DATABASE_URL", db.url()).output();
    output.expect("rowlock runs")
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8").trim().to_owned()
}

/// A `rowlock work` of its own, killed when dropped.
fn work(db: &Db, args: &[&str]) -> Child {
    Command::new(ROWLOCK)
        .arg("work")
        .args(args)
        .env("DATABASE_URL", db.url())
        .env("ROWLOCK_POLL", "50ms")
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("rowlock runs")
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().expect("it runs")).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("it is there");
}

async fn terminate(mut child: Child) {
    send(&child, Signal::SIGTERM);
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends");
    assert_eq!(status.expect("it is ours").code(), Some(0));
}

#[tokio::test]
async fn what_is_enqueued_is_listed_shown_cancelled_and_retried() {
    let db = Db::new().await;
    let args = r#"{"to":"ann"}"#;
    let id = printed(&rowlock(&db, &["enqueue", "mail", args, "-q", "out", "-p", "0"]));
    let child = printed(&rowlock(&db, &["enqueue", "sum", "--depends-on", &id, "--json"]));
    let child: Value = serde_json::from_str(&child).expect("JSON");
    assert_eq!(child["created"], json!(true));

    let listed = printed(&rowlock(&db, &["jobs", "--queue", "out", "--json"]));
    let listed: Value = serde_json::from_str(&listed).expect("one line");
    assert_eq!((&listed["id"], &listed["priority"]), (&json!(id), &json!(0)));
    assert!(printed(&rowlock(&db, &["jobs"])).contains("blocked"));

    let shown: Value =
        serde_json::from_str(&printed(&rowlock(&db, &["job", &id, "--json"]))).expect("JSON");
    assert_eq!(shown["args"], json!({"to": "ann"}));
    assert_eq!(shown["children"][0]["id"], child["id"]);
    assert!(printed(&rowlock(&db, &["job", &id])).contains("ann"));
    assert!(printed(&rowlock(&db, &["stats"])).contains("out"));
    let stats = printed(&rowlock(&db, &["stats", "--json"]));
    assert!(stats.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));

    assert!(printed(&rowlock(&db, &["explain", &id])).contains("No worker listens on queue out"));
    assert!(
        printed(&rowlock(&db, &["explain", child["id"].as_str().expect("an id")]))
            .contains("Waits for 1 parent")
    );
    let moved = printed(&rowlock(&db, &["reprioritize", "--priority", "3", &id]));
    assert!(moved.contains("reprioritized"), "{moved}");
    assert!(printed(&rowlock(&db, &["cancel", &id])).contains("cancelled"));
    assert!(printed(&rowlock(&db, &["jobs", "-s", "cancelled", "--json"])).contains(&id));
    assert!(printed(&rowlock(&db, &["retry", &id])).contains("retried"));
    let client = db.connect().await;
    assert_eq!(state(&client, id.parse().expect("an id")).await, "ready");
    db.finish().await;
}

#[tokio::test]
async fn exit_codes_tell_failure_usage_and_absence_apart() {
    let db = Db::new().await;
    let code = |args: &[&str]| rowlock(&db, args).status.code();
    let nobody = Uuid::now_v7().to_string();
    assert_eq!(code(&["job", &nobody]), Some(3));
    assert_eq!(code(&["cancel", &nobody]), Some(3));
    assert_eq!(code(&["enqueue", "x", "{not json"]), Some(2));
    assert_eq!(code(&["jobs", "--state", "gone"]), Some(2));
    assert_eq!(code(&["work", "default"]), Some(2));
    let refused = rowlock(&db, &["enqueue", "x", "-p", "12"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("RL422"));
    let nowhere = Plain::new(ROWLOCK)
        .args(["jobs", "--data-dir", "/nonexistent/rowlock"])
        .env_remove("DATABASE_URL")
        .output()
        .expect("rowlock runs");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("--database-url"));
    db.finish().await;
}

#[tokio::test]
async fn a_command_reads_what_the_parents_gave() {
    let db = Db::new().await;
    let client = db.connect().await;
    let worker = work(&db, &["default", "--inputs", "--", "cat"]);
    let graph = [
        NewJob::new("rows", &[1, 2]).expect("JSON").reference("rows"),
        NewJob::new("sum", "all").expect("JSON").depends_on("rows"),
    ];
    let answers = Rowlock::default().enqueue(&client, &graph).await.expect("taken");
    reaches(&client, answers[1].job_id, "completed").await;
    let (_, _, result) = execution(&client, answers[1].job_id, 1).await;
    let rows = json!({"args": [1, 2], "inputs": {}});
    assert_eq!(result, Some(json!({"args": "all", "inputs": {"rows": rows}})));
    terminate(worker).await;
    db.finish().await;
}

#[tokio::test]
async fn a_command_gets_args_and_names_and_gives_a_result() {
    let db = Db::new().await;
    let client = db.connect().await;
    let script = r#"read args; echo progress; printf '{"args":%s,"id":"%s","of":"%s %s %s"}\n' \
        "$args" "$ROWLOCK_JOB_ID" "$ROWLOCK_KIND" "$ROWLOCK_ATTEMPT" "$ROWLOCK_QUEUE"; echo bye"#;
    let worker = work(&db, &["default", "--concurrency", "2", "--", "sh", "-c", script]);
    let id = enqueue(&client, NewJob::new("mail", &[1, 2]).expect("JSON")).await;
    let quiet = work(&db, &["quiet", "--shell", "--", "exit", "0"]);
    let none = enqueue(&client, job("mail").queue("quiet")).await;
    reaches(&client, id, "completed").await;
    let (_, _, result) = execution(&client, id, 1).await;
    let expected = json!({"args": [1, 2], "id": id, "of": "mail 1 default"});
    assert_eq!(result, Some(expected));
    reaches(&client, none, "completed").await;
    assert_eq!(execution(&client, none, 1).await.2, None);
    terminate(worker).await;
    terminate(quiet).await;
    db.finish().await;
}

#[tokio::test]
async fn a_command_that_fails_or_is_not_there_fails_its_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let fails = work(&db, &["default", "--kind", "mail", "--shell", "--", "echo oops >&2; exit 3"]);
    let absent = work(&db, &["absent", "--", "/nonexistent/command"]);
    let other = enqueue(&client, job("other").priority(0)).await;
    let failed = enqueue(&client, job("mail").max_attempts(1)).await;
    let lost = enqueue(&client, job("mail").max_attempts(1).queue("absent")).await;
    reaches(&client, failed, "discarded").await;
    assert_eq!(ended(&client, failed, 1).await.1.as_deref(), Some("exit status: 3: oops"));
    reaches(&client, lost, "discarded").await;
    assert!(ended(&client, lost, 1).await.1.expect("words").contains("could not be started"));
    assert_eq!(state(&client, other).await, "ready");
    terminate(fails).await;
    terminate(absent).await;
    db.finish().await;
}

async fn alive(marker: &str) -> bool {
    let found = Plain::new("ps").args(["-eo", "args"]).output().expect("ps runs");
    String::from_utf8_lossy(&found.stdout).lines().any(|line| line.trim() == marker)
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group_of_a_command_that_ignores_sigterm() {
    let db = Db::new().await;
    let client = db.connect().await;
    let marker = format!("sleep 3600.{}", std::process::id());
    let script = format!("trap '' TERM; {marker} & wait; wait");
    let worker = work(&db, &["default", "--kill-after", "200ms", "--shell", "--", &script]);
    let timeout = Duration::from_millis(500);
    let id = enqueue(&client, job("slow").max_attempts(1).timeout(timeout)).await;
    wait_until("the command runs", DEADLINE, || alive(&marker)).await;
    reaches(&client, id, "discarded").await;
    assert_eq!(ended(&client, id, 1).await.1.as_deref(), Some("timed out after 500ms"));
    wait_until("the command is gone", DEADLINE, || async { !alive(&marker).await }).await;
    terminate(worker).await;
    db.finish().await;
}

#[tokio::test]
async fn a_stop_ends_the_command_and_gives_its_job_back() {
    let db = Db::new().await;
    let client = db.connect().await;
    let marker = format!("sleep 7200.{}", std::process::id());
    let worker = work(&db, &["default", "--drain", "100ms", "--shell", "--", &marker]);
    let id = enqueue(&client, job("slow")).await;
    wait_until("the command runs", DEADLINE, || alive(&marker)).await;
    terminate(worker).await;
    assert_eq!(state(&client, id).await, "ready");
    assert_eq!(ended(&client, id, 1).await.0, "released");
    assert!(!alive(&marker).await);
    db.finish().await;
}

async fn maintain(client: &Client) {
    client.execute("select rowlock.maintain()", &[]).await.expect("maintain runs");
}

#[tokio::test]
async fn the_job_of_a_killed_worker_is_finished_by_another() {
    let db = Db::new().await;
    let client = db.connect().await;
    let script = r#"if [ "$ROWLOCK_ATTEMPT" = 1 ]; then sleep 30; fi; echo "$ROWLOCK_ATTEMPT""#;
    let args = ["default", "--lease", "1s", "--shell", "--", script];
    let mut first = work(&db, &args);
    let id = enqueue(&client, job("slow")).await;
    reaches(&client, id, "running").await;
    send(&first, Signal::SIGKILL);
    first.wait().await.expect("it is ours");
    let second = work(&db, &args);
    wait_until("the job is completed", DEADLINE, || async {
        maintain(&client).await;
        state(&client, id).await == "completed"
    })
    .await;
    assert_eq!(ended(&client, id, 1).await.0, "lost");
    let (outcome, _, result) = execution(&client, id, 2).await;
    assert_eq!((outcome.as_deref(), result), (Some("completed"), Some(json!(2))));
    terminate(second).await;
    db.finish().await;
}
