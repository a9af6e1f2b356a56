//! A job whose args cannot be given out is discarded where it is acquired; its neighbours run.
//! No enqueue stores such args, so the owner plants them.

use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{
    acquire, column, complete, drain, enqueue, enqueue_many, retry, run, value,
};
use crate::harness::{Api, Db};

/// Half a kilobyte in the table, over a gigabyte as text.
const BOMB: &str = "('[' || repeat('1e131071,', 9000) || '0]')::jsonb";

/// Makes these the args of every job of kind `bad`, as only the owner can.
async fn plant(client: &Client, args: &str) {
    run(client, &format!("update jobs set args = {args} where kind = 'bad'")).await;
}

/// Deletes what is stored of long values outside their rows.
async fn lose_toast(client: &Client, table: &str) {
    let toast: String = value(
        client,
        &format!(
            "select reltoastrelid::regclass::text from pg_class where oid = '{table}'::regclass"
        ),
    )
    .await;
    let kind = |kind: &str| {
        format!("update pg_class set relkind = '{kind}' where oid = '{toast}'::regclass")
    };
    let sql = format!("{}; delete from {toast}; {}", kind("r"), kind("t"));
    run(client, &sql).await;
    // Deleted chunks are read until they are gone.
    run(client, &format!("vacuum {table}")).await;
}

/// State and reason of the jobs of kind `bad`.
async fn ends(client: &Client) -> Vec<String> {
    let sql = "select concat(state, ', ', reason) from jobs where kind = 'bad' order by id";
    column(client, sql).await
}

#[tokio::test]
async fn args_that_cannot_be_written_out_are_quarantined_and_their_neighbours_run() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "good"}, {"kind": "bad", "ref": "p"}, {"kind": "good"},
        {"kind": "child", "depends_on": ["p"]},
        {"kind": "after", "depends_on": [{"job": "p", "on_parent_failure": "continue"}]},
    ]);
    let bad = enqueue_many(&client, &call).await[1].job_id;
    plant(&client, BOMB).await;
    let got = acquire(&client, Uuid::new_v4(), 10).await;
    let kinds: Vec<&str> = got.iter().map(|one| one.kind.as_str()).collect();
    assert_eq!(kinds, ["good", "good"]);
    assert_eq!(complete(&client, &got).await, ["completed", "completed"]);
    let reason = "discarded, quarantined: args: a number is out of range";
    assert_eq!(ends(&client).await, [reason]);
    let run: String = value(
        &client,
        "select concat(attempt, ' ', outcome, ': ', error) from executions e
        where job_id = (select id from jobs where kind = 'bad')",
    )
    .await;
    assert_eq!(run, "1 failed: args: a number is out of range");
    let state =
        "select string_agg(state, ' ' order by id) from jobs where kind in ('child', 'after')";
    assert_eq!(value::<String>(&client, state).await, "cancelled ready");
    let why: String = value(&client, &format!("select summary from explain('{bad}')")).await;
    assert!(why.contains("quarantined: args"), "{why}");
    // Let go again, it comes to the same end; with args that can be read, it runs.
    retry(&client, &[bad]).await;
    assert_eq!(drain(&client).await, 1);
    assert_eq!(ends(&client).await, [reason]);
    plant(&client, "'{}'").await;
    retry(&client, &[bad]).await;
    assert_eq!(drain(&client).await, 2);
    db.finish().await;
}

#[tokio::test]
async fn args_that_are_lost_or_too_long_are_quarantined() {
    let db = Db::new().await;
    let client = db.connect().await;
    let lost = enqueue(&client, "'bad'").await;
    // Not compressible, so that it is stored outside the row.
    let noise = |n: usize| {
        format!("(select to_jsonb(string_agg(md5(n::text), '')) from generate_series(1, {n}) n)")
    };
    plant(&client, &noise(1000)).await;
    lose_toast(&client, "jobs").await;
    for args in [noise(300_000), "to_jsonb(repeat(E'\\x01', 8000000))".to_owned()] {
        let long = enqueue(&client, "'bad'").await;
        run(&client, &format!("update jobs set args = {args} where id = '{long}'")).await;
    }
    enqueue(&client, "'good'").await;
    // One at a time: no call comes back with nothing for what is left out.
    assert_eq!(acquire(&client, Uuid::new_v4(), 1).await[0].kind, "good");
    let ends = ends(&client).await;
    assert!(ends[0].contains("chunk number"), "{ends:?}");
    let long = "discarded, quarantined: args: more than 8388608 bytes";
    assert_eq!(ends[1..], [long, long]);
    let shown = format!("select readable(args) is null from jobs where id = '{lost}'");
    assert!(value::<bool>(&client, &shown).await);
    db.finish().await;
}

#[tokio::test]
async fn a_batch_of_acquires_and_the_service_leave_it_out_too() {
    let db = Db::new().await;
    let client = db.connect().await;
    for kind in ["bad", "good", "bad", "bad", "good"] {
        enqueue(&client, &format!("'{kind}'")).await;
    }
    plant(&client, BOMB).await;
    run(&client, "update jobs set run_at = 'infinity', timeout = '10000000 years'").await;
    let sql = "select concat(place, ' ', kind) from acquire_batch(
        array[gen_random_uuid(), gen_random_uuid()], '{1,2}', '{default}')";
    assert_eq!(column::<String>(&client, sql).await, ["2 good"]);
    let open = "select count(*) from executions where finished_at is null";
    assert_eq!(value::<i64>(&client, open).await, 1);

    let api = Api::start(&db).await;
    let listed = api.get("/v1/jobs").await.json(200);
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(5));
    let body = json!({"worker": Uuid::new_v4(), "queues": ["default"], "max_jobs": 1});
    let got = api.post("/v1/acquire", &body).await.json(200);
    assert_eq!(got["jobs"][0]["kind"], "good");
    assert_eq!(api.post("/v1/acquire", &body).await.json(200)["jobs"], json!([]));
    let bad: Uuid = value(&client, "select id from jobs where kind = 'bad' limit 1").await;
    let shown = api.get(&format!("/v1/jobs/{bad}")).await.json(200);
    assert_eq!((&shown["state"], &shown["args"]), (&json!("discarded"), &json!(null)));
    assert_eq!(shown["executions"][0]["error"], "args: a number is out of range");
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn a_result_that_cannot_be_given_out_is_omitted() {
    let db = Db::new().await;
    let client = db.connect().await;
    let call = json!([
        {"kind": "p", "ref": "bad"}, {"kind": "p", "ref": "good", "queue": "other"},
        {"kind": "c", "depends_on": ["bad", "good"], "queue": "c"},
    ]);
    let jobs = enqueue_many(&client, &call).await;
    drain(&client).await;
    run(&client, &format!("update executions set result = {BOMB}")).await;
    let sql =
        format!("select concat(ref, ' ', result, ' ', omitted) from inputs('{}')", jobs[2].job_id);
    assert_eq!(column::<String>(&client, &sql).await, ["bad  t", "good  f"]);
    let api = Api::start(&db).await;
    let path = |job: usize| format!("/v1/jobs/{}", jobs[job].job_id);
    let inputs = api.get(&format!("{}/inputs", path(2))).await.json(200);
    assert_eq!(inputs["inputs"][0]["result"], json!(null));
    assert_eq!(api.get(&path(0)).await.json(200)["result"], json!(null));
    api.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn what_waits_without_a_job_stops_nobody() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(enqueue(&client, "'a'").await);
    }
    // As only the owner can, or a restore in part.
    run(&client, &format!("delete from jobs where id in ('{}', '{}')", jobs[0], jobs[2])).await;
    let got: Vec<Uuid> =
        acquire(&client, Uuid::new_v4(), 3).await.iter().map(|one| one.job_id).collect();
    assert_eq!(got, [jobs[1]]);
    assert_eq!(drain(&client).await, 1);
    run(&client, &format!("delete from jobs where id = '{}'", enqueue(&client, "'a'").await)).await;
    assert_eq!(acquire(&client, Uuid::new_v4(), 3).await.len(), 0);
    db.finish().await;
}
