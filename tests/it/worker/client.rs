//! Jobs enqueued in the caller's own transaction, and completed in the handler's.

use rowlock::db::GenericClient;
use rowlock::model::Code;
use rowlock::{Client as Rowlock, Job, NewJob, Outcome};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::{ended, enqueue, job, reaches, start, state, worker};
use crate::harness::Db;

async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("select count(*) from {table}"), &[]).await.expect("count").get(0)
}

#[tokio::test]
async fn a_rollback_leaves_no_job_and_a_commit_all() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    // The caller's search_path is the caller's.
    client.batch_execute("set search_path = public; create table mine (n int)").await.expect("own");
    let rowlock = Rowlock::default();
    let graph = [job("first").reference("first"), job("second").depends_on("first")];

    let transaction = client.transaction().await.expect("begin");
    transaction.batch_execute("insert into mine values (1)").await.expect("insert");
    let answers = rowlock.enqueue(&transaction, &graph).await.expect("enqueue");
    assert!(answers.iter().all(|answer| answer.created));
    transaction.rollback().await.expect("rollback");
    assert_eq!((count(&client, "mine").await, count(&client, "rowlock.jobs").await), (0, 0));

    let transaction = client.transaction().await.expect("begin");
    transaction.batch_execute("insert into mine values (1)").await.expect("insert");
    let answers = rowlock.enqueue(&transaction, &graph).await.expect("enqueue");
    transaction.commit().await.expect("commit");
    assert_eq!((count(&client, "mine").await, count(&client, "rowlock.jobs").await), (1, 2));
    assert_eq!(state(&client, answers[0].job_id).await, "ready");
    assert_eq!(state(&client, answers[1].job_id).await, "blocked");
    db.finish().await;
}

#[tokio::test]
async fn a_refusal_names_its_code() {
    let db = Db::new().await;
    let client = db.connect().await;
    let refused = Rowlock::default().enqueue_one(&client, job("x").priority(12)).await;
    assert_eq!(refused.expect_err("12 is no priority").code(), Some(Code::Invalid));
    let elsewhere = Rowlock::new("elsewhere".parse().expect("a name"));
    assert!(elsewhere.enqueue_one(&client, job("x")).await.is_err());
    assert_eq!(count(&client, "rowlock.jobs").await, 0);
    db.finish().await;
}

async fn write(client: &impl GenericClient, job: &Job) -> Result<(), tokio_postgres::Error> {
    let statement = "insert into public.written (job, attempt) values ($1, $2)";
    client.execute(statement, &[&job.id(), &job.attempt()]).await.map(drop)
}

#[tokio::test]
async fn writes_and_completion_stand_or_fall_together() {
    let db = Db::new().await;
    let client = db.connect().await;
    client.batch_execute("create table public.written (job uuid, attempt int)").await.expect("own");
    let own = Arc::new(Mutex::new(db.connect().await));
    let running = start(worker(&db).queue("default", 1).on("write", move |job: Job| {
        let own = own.clone();
        async move {
            let mut own = own.lock().await;
            let transaction = own.transaction().await.map_err(|error| error.to_string())?;
            write(&transaction, &job).await.map_err(|error| error.to_string())?;
            let completed = job.complete_in(&transaction, None).await.map_err(|e| e.to_string())?;
            assert!(completed);
            match (job.raw_args(), job.attempt()) {
                ("\"commit\"", _) => transaction.commit().await.map_err(|e| e.to_string())?,
                // Dropped: rolled back, and the handler says that it failed.
                (_, 1) => return Err("not this time".to_owned()),
                _ => transaction.commit().await.map_err(|error| error.to_string())?,
            }
            Ok(Outcome::Complete)
        }
    }));
    let commits = enqueue(&client, NewJob::new("write", "commit").expect("JSON")).await;
    reaches(&client, commits, "completed").await;
    let fails = enqueue(&client, NewJob::new("write", "fail").expect("JSON")).await;
    assert_eq!(ended(&client, fails, 1).await.1.as_deref(), Some("not this time"));
    assert_eq!(count(&client, "public.written").await, 1);
    running.stop().await;
    db.finish().await;
}
