//! What the parents gave reaches their child.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{
    acquire_job, column, discard, drain, enqueue, enqueue_many, finish, refused, run, state, value,
};

#[tokio::test]
async fn results_are_inputs_by_ref_or_id() {
    let db = Db::new().await;
    let client = db.connect().await;
    let outside = enqueue(&client, "'o'").await;
    let done = enqueue(&client, "'o'").await;
    let give = async |job: Uuid, result: &str| {
        let execution = [acquire_job(&client, job).await];
        let results = format!(", results => array['{result}']::jsonb[]");
        assert_eq!(finish(&client, "complete", &execution, &results).await, ["completed"]);
    };
    give(done, "[1]").await;
    let call = json!([
        {"kind": "a", "ref": "a"}, {"kind": "b", "ref": "b"},
        {"kind": "c", "depends_on": ["a", {"job": "b", "on_parent_failure": "continue"}, outside, done]},
    ]);
    let jobs: Vec<Uuid> = enqueue_many(&client, &call).await.iter().map(|job| job.job_id).collect();
    give(jobs[0], r#"{"rows": 7}"#).await;
    assert_eq!(discard(&client, &[acquire_job(&client, jobs[1]).await]).await, ["discarded"]);
    give(outside, "null").await;
    assert_eq!(state(&client, jobs[2]).await, "ready");
    let inputs: Vec<Value> =
        column(&client, &format!("select to_jsonb(i) from inputs('{}') i", jobs[2])).await;
    let input = |name: &str, parent: Uuid, state: &str, result: Value| json!({"ref": name, "parent": parent, "state": state, "result": result, "omitted": false});
    let mut expected = vec![
        input("a", jobs[0], "completed", json!({"rows": 7})),
        input("b", jobs[1], "discarded", json!(null)),
        input(&outside.to_string(), outside, "completed", json!(null)),
        input(&done.to_string(), done, "completed", json!([1])),
    ];
    expected.sort_by_key(|input| input["ref"].as_str().expect("a name").to_owned());
    let mut got = inputs;
    got.sort_by_key(|input| input["ref"].as_str().expect("a name").to_owned());
    assert_eq!(got, expected);
    drain(&client).await;
    db.finish().await;
}

#[tokio::test]
async fn inputs_come_with_an_acquire_and_have_a_bound() {
    let db = Db::new().await;
    let client = db.connect().await;
    let parents: Vec<Value> =
        (0..40).map(|n| json!({"kind": "p", "queue": "p", "ref": format!("{n:02}")})).collect();
    let names: Vec<&Value> = parents.iter().map(|parent| &parent["ref"]).collect();
    let child = json!([{"kind": "c", "queue": "c", "depends_on": names}]);
    let graph: Vec<Value> = parents.iter().chain(child.as_array().expect("one")).cloned().collect();
    enqueue_many(&client, &json!(graph)).await;
    run(
        &client,
        "select complete('00000000-0000-7000-8000-000000000001', array_agg(a.job_id),
                array_agg(a.attempt), array_agg(a.token),
                array_agg(to_jsonb(repeat('x', 250000))))
         from acquire('00000000-0000-7000-8000-000000000001', '{p}', 100) a",
    )
    .await;
    // 33 times 250,002 bytes are under 8 MiB.
    let told = "select array[count(*), count(*) filter (where i.omitted),
            count(i.result)]
        from acquire('00000000-0000-7000-8000-000000000001', '{c}', 10) a
        cross join lateral inputs(a.job_id) i";
    assert_eq!(value::<Vec<i64>>(&client, told).await, [40, 7, 33]);
    refused(&client, "RL413", "select inputs_of(array_fill(gen_random_uuid(), array[10001]))")
        .await;
    let none: Vec<String> = column(&client, "select ref from inputs(gen_random_uuid())").await;
    assert!(none.is_empty());
    db.finish().await;
}
