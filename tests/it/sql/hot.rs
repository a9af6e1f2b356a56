//! Updates that stay HOT.

use std::time::Duration;

use uuid::Uuid;

use crate::harness::sql::{acquire, complete, run, value};
use crate::harness::{Db, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_steady_flow_updates_in_place() {
    let db = Db::new().await;
    let client = db.connect().await;
    for _ in 0..40 {
        let fill = "select count(*) from enqueue_many((select jsonb_agg(jsonb_build_object(
            'kind', 'k', 'args', jsonb_build_object('path', repeat('x', 40)))) from generate_series(1, 100)))";
        run(&client, fill).await;
        let got = acquire(&client, Uuid::new_v4(), 100).await;
        // A transaction open anywhere in the cluster keeps old versions on their pages.
        let drawn: i64 = value(&client, "select pg_current_xact_id()::text::bigint").await;
        let gone =
            format!("select pg_snapshot_xmin(pg_current_snapshot())::text::bigint > {drawn}");
        wait_until("older transactions end", DEADLINE, || async { value(&client, &gone).await })
            .await;
        assert_eq!(complete(&client, &got).await, vec!["completed"; 100]);
    }
    // Statistics arrive with the end of the session or after a while.
    drop(client);
    let client = db.connect().await;
    let share = |table: &str| {
        format!(
            "select case when n_tup_upd >= 4000 then n_tup_hot_upd::float8 / n_tup_upd else -1 end
             from pg_stat_user_tables where relname = '{table}'"
        )
    };
    wait_until("counts arrive", DEADLINE, || async {
        0.0 <= value::<f64>(&client, &share("jobs")).await
            && 0.0 <= value::<f64>(&client, &share("executions")).await
    })
    .await;
    let jobs = value::<f64>(&client, &share("jobs")).await;
    let executions = value::<f64>(&client, &share("executions")).await;
    assert!(0.95 < jobs && 0.95 < executions, "HOT: jobs {jobs}, executions {executions}");
    db.finish().await;
}
