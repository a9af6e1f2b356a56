//! Verbs that an older snapshot would mislead refuse to run under one.

use crate::harness::Db;
use crate::harness::sql::{refused, run};

const ONE: &str = "gen_random_uuid(), array[gen_random_uuid()], '{1}', array[gen_random_uuid()]";

#[tokio::test]
async fn old_snapshots_are_refused_by_every_verb_that_reads_what_others_write() {
    let db = Db::new().await;
    let client = db.connect().await;
    let verbs = [
        "acquire(gen_random_uuid(), '{a}')".to_owned(),
        format!("complete({ONE})"),
        format!("fail({ONE})"),
        format!("snooze({ONE}, array[now()])"),
        format!("release({ONE})"),
        format!("heartbeat({ONE})"),
        "complete_or_raise(gen_random_uuid(), gen_random_uuid(), 1, gen_random_uuid())".to_owned(),
        "cancel(array[gen_random_uuid()])".to_owned(),
        "retry(array[gen_random_uuid()])".to_owned(),
        "cancel_workflow(gen_random_uuid())".to_owned(),
        "retry_workflow(gen_random_uuid())".to_owned(),
        "maintain()".to_owned(),
        "try_duty('link', 10)".to_owned(),
        "try_duty('promote', 10)".to_owned(),
        "try_duty('rescue', 10)".to_owned(),
        "try_duty('prune', 10)".to_owned(),
        "try_duty('floors', 10)".to_owned(),
        "try_floors(null, null, null, 10)".to_owned(),
        "watch('{a}')".to_owned(),
        "settled(pg_current_snapshot())".to_owned(),
    ];
    for level in ["repeatable read", "serializable"] {
        for verb in &verbs {
            run(&client, &format!("begin isolation level {level}")).await;
            refused(&client, "RL025", &format!("select {verb}")).await;
            run(&client, "rollback").await;
        }
        // Enqueue works at every level.
        let workflow =
            "select enqueue_many('{\"workflow\": \"n\", \"jobs\": [{\"kind\": \"k\"}]}')";
        let call =
            format!("begin isolation level {level}; select enqueue('k'); {workflow}; commit");
        run(&client, &call).await;
    }
    db.finish().await;
}
