//! Names and errors that would write lines of their own into a log, or tell a terminal what to do.

use std::process::Stdio;

use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use crate::harness::sql::{run, value};
use crate::harness::{Db, Service, rowlock, wait_until};
use crate::worker::DEADLINE;

/// A line that looks like one of the log, and the screen cleared before it.
const HOSTILE: &str = "x\r\n2026-01-01T00:00:00.000000Z ERROR forged\u{1b}[2J\u{7f}";

/// Every line is one that this program wrote, and nothing in it is a command to a terminal.
fn is_plain(log: &str) {
    assert!(log.contains("forged"), "it was never logged: {log}");
    for line in log.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
        match line.strip_prefix('{') {
            Some(_) => drop(serde_json::from_str::<Value>(line).expect("JSON")),
            None => {
                let began = line.starts_with("20") && line.contains("Z ");
                assert!(began && !line.starts_with("2026-01-01"), "{line:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_logged_of_others_stays_on_its_line() {
    let db = Db::new().await;
    let client = db.connect().await;
    // The server's words hold a name of somebody's choice.
    let quoted = HOSTILE.replace('"', "");
    run(&client, &format!("create function trap() returns trigger language plpgsql as $$ begin raise exception E'%', $q${quoted}$q$; end $$")).await;
    for format in ["text", "json"] {
        let arguments =
            ["--database-url", &db.url(), "--application-name", HOSTILE, "--log-format", format];
        let service = Service::start(&arguments).await;
        run(
            &client,
            "create trigger trap before insert on jobs for each row execute function trap()",
        )
        .await;
        let (status, _) = service.request("POST", "/v1/jobs", r#"{"kind": "k"}"#).await;
        assert_eq!(status, 500);
        run(&client, "drop trigger trap on jobs").await;
        service.signal(nix::sys::signal::Signal::SIGTERM);
        let (_, log) = service.ended().await;
        assert!(2 <= log.matches("forged").count(), "{log}");
        is_plain(&log);
    }
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_workers_name_stays_on_its_line() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut worker = rowlock(&["work", "q", "--name", HOSTILE, "--database-url", &db.url()]);
    worker.args(["--", "true"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let worker = worker.spawn().expect("it runs");
    wait_until("it works", DEADLINE, || async {
        value::<i64>(&client, "select count(*) from workers").await == 1
    })
    .await;
    let pid = nix::unistd::Pid::from_raw(worker.id().expect("it runs").try_into().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it is there");
    let ended = timeout(DEADLINE, worker.wait_with_output()).await.expect("in time");
    is_plain(&String::from_utf8_lossy(&ended.expect("it ends").stderr));
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn commands_show_what_a_terminal_would_obey() {
    let db = Db::new().await;
    let client = db.connect().await;
    let made = "select job_id from enqueue_many(jsonb_build_object('workflow', 'w', 'jobs',
        jsonb_build_array(jsonb_build_object('kind', 'k', 'args', $1::text))))";
    let job: Uuid = client.query_one(made, &[&HOSTILE]).await.expect("enqueued").get(0);
    let (worker, name) = (Uuid::new_v4(), HOSTILE);
    let take = "select attempt, token from acquire($1, '{default}', 1, name => $2)";
    let held = client.query_one(take, &[&worker, &name]).await.expect("acquired");
    let (attempt, token): (i32, Uuid) = (held.get(0), held.get(1));
    let fail = "select fail($1, array[$2::uuid], array[$3::int], array[$4::uuid], array[$5::text])";
    client.execute(fail, &[&worker, &job, &attempt, &token, &HOSTILE]).await.expect("failed");
    // What the functions would not take, the owner may have written.
    run(&client, "update jobs set kind = E'forged\\x1b[2J', unique_key = E'k\\r\\nforged'").await;
    run(&client, "update workflows set name = E'forged\\x1b[2J\\n2026-01-01'").await;
    let workflow: Uuid =
        value(&client, &format!("select workflow from jobs where id = '{job}'")).await;
    let (job, workflow) = (job.to_string(), workflow.to_string());
    for command in [
        &["jobs"][..],
        &["job", &job],
        &["explain", &job],
        &["workflows"],
        &["workflow", &workflow, "--once"],
        &["stats"],
    ] {
        let output = rowlock(command).env("DATABASE_URL", db.url()).output().await.expect("runs");
        assert!(output.status.success(), "{command:?}: {output:?}");
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        let commands = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(commands), "{command:?}: {shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("2026-01-01")), "{command:?}: {shown}");
        assert!(command[0] == "explain" || shown.contains("forged"), "{command:?}: {shown}");
    }
    run(&client, "update jobs set unique_key = null").await;
    drop(client);
    db.finish().await;
}
