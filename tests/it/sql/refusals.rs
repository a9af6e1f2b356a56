//! What an enqueue refuses: the argument and the job named, the value shown, nothing stored.

use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

use crate::harness::Db;
use crate::harness::sql::{enqueue, enqueue_many, refused, value};

async fn stored(client: &Client) -> i64 {
    let sql = "select (select count(*) from jobs) + (select count(*) from ready)
        + (select count(*) from scheduled) + (select count(*) from blocked)
        + (select count(*) from dependencies) + (select count(*) from links)
        + (select count(*) from unique_keys) + (select count(*) from tickets)";
    value(client, sql).await
}

#[track_caller]
fn says(error: &DbError, message: &str, detail: &str) {
    assert_eq!(error.message(), message);
    assert!(error.detail().expect("a detail").contains(detail), "{error:?}");
}

#[tokio::test]
async fn a_single_enqueue_names_the_argument() {
    let db = Db::new().await;
    let client = db.connect().await;
    let long = "x".repeat(129);
    let invalid = [
        ("''", "kind is not valid", ""),
        ("null", "kind is not valid", "null"),
        ("E'a\\nb'", "kind is not valid", "a\nb"),
        (&format!("'{long}'"), "kind is not valid", &long),
        ("'a', null", "args is null", "null"),
        ("'a', queue => ''", "queue is not valid", ""),
        ("'a', queue => null", "queue is not valid", "null"),
        ("'a', queue => '-a'", "queue is not valid", "-a"),
        ("'a', queue => 'a b'", "queue is not valid", "a b"),
        ("'a', queue => E'a\\n'", "queue is not valid", "a\n"),
        ("'a', queue => 'é'", "queue is not valid", "é"),
        (&format!("'a', queue => '{long}'"), "queue is not valid", &long),
        ("'a', priority => -1", "priority is not valid", "-1"),
        ("'a', priority => 10", "priority is not valid", "10"),
        ("'a', run_at => 'infinity'", "run_at is not valid", "infinity"),
        ("'a', run_at => '-infinity'", "run_at is not valid", "-infinity"),
        ("'a', run_at => '1969-12-31Z'", "run_at is not valid", "1969"),
        ("'a', run_at => now() + interval '11 years'", "run_at is not valid", "20"),
        ("'a', on_parent_failure => 'ignore'", "on_parent_failure is not valid", "ignore"),
        ("'a', on_parent_failure => null", "on_parent_failure is not valid", "null"),
        ("'a', max_attempts => 0", "max_attempts is not valid", "0"),
        ("'a', max_attempts => 1001", "max_attempts is not valid", "1001"),
        ("'a', timeout => '0'", "timeout is not valid", "00:00:00"),
        ("'a', timeout => '-1 s'", "timeout is not valid", "-00:00:01"),
        ("'a', timeout => '366 days'", "timeout is not valid", "366 days"),
        ("'a', unique_key => ''", "unique_key is not valid", ""),
        (&format!("'a', unique_key => '{long}'"), "unique_key is not valid", &long),
    ];
    for (arguments, message, detail) in invalid {
        let error = refused(&client, "RL422", &format!("select enqueue({arguments})")).await;
        says(&error, message, detail);
    }
    let unknown = "select enqueue('a', depends_on => '{00000000-0000-7000-8000-000000000001}')";
    let error = refused(&client, "RL422", unknown).await;
    says(&error, "depends_on of job 1 names no job", "00000000-0000-7000-8000-000000000001");
    refused(&client, "RL422", "select enqueue('a', depends_on => '{null}')").await;
    assert_eq!(stored(&client).await, 0);
    db.finish().await;
}

#[tokio::test]
async fn what_is_just_allowed_is_stored() {
    let db = Db::new().await;
    let client = db.connect().await;
    let name = "q".repeat(128);
    let allowed = [
        format!("'{name}', queue => '{name}', unique_key => '{name}'"),
        "'ünïcode: any text'".to_owned(),
        "'a', queue => 'a.b_c:d/e-9'".to_owned(),
        "'a', '[]', priority => 0, max_attempts => 1, timeout => '1 ms'".to_owned(),
        "'a', 'null', priority => 9, max_attempts => 1000, timeout => '365 days'".to_owned(),
        "'a', run_at => '1970-01-01Z', depends_on => '{}'".to_owned(),
        "'a', run_at => now() + interval '3650 days'".to_owned(),
    ];
    for arguments in &allowed {
        enqueue(&client, arguments).await;
    }
    assert_eq!(value::<i64>(&client, "select count(*) from jobs").await, 7);
    assert_eq!(value::<i64>(&client, "select count(*) from scheduled").await, 1);
    db.finish().await;
}

#[tokio::test]
async fn a_batch_names_the_first_wrong_job() {
    let db = Db::new().await;
    let client = db.connect().await;
    let wrong = [
        (json!({"kind": ""}), "kind of job 2 is not valid"),
        (json!({"kind": 1}), "kind of job 2 is not valid"),
        (json!({}), "kind of job 2 is not valid"),
        (json!("a"), "jobs: entry 2 is not an object"),
        (json!(null), "jobs: entry 2 is not an object"),
        (json!({"kind": "a", "prio": 1}), "jobs: entry 2 has an unknown key"),
        (json!({"kind": "a", "queue": "a b"}), "queue of job 2 is not valid"),
        (json!({"kind": "a", "queue": 7}), "queue of job 2 is not valid"),
        (json!({"kind": "a", "priority": 10}), "priority of job 2 is not valid"),
        (json!({"kind": "a", "priority": 1.5}), "priority of job 2 is not valid"),
        (json!({"kind": "a", "priority": "1"}), "priority of job 2 is not valid"),
        (json!({"kind": "a", "priority": true}), "priority of job 2 is not valid"),
        (json!({"kind": "a", "max_attempts": 0}), "max_attempts of job 2 is not valid"),
        (json!({"kind": "a", "max_attempts": "3"}), "max_attempts of job 2 is not valid"),
        (json!({"kind": "a", "timeout": 30}), "timeout of job 2 is not valid"),
        (json!({"kind": "a", "timeout": "soon"}), "timeout of job 2 is not valid"),
        (json!({"kind": "a", "timeout": "0 seconds"}), "timeout of job 2 is not valid"),
        (json!({"kind": "a", "run_at": "tomorrow"}), "run_at of job 2 is not valid"),
        (json!({"kind": "a", "run_at": "2030-02-31T12:00:00Z"}), "run_at of job 2 is not valid"),
        (json!({"kind": "a", "run_at": "2030-01-31T12:00:00"}), "run_at of job 2 is not valid"),
        (json!({"kind": "a", "run_at": "2999-01-31T12:00:00Z"}), "run_at of job 2 is not valid"),
        (json!({"kind": "a", "run_at": 1}), "run_at of job 2 is not valid"),
        (json!({"kind": "a", "unique_key": ""}), "unique_key of job 2 is not valid"),
        (json!({"kind": "a", "unique_key": {}}), "unique_key of job 2 is not valid"),
        (json!({"kind": "a", "id": "x"}), "id of job 2 is not valid"),
        (json!({"kind": "a", "ref": 1}), "ref of job 2 is not valid"),
        (json!({"kind": "a", "ref": "one"}), "ref of job 2 is taken in this call"),
        (json!({"kind": "a", "depends_on": "one"}), "depends_on of job 2 is not valid"),
        (json!({"kind": "a", "depends_on": [1]}), "depends_on of job 2 is not valid"),
        (json!({"kind": "a", "depends_on": [null]}), "depends_on of job 2 is not valid"),
        (json!({"kind": "a", "depends_on": [["one"]]}), "depends_on of job 2 is not valid"),
        (json!({"kind": "a", "depends_on": [{}]}), "depends_on of job 2 is not valid"),
        (json!({"kind": "a", "depends_on": [{"job": 1}]}), "depends_on of job 2 is not valid"),
        (
            json!({"kind": "a", "depends_on": [{"job": "one", "x": 1}]}),
            "depends_on of job 2 is not valid",
        ),
        (
            json!({"kind": "a", "depends_on": [{"job": "one", "on_parent_failure": "go"}]}),
            "depends_on of job 2 is not valid",
        ),
        (
            json!({"kind": "a", "depends_on": [{"job": "one", "on_parent_failure": 1}]}),
            "depends_on of job 2 is not valid",
        ),
        (
            json!({"kind": "a", "depends_on": [{"job": "one", "on_parent_failure": ["hold"]}]}),
            "depends_on of job 2 is not valid",
        ),
        (json!({"kind": "a", "depends_on": [{"job": "two"}]}), "depends_on of job 2 names no job"),
        (json!({"kind": "a", "depends_on": ["two"]}), "depends_on of job 2 names no job"),
        (json!({"kind": "a", "on_parent_failure": "x"}), "on_parent_failure of job 2 is not valid"),
    ];
    for (job, message) in wrong {
        let call = json!([{"kind": "fine", "ref": "one", "unique_key": "k"}, job, {"kind": ""}]);
        let error = refused(&client, "RL422", &format!("select enqueue_many('{call}')")).await;
        assert_eq!(error.message(), message, "{call}");
    }
    for call in ["null", "'{}'", "'1'", "'null'"] {
        let error = refused(&client, "RL422", &format!("select enqueue_many({call})")).await;
        assert_eq!(error.message(), "jobs is not an array");
    }
    assert_eq!(stored(&client).await, 0);
    assert!(enqueue_many(&client, &json!([])).await.is_empty());
    db.finish().await;
}

#[tokio::test]
async fn nulls_in_a_batch_stand_for_the_defaults() {
    let db = Db::new().await;
    let client = db.connect().await;
    let job = json!([{"kind": "a", "ref": null, "args": null, "queue": null, "priority": null,
        "run_at": null, "depends_on": null, "on_parent_failure": null, "max_attempts": null,
        "timeout": null, "unique_key": null, "id": null}]);
    assert!(enqueue_many(&client, &job).await[0].created);
    let row = client.query_one("select * from jobs", &[]).await.expect("one job");
    assert_eq!(row.get::<_, String>("queue"), "default");
    assert_eq!((row.get::<_, i16>("priority"), row.get::<_, i32>("max_attempts")), (5, 25));
    // A JSON null is a value of its own, as it is for enqueue().
    assert_eq!(row.get::<_, Value>("args"), Value::Null);
    db.finish().await;
}

#[tokio::test]
async fn too_many_jobs_edges_and_parents_are_refused() {
    let db = Db::new().await;
    let client = db.connect().await;
    let many = |n: i32| {
        format!(
            "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object('kind', 'a'))
             from generate_series(1, {n})))"
        )
    };
    refused(&client, "RL413", &many(10_001)).await;
    let parents = "select enqueue('a', depends_on => array(
        select gen_random_uuid() from generate_series(1, 100001)))";
    let error = refused(&client, "RL413", parents).await;
    assert_eq!(error.message(), "enqueue takes at most 100000 edges");
    let edges = "select count(*) from enqueue_many((
        select jsonb_agg(jsonb_build_object('kind', 'a', 'ref', n::text, 'depends_on',
            case when n > 320 then d.refs else '[]' end))
        from generate_series(1, 640) n,
            (select jsonb_agg(r::text) as refs from generate_series(1, 313) r) d))";
    let error = refused(&client, "RL413", edges).await;
    assert_eq!(error.message(), "enqueue takes at most 100000 edges");
    assert_eq!(stored(&client).await, 0);
    assert_eq!(value::<i64>(&client, &many(10_000)).await, 10_000);
    db.finish().await;
}
