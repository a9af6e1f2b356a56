//! Two Rowlocks in one database know nothing of each other.

use rowlock::model::SchemaName;
use uuid::Uuid;

use crate::harness::Db;
use crate::harness::sql::{column, run, value};

#[tokio::test]
async fn a_schema_of_another_name_is_a_queue_of_its_own() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    let name: SchemaName = "other_q".parse().expect("a schema name");
    rowlock::db::migrate::run(&mut client, &name).await.expect("installs beside the first");
    rowlock::db::migrate::check(&client, &name).await.expect("is complete");
    run(&client, "set search_path = public").await;
    for schema in ["rowlock", "other_q"] {
        let parent: Uuid = value(&client, &format!("select {schema}.enqueue('{schema}')")).await;
        let child = format!("select {schema}.enqueue('child', depends_on => '{{{parent}}}')");
        run(&client, &child).await;
    }
    // A sleeper on one is not a sleeper on the other.
    let sleeper = db.connect().await;
    run(&sleeper, "select other_q.watch('{default}')").await;
    let key = |schema: &str| format!("select {schema}.wake_key('default')");
    assert_ne!(
        value::<i64>(&client, &key("rowlock")).await,
        value::<i64>(&client, &key("other_q")).await
    );
    for schema in ["other_q", "rowlock"] {
        let worker = Uuid::new_v4();
        for kind in [schema, "child"] {
            let step = format!(
                "with a as (select * from {schema}.acquire('{worker}', '{{default}}', 5))
                 select array_agg(kind)::text from a"
            );
            assert_eq!(value::<String>(&client, &step).await, format!("{{{kind}}}"));
            let finish = format!(
                "select c.verdict from {schema}.executions e cross join lateral
                 {schema}.complete(e.worker, array[e.job_id], array[e.attempt], array[e.token]) c
                 where e.finished_at is null"
            );
            assert_eq!(column::<String>(&client, &finish).await, ["completed"]);
        }
        run(&client, &format!("select * from {schema}.maintain()")).await;
        let broken = format!("select invariant from {schema}.verify() where violations > 0");
        assert!(column::<String>(&client, &broken).await.is_empty());
        let states = format!("select array_agg(distinct state)::text from {schema}.jobs");
        assert_eq!(value::<String>(&client, &states).await, "{completed}");
    }
    db.finish().await;
}
