//! The manifest of privileges, `grants.txt`, against the catalog.
//!
//! `make test T=grants` compares; after a change that is meant, write it anew with
//! `ROWLOCK_TEST_WRITE_GRANTS=1 make test T=grants_are_those_of_the_manifest`, and read the diff.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rowlock::db::migrate::{self, EMBEDDED, Files};
use tokio_postgres::Client;

use crate::harness::Db;
use crate::harness::sql::{column, refused, run, value};

const MANIFEST: &str = include_str!("grants.txt");
const QUERY: &str = include_str!("grants.sql");

/// Who is asked about; the last has no right at all.
const ROLES: &[&str] = &["owner", "service", "producer", "worker", "observer", "test_nobody"];
const LEAST_CHECKS: usize = 400;

const TABLE_RIGHTS: &[&str] =
    &["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"];

fn manifest() -> Vec<String> {
    MANIFEST.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

async fn catalog(client: &Client) -> Vec<String> {
    column(client, QUERY).await
}

/// Fails with what is only in one of the two.
fn same(what: &str, expected: &[String], found: &[String]) {
    let (expected, found): (BTreeSet<_>, BTreeSet<_>) =
        (expected.iter().collect(), found.iter().collect());
    let missing = expected.difference(&found).map(|line| format!("- {line}"));
    let surplus = found.difference(&expected).map(|line| format!("+ {line}"));
    let difference: Vec<String> = missing.chain(surplus).collect();
    assert!(
        difference.is_empty(),
        "{what}: the manifest (-) and the catalog (+) differ:\n{}\n",
        difference.join("\n")
    );
}

#[tokio::test]
async fn grants_are_those_of_the_manifest() {
    let db = Db::new().await;
    let client = db.connect().await;
    let found = catalog(&client).await;
    if std::env::var_os("ROWLOCK_TEST_WRITE_GRANTS").is_some() {
        let head = MANIFEST.lines().filter(|line| line.starts_with('#')).map(str::to_owned);
        let lines: Vec<String> = head.chain(found.clone()).collect();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/security/grants.txt");
        std::fs::write(path, lines.join("\n") + "\n").expect("the manifest can be written");
    } else {
        same("a fresh schema", &manifest(), &found);
    }
    drop(client);
    db.finish().await;
}

/// A schema of the first migrations alone, on which rights were given that are not ours to give.
#[tokio::test]
async fn grants_after_an_upgrade_are_those_of_the_manifest() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    let schema = "rowlock".parse().expect("a name");
    run(&client, "drop schema rowlock cascade").await;
    run(
        &client,
        "alter default privileges for role rowlock_owner grant execute on functions to public",
    )
    .await;
    let (first, _) = EMBEDDED.migrations.split_at(2);
    let old = Files { migrations: first, functions: &[] };
    migrate::run_files(&mut client, &schema, &old).await.expect("the first migrations");
    run(&client, "grant all on all tables in schema rowlock to public, rowlock_worker").await;
    run(&client, "grant update (state) on jobs to rowlock_observer").await;
    run(&client, "grant create on schema rowlock to public").await;
    migrate::run(&mut client, &schema).await.expect("the rest");
    same("an upgraded schema", &manifest(), &catalog(&client).await);

    run(&client, "grant execute on all functions in schema rowlock to rowlock_producer").await;
    run(&client, "grant usage on all sequences in schema rowlock to public").await;
    run(&client, "update function_files set checksum = 'other'").await;
    migrate::run(&mut client, &schema).await.expect("the functions");
    same("functions applied again", &manifest(), &catalog(&client).await);
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn what_the_owner_makes_later_is_closed_to_others() {
    let db = Db::new().await;
    let client = db.connect().await;
    run(&client, "set role rowlock_owner").await;
    run(&client, "create function later() returns int language sql return 1").await;
    run(&client, "reset role").await;
    for role in ["service", "producer", "worker", "observer"] {
        run(&client, &format!("begin; set local role rowlock_{role}")).await;
        refused(&client, "42501", "select rowlock.later()").await;
        run(&client, "rollback").await;
    }
    run(&client, "drop function later()").await;
    drop(client);
    db.finish().await;
}

/// What the manifest grants: (sort, name) → `role:PRIVILEGE`s.
fn granted() -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut granted = BTreeMap::<_, BTreeSet<String>>::new();
    for line in manifest() {
        let (object, who) = line.split_once(" = ").unwrap_or((&line, ""));
        let (sort, name) = object.split_once(' ').expect("a sort and a name");
        let who = who.split(' ').filter(|who| !who.is_empty());
        let who =
            who.map(|who| if who.contains(':') { who.into() } else { format!("{who}:EXECUTE") });
        granted.entry((sort.to_owned(), name.to_owned())).or_default().extend(who);
    }
    granted
}

/// The function of Postgres that answers, and what it is asked about.
fn questions(sort: &str) -> (&'static str, &'static [&'static str]) {
    match sort {
        "schema" => ("has_schema_privilege", &["USAGE", "CREATE"]),
        "table" | "view" => ("has_table_privilege", TABLE_RIGHTS),
        "sequence" => ("has_sequence_privilege", &["USAGE", "SELECT", "UPDATE"]),
        "function" | "definer" => ("has_function_privilege", &["EXECUTE"]),
        _ => ("", &[]),
    }
}

/// With everything that a role has through others: each role is asked about each object.
#[tokio::test]
async fn each_role_has_no_right_that_the_manifest_does_not_give() {
    let db = Db::new().await;
    let client = db.connect().await;
    super::make_nobody(&client).await;
    let (mut checks, mut faults) = (0, Vec::new());
    let granted = granted();
    for ((sort, name), who) in &granted {
        let (ask, rights) = questions(sort);
        let object = if sort == "schema" { name.clone() } else { format!("rowlock.{name}") };
        for right in rights {
            let sql = format!(
                "select {ask}('rowlock_' || r, '{object}', '{right}') from unnest($1::text[]) r"
            );
            let rows = client.query(&sql, &[&ROLES]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            for (role, row) in ROLES.iter().zip(rows) {
                let expected = *role == "owner"
                    || who.contains(&format!("{role}:{right}"))
                    || who.contains(&format!("PUBLIC:{right}"));
                if row.get::<_, bool>(0) != expected {
                    faults.push(format!("{role} {right} {sort} {name}: expected {expected}"));
                }
                checks += 1;
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(LEAST_CHECKS <= checks, "only {checks} checks");
    println!("{checks} checks of {} objects and {} roles", granted.len(), ROLES.len());
    // A column, and what a table's rights do not say.
    for role in ["service", "observer", "worker", "producer"] {
        let sql = format!(
            "select has_column_privilege('rowlock_{role}', 'executions', 'token', 'select')"
        );
        assert!(!value::<bool>(&client, &sql).await, "{role} reads tokens");
    }
    drop(client);
    db.finish().await;
}
