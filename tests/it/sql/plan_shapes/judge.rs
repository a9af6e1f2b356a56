//! What makes a plan bad.

use std::collections::BTreeMap;

use serde_json::Value;

use super::explain::Plan;

/// Tables that grow with the jobs: a hot statement finds their rows by an index.
const GROWING: [&str; 11] = [
    "jobs",
    "ready",
    "scheduled",
    "blocked",
    "dependencies",
    "links",
    "tickets",
    "executions",
    "grants",
    "unique_keys",
    "lane_floors",
];

/// Whether a node's output ends early, so that what is below it need not be read to its end.
fn stops_early(node: &Value) -> bool {
    node["Node Type"] == "Limit"
}

fn kind(node: &Value) -> &str {
    node["Node Type"].as_str().unwrap_or_default()
}

fn children(node: &Value) -> impl Iterator<Item = &Value> {
    node["Plans"].as_array().into_iter().flatten()
}

/// The name of the growing table that the node scans.
fn growing(node: &Value) -> Option<&str> {
    let name = node["Relation Name"].as_str()?;
    GROWING.contains(&name).then_some(name)
}

fn reads_growing(node: &Value) -> bool {
    (kind(node).contains("Scan") && growing(node).is_some()) || children(node).any(reads_growing)
}

/// Faults of shape, whatever the tables hold.
pub(crate) fn faults(plan: &Plan, ordered_locks: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if plan.compiled {
        faults.push("it was compiled".to_owned());
    }
    walk(&plan.root, false, ordered_locks, &mut faults);
    faults
}

fn walk(node: &Value, limited: bool, ordered_locks: bool, faults: &mut Vec<String>) {
    if let Some(table) = growing(node) {
        match kind(node) {
            "Seq Scan" => faults.push(format!("sequential scan of {table}")),
            // In the order of the pages, not of the ids.
            "Bitmap Heap Scan" if ordered_locks => faults.push(format!("bitmap scan of {table}")),
            "Index Scan" | "Index Only Scan" if node.get("Index Cond").is_none() && !limited => {
                faults.push(format!("all of an index of {table}"));
            }
            _ => {}
        }
    }
    if matches!(kind(node), "Merge Join" | "Hash Join") && reads_growing(node) {
        faults.push(format!("{} of a table that grows", kind(node)));
    }
    let limited = stops_early(node) || limited;
    for child in children(node) {
        walk(child, limited, ordered_locks, faults);
    }
}

/// The rows that the nodes of a plan gave or threw away: what a loop, a hash join, a sort or a scan
/// costs, counted rather than timed.
pub(crate) fn work(node: &Value) -> f64 {
    let number = |key: &str| node[key].as_f64().unwrap_or(0.0);
    let rows = number("Actual Rows")
        + number("Rows Removed by Filter")
        + number("Rows Removed by Join Filter")
        + number("Rows Removed by Index Recheck");
    rows * number("Actual Loops") + children(node).map(work).sum::<f64>()
}

/// Work by statement, of one call.
pub(crate) fn works(plans: &[Plan]) -> BTreeMap<String, f64> {
    let mut works = BTreeMap::new();
    for plan in plans {
        *works.entry(plan.statement.clone()).or_insert(0.0) += work(&plan.root);
    }
    works
}
