//! One job through every verb.

use serde_json::json;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire, acquire_job, acquire_with, cancel, column, complete, discard, drain, enqueue,
    enqueue_many, fail, finish, pid, refused, release, retry, run, state, states, value,
};

#[tokio::test]
async fn a_job_goes_through_every_verb() {
    let db = Db::new().await;
    let client = db.connect().await;
    assert!(0 < pid(&client).await);
    let job = enqueue(&client, "'a'").await;
    let graph = json!([{"kind": "b", "ref": "x"}, {"kind": "c", "depends_on": ["x"]}]);
    let graph = enqueue_many(&client, &graph).await;
    assert_eq!((graph[0].reference.as_deref(), graph[0].created), (Some("x"), true));
    let run_of_a = acquire_job(&client, job).await;
    assert_eq!((run_of_a.kind.as_str(), run_of_a.priority, run_of_a.attempt), ("a", 5, 1));
    assert_eq!(fail(&client, &[run_of_a]).await, ["retrying"]);
    refused(&client, "RL422", "select enqueue('')").await;
    assert_eq!(cancel(&client, &[job]).await, ["cancelled"]);
    assert_eq!(retry(&client, &[job]).await, ["retried"]);
    let run_of_a = acquire_job(&client, job).await;
    assert_eq!(finish(&client, "heartbeat", std::slice::from_ref(&run_of_a), "").await, ["held"]);
    assert_eq!(release(&client, &[run_of_a]).await, ["released"]);
    let run_of_a = acquire_with(&client, Uuid::new_v4(), "'{default}', kinds => '{a}'").await;
    assert_eq!(discard(&client, &run_of_a).await, ["discarded"]);
    assert_eq!(drain(&client).await, 2);
    assert_eq!(states(&client, &[job, graph[1].job_id]).await, ["discarded", "completed"]);
    assert_eq!(state(&client, Uuid::nil()).await, "gone");
    let kinds: Vec<String> = column(&client, "select kind from jobs order by kind").await;
    assert_eq!(kinds, ["a", "b", "c"]);
    assert!(acquire(&client, Uuid::new_v4(), 1).await.is_empty());
    assert!(complete(&client, &[]).await.is_empty());
    run(&client, "delete from jobs where false").await;
    assert_eq!(value::<i64>(&client, "select count(*) from ready").await, 0);
    db.finish().await;
}
