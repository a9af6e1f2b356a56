//! A job without dependents pays nothing for dependencies: its end reads no page of their tables.

use serde_json::Value as Json;
use uuid::Uuid;

use super::plan_shapes::explain::{Explained, Plan};
use crate::harness::Db;
use crate::harness::sql::{acquire, enqueue};

/// Tables that only jobs with parents or children need; their indexes are named after them.
const EDGES: [&str; 3] = ["dependencies", "links", "blocked"];

/// Pages that the statements read of tables that only edges need, and how many of these tables
/// or their indexes were visited.
fn edges_read(plans: &[Plan]) -> (usize, i64) {
    fn add(node: &Json, read: &mut (usize, i64)) {
        let name = |key: &str| node[key].as_str().unwrap_or_default();
        let of_edges = |name: &str| EDGES.iter().any(|table| name.starts_with(table));
        if of_edges(name("Relation Name")) || of_edges(name("Index Name")) {
            let ran = node["Actual Loops"].as_i64() != Some(0);
            read.0 += usize::from(ran);
            let pages = |key: &str| node[key].as_i64().expect("buffers are counted");
            read.1 += pages("Shared Hit Blocks") + pages("Shared Read Blocks");
        }
        for child in node["Plans"].as_array().into_iter().flatten() {
            add(child, read);
        }
    }
    let mut read = (0, 0);
    for plan in plans {
        add(&plan.root, &mut read);
    }
    read
}

#[tokio::test]
async fn a_job_without_dependents_touches_no_edge_table() {
    let db = Db::new().await;
    let client = db.connect().await;
    // Something to be read, if anything were.
    let root = enqueue(&client, "'root', queue => 'others'").await;
    enqueue(&client, &format!("'c', queue => 'others', depends_on => '{{{root}}}'")).await;
    let Some(session) = Explained::connect(&db).await else { return db.finish().await };
    let ends =
        ["complete(w, j, a, t)", "fail(w, j, a, t)", "fail(w, j, a, t, discard => '{true}')"];
    for children in [0, 1] {
        for end in ends {
            let job = enqueue(&client, "'p'").await;
            for _ in 0..children {
                enqueue(&client, &format!("'c', queue => 'others', depends_on => '{{{job}}}'"))
                    .await;
            }
            let worker = Uuid::new_v4();
            let got = acquire(&client, worker, 1).await;
            let call = end
                .replace("w,", &format!("'{worker}',"))
                .replace(" j,", &format!(" array['{}'::uuid],", got[0].job_id))
                .replace(" a,", &format!(" array[{}],", got[0].attempt))
                .replace(" t", &format!(" array['{}'::uuid]", got[0].token));
            let plans = session.plans_of(&format!("select count(verdict) from {call}"), 1).await;
            assert!(plans.len() > 3, "statements inside functions are seen");
            let (visits, pages) = edges_read(&plans);
            // A failure that is tried again ends nothing.
            if children == 0 || end.starts_with("fail(w, j, a, t)") {
                assert_eq!((visits, pages), (0, 0), "{end}");
            } else {
                assert!(0 < visits && 0 < pages, "{end}: the probe sees edges");
            }
        }
    }
    drop(session);
    db.finish().await;
}
