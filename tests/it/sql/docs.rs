//! The page on SQL says what the functions do.

use std::collections::BTreeSet;

use crate::harness::Db;
use crate::harness::sql::column;

const PAGE: &str = include_str!("../../../docs/SQL.md");
const LIMITS: &str = include_str!("../../../schema/functions/limits.sql");

/// The names that `limit_of` and `default_of` know.
fn names() -> BTreeSet<&'static str> {
    let cases = LIMITS.lines().filter_map(|line| line.trim_start().strip_prefix("when '"));
    cases.filter_map(|rest| rest.split('\'').next()).collect()
}

/// Name and value of the lines under the heading.
fn listed() -> Vec<(&'static str, &'static str)> {
    let (_, section) = PAGE.split_once("\n## Limits\n").expect("the page has limits");
    let section = section.split("\n## ").next().expect("a section has an end");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells = rows.filter_map(|row| row.split_once("` | "));
    cells.filter_map(|(name, rest)| Some((name, rest.split_once(" | ")?.0))).collect()
}

#[tokio::test]
async fn the_page_lists_every_limit_with_its_value() {
    let db = Db::new().await;
    let client = db.connect().await;
    let listed = listed();
    assert_eq!(listed.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), names());
    for (name, value) in listed {
        let sql = format!("select coalesce(limit_of('{name}')::text, default_of('{name}')::text)");
        let known: Vec<String> = column(&client, &sql).await;
        assert_eq!(known, [value], "{name}");
    }
    db.finish().await;
}

#[tokio::test]
async fn what_replaces_the_old_queries_can_be_asked() {
    let db = Db::new().await;
    let client = db.connect().await;
    let queries: Vec<&str> = PAGE
        .split("-- here\n")
        .skip(1)
        .map(|rest| rest.split(';').next().expect("a query has an end"))
        .collect();
    assert_eq!(queries.len(), 6);
    for query in queries {
        let prepared = client.prepare(query).await;
        let prepared = prepared.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        if prepared.params().is_empty() {
            client.query(&prepared, &[]).await.expect("it can be asked");
        }
    }
    db.finish().await;
}
