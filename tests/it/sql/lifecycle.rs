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

#[tokio::test]
async fn jobs_of_one_call_keep_their_places_in_many_queues() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = |queue: &str| json!({"kind": "k", "queue": queue});
    let parent = json!({"kind": "p", "queue": "n", "ref": "p"});
    let child = |queue: &str| json!({"kind": "c", "queue": queue, "depends_on": ["p"]});
    enqueue_many(&client, &json!([job("z"), job("a"), job("m"), job("a")])).await;
    enqueue_many(&client, &json!([job("z"), parent, child("y"), job("b"), child("a")])).await;
    let misplaced = "select count(*) from jobs j join ready r on r.job_id = j.id
        where r.seq <> j.seq or r.queue <> j.queue";
    assert_eq!(value::<i64>(&client, misplaced).await, 0);
    let places: Vec<String> =
        column(&client, "select queue from jobs where state = 'ready' order by seq").await;
    assert_eq!(places, ["z", "a", "m", "a", "z", "n", "b"]);
    let run_of_p = acquire_with(&client, Uuid::new_v4(), "'{n}'").await;
    assert_eq!(complete(&client, &run_of_p).await, ["completed"]);
    assert_eq!(value::<i64>(&client, misplaced).await, 0);
    db.finish().await;
}
