//! The example pipeline, its workers run as processes: killing one changes nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rowlock::{Client as Rowlock, NewJob};
use serde_json::json;
use tokio::process::Child;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::{Db, example, wait_until};
use crate::worker::state;

const DEADLINE: Duration = Duration::from_secs(60);

fn start_worker(db: &Db) -> Child {
    example("pipeline")
        .args(["--pace", "150ms", "worker"])
        // Its tables are a user's, and not for Rowlock's own schema.
        .env("DATABASE_URL", db.url().replace("search_path%3Drowlock", "search_path%3Dpublic"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the worker starts")
}

/// Thirty documents in which the same few things are mentioned again and again.
fn write_corpus(folder: &Path) {
    let people = ["Ada Lovelace", "Alan Turing", "Grace Hopper", "Edsger Dijkstra"];
    for n in 0..30 {
        let (first, second) = (people[n % 4], people[n % 3]);
        let text = format!("We met {first} and {second}.\nA compiler and a compiler.\n");
        std::fs::write(folder.join(format!("{n}.txt")), text).expect("the folder is ours");
    }
}

async fn count(client: &Client, query: &str, run: Uuid) -> i64 {
    client.query_one(query, &[&run]).await.expect("query").get(0)
}

/// Runs the pipeline, killing the first of two workers half way if asked to. Gives all relations.
async fn relations(db: &Db, client: &Client, folder: &Path, kill_half_way: bool) -> String {
    let run = Uuid::now_v7();
    let args = json!({"run": run, "input": folder});
    let list = NewJob::new("list", &args).expect("JSON").queue("pipeline");
    let list = Rowlock::default().enqueue_one(client, list).await.expect("enqueue").job_id;
    let (mut first, second) = (start_worker(db), start_worker(db));
    wait_until("the documents are listed", DEADLINE, || async {
        state(client, list).await == "completed"
    })
    .await;
    let documents = "select count(*) from pipeline_documents where run = $1";
    if kill_half_way {
        wait_until("some documents are read", DEADLINE, || async {
            5 <= count(client, documents, run).await
        })
        .await;
        first.kill().await.expect("it runs");
        assert!(count(client, documents, run).await < 30, "killed too late to matter");
    }
    wait_until("the report is there", DEADLINE, || async {
        client.execute("select rowlock.maintain()", &[]).await.expect("maintain");
        count(client, "select count(*) from pipeline_reports where run = $1", run).await == 1
    })
    .await;
    drop((first, second));
    assert_eq!(count(client, documents, run).await, 30);
    let all = "select string_agg(concat_ws('|', first_sort, first, second_sort, second, documents,
               round(strength::numeric, 6)), ',' order by first_sort, first, second_sort, second)
               from pipeline_relations where run = $1";
    client.query_one(all, &[&run]).await.expect("query").get(0)
}

#[tokio::test]
async fn a_worker_killed_half_way_changes_nothing_in_the_result() {
    let db = Db::new().await;
    let client = db.connect().await;
    client.batch_execute("set search_path = public").await.expect("set");
    let folder = std::env::temp_dir().join(format!("rowlock-corpus-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).expect("the folder is new");
    write_corpus(&folder);
    let whole = relations(&db, &client, &folder, false).await;
    assert!(whole.contains("Ada Lovelace"), "{whole}");
    let killed = relations(&db, &client, &folder, true).await;
    assert_eq!(whole, killed);
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    db.finish().await;
}

#[tokio::test]
async fn documents_that_cannot_be_read_are_missing_and_stop_nothing() {
    let db = Db::new().await;
    let client = db.connect().await;
    client.batch_execute("set search_path = public").await.expect("set");
    let folder = std::env::temp_dir().join(format!("rowlock-corpus-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).expect("the folder is new");
    write_corpus(&folder);
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, folder.join(name)).expect("the folder is ours");
    };
    link("/nonexistent", "dangling.md");
    // It can be opened, and reading it fails, for root too.
    link("/proc/self/mem", "unreadable.md");
    let found = relations(&db, &client, &folder, false).await;
    assert!(found.contains("Ada Lovelace"), "{found}");
    let query = "select report ->> 'failed_documents' from pipeline_reports";
    let failed: String = client.query_one(query, &[]).await.expect("one report").get(0);
    assert_eq!(failed, "1");
    let query = "select e.result ->> 'unreadable' from rowlock.executions e
                 join rowlock.jobs j on j.id = e.job_id where j.kind = 'list'";
    let skipped: String = client.query_one(query, &[]).await.expect("one list").get(0);
    assert_eq!(skipped, "1");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    db.finish().await;
}
