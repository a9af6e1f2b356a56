//! `rowlock migrate`: once, twice, by twenty at once, and not at all.

use uuid::Uuid;

use crate::harness::{Db, rowlock};

/// A schema of this test alone; its roles are the cluster's.
fn schema() -> String {
    format!("m{}", &Uuid::new_v4().simple().to_string()[..12])
}

async fn migrate(db: &Db, arguments: &[&str]) -> (bool, String) {
    let url = db.url();
    let mut command = rowlock(&["migrate", "--database-url", &url]);
    let output = command.args(arguments).output().await.expect("runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn twenty_at_once_make_one_schema() {
    let db = Db::new().await;
    let schema = schema();
    let arguments = ["--schema", schema.as_str()];
    let runs = (0..20).map(|_| migrate(&db, &arguments));
    let outcomes = futures_util::future::join_all(runs).await;
    assert!(outcomes.iter().all(|(success, _)| *success), "{outcomes:#?}");
    let made = outcomes.iter().filter(|(_, said)| said.contains("applied 0001_jobs")).count();
    let idle = outcomes.iter().filter(|(_, said)| said.contains("nothing to do")).count();
    assert_eq!((made, idle), (1, 19), "{outcomes:#?}");
    let client = db.connect().await;
    client.batch_execute(&format!("set search_path = {schema}, pg_temp")).await.expect("sets");
    client.query_one("select enqueue('test')", &[]).await.expect("enqueues");
    let broken = "select count(*) from verify() where violations > 0";
    let broken: i64 = client.query_one(broken, &[]).await.expect("verifies").get(0);
    assert_eq!(broken, 0);
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_dry_run_prints_what_would_be_run() {
    let db = Db::new().await;
    let schema = schema();
    let (success, script) = migrate(&db, &["--schema", &schema, "--dry-run"]).await;
    assert!(success, "{script}");
    assert!(script.contains(&format!("search_path = \"{schema}\", pg_temp")), "{script:.500}");
    let client = db.connect().await;
    let exists = "select exists (select from pg_namespace where nspname = $1)";
    let exists: bool = client.query_one(exists, &[&schema]).await.expect("reads").get(0);
    assert!(!exists, "a dry run made the schema");
    client.batch_execute(&script).await.expect("the script runs");
    let (_, said) = migrate(&db, &["--schema", &schema]).await;
    assert!(said.contains("nothing to do"), "{said}");
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_what_to_do() {
    let db = Db::new().await;
    let client = db.connect().await;
    let newer = "insert into migrations (version, name, checksum) values (9999, 'later', 'x')";
    client.execute(newer, &[]).await.expect("inserts");
    let url = db.url();
    for arguments in [
        vec!["migrate", "--database-url", &url],
        vec!["serve", "--listen", "127.0.0.1:0", "--database-url", &url],
    ] {
        let output = rowlock(&arguments).output().await.expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains("run a newer rowlock"), "{said}");
    }
    drop(client);
    db.finish().await;
}
