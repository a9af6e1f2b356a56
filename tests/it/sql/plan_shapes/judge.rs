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

/// Columns by which a scan finds the rows of a given job, edge, worker or key: the batch bounds it.
const KEYS: [&str; 8] = ["id", "job_id", "parent", "child", "worker", "key", "xid", "seq"];

/// The nearest node above that decides how much of a scan is read.
#[derive(Clone, Copy, PartialEq)]
enum Above {
    Nothing,
    /// It ends early.
    Limit,
    /// It reads all before it gives its first row.
    Sort,
}

impl Above {
    fn children_of(self, node: &Value) -> Above {
        match kind(node) {
            "Limit" => Above::Limit,
            // Over sorted rows it gives each group as it ends.
            "Aggregate" if node["Strategy"] == "Sorted" => self,
            "Sort" | "Incremental Sort" | "Aggregate" | "WindowAgg" | "Hash" => Above::Sort,
            _ => self,
        }
    }
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

/// Whether the scan compares a key for equality; `((j.id = g.id) AND (seq > $1))`.
fn by_key(node: &Value) -> bool {
    let condition = node["Index Cond"].as_str().unwrap_or_default();
    let compares = |left: String| condition.contains(&left);
    KEYS.iter().any(|key| compares(format!("({key} = ")) || compares(format!(".{key} = ")))
}

/// Faults of shape, whatever the tables hold.
pub(crate) fn faults(plan: &Plan, ordered_locks: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if plan.compiled {
        faults.push("it was compiled".to_owned());
    }
    walk(&plan.root, Above::Nothing, ordered_locks, &mut faults);
    faults
}

fn walk(node: &Value, above: Above, ordered_locks: bool, faults: &mut Vec<String>) {
    if let Some(table) = growing(node) {
        match kind(node) {
            "Seq Scan" => faults.push(format!("sequential scan of {table}")),
            // In the order of the pages, not of the ids.
            "Bitmap Heap Scan" if ordered_locks => faults.push(format!("bitmap scan of {table}")),
            "Index Scan" | "Index Only Scan" => {
                if node.get("Index Cond").is_none() && above != Above::Limit {
                    faults.push(format!("all of an index of {table}"));
                } else if above == Above::Sort && !by_key(node) {
                    faults.push(format!("a sort or aggregate of any number of rows of {table}"));
                }
            }
            _ => {}
        }
    }
    if matches!(kind(node), "Merge Join" | "Hash Join") && reads_growing(node) {
        faults.push(format!("{} of a table that grows", kind(node)));
    }
    let above = above.children_of(node);
    for child in children(node) {
        let begins = child["Parent Relationship"] == "InitPlan";
        walk(child, if begins { Above::Nothing } else { above }, ordered_locks, faults);
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
