//! `rowlock doctor`: each fault is made, found, mended and not found any more.

mod at_start;
mod cluster;

use serde_json::Value;
use tokio_postgres::Client;

use crate::harness::sql::{run, value};
use crate::harness::{Db, PgBouncer, rowlock, wait_until};
use crate::worker::DEADLINE;

/// What the doctor says: its exit code, and the findings.
struct Report {
    code: i32,
    findings: Vec<Value>,
}

async fn doctor(url: &str, more: &[&str]) -> Report {
    let mut command = rowlock(&["doctor", "--json", "--database-url", url]);
    let output = command.args(more).output().await.expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let findings = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let findings: Vec<Value> = findings.collect();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.is_empty(), "{told}");
    Report { code: output.status.code().expect("it exits"), findings }
}

impl Report {
    /// How bad the finding of this check is in which this word stands, if there is one.
    fn severity(&self, check: &str, word: &str) -> Option<&str> {
        let finding = self.findings.iter().find(|finding| {
            finding["check"] == check
                && finding["found"].as_str().is_some_and(|it| it.contains(word))
        })?;
        assert!(finding["advice"].as_str().is_some_and(|advice| !advice.is_empty()), "{finding}");
        finding["severity"].as_str()
    }
}

/// Makes a fault and mends it; it must be found in between, and not before and after.
async fn told(client: &Client, url: &str, fault: [&str; 2], expected: (&str, &str, &str)) {
    let (check, severity, word) = expected;
    let [make, mend] = fault;
    let before = doctor(url, &[]).await;
    assert_ne!(before.severity(check, word), Some(severity), "before {make}");
    run(client, make).await;
    let found = doctor(url, &[]).await;
    assert_eq!(found.severity(check, word), Some(severity), "{make}: {:#?}", found.findings);
    assert_eq!(found.code, i32::from(severity == "error" || before.code == 1), "{make}");
    run(client, mend).await;
    let after = doctor(url, &[]).await;
    assert_ne!(after.severity(check, word), Some(severity), "after {mend}");
    assert_eq!(after.code, before.code, "after {mend}");
}

#[tokio::test]
async fn settings_of_a_role_or_database_are_found() {
    let db = Db::new().await;
    let client = db.connect().await;
    let url = db.login(&["service"]).await;
    let name: String = value(&client, "select current_database()::text").await;
    let role = url.rsplit('=').next().expect("a name");
    let of_role = |setting: &str| {
        [format!("alter role {role} set {setting}"), format!("alter role {role} reset all")]
    };
    let of_database = |setting: &str| {
        [format!("alter database {name} set {setting}"), format!("alter database {name} reset all")]
    };
    for (fault, expected) in [
        (of_database("rowlock.allow_data_loss = off"), ("durability", "error", "a crash may lose")),
        (of_role("default_transaction_read_only = on"), ("recovery", "error", "read only")),
        (of_role("password_encryption = 'md5'"), ("passwords", "warning", "md5")),
        (of_role("log_min_duration_statement = '1s'"), ("log", "info", "logs statements")),
    ] {
        told(&client, &url, fault.each_ref().map(String::as_str), expected).await;
    }
    let limit = [
        format!("alter role {role} connection limit 10"),
        format!("alter role {role} connection limit -1"),
    ];
    let expected = ("connections", "warning", "gives this role 10");
    told(&client, &url, limit.each_ref().map(String::as_str), expected).await;
    assert_eq!(
        doctor(&url, &["--pool-size", "900"]).await.severity("connections", "903"),
        Some("warning")
    );
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn an_encoding_that_is_not_unicode_is_found() {
    let db = Db::new().await;
    let client = db.connect().await;
    let name = format!("ascii_{}", uuid::Uuid::new_v4().simple());
    let make = format!(
        "create database {name} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'"
    );
    run(&client, &make).await;
    let own: String = value(&client, "select current_database()::text").await;
    let report = doctor(&db.url().replace(&own, &name), &[]).await;
    assert_eq!(report.severity("encoding", "SQL_ASCII"), Some("error"), "{:#?}", report.findings);
    assert_eq!(report.severity("migrations", "version 0"), Some("error"));
    assert_eq!(doctor(&db.url(), &[]).await.severity("encoding", ""), None);
    run(&client, &format!("drop database {name} with (force)")).await;
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_schema_that_is_not_as_migrated_is_found() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    let url = db.login(&["service"]).await;
    let wake = "select pg_get_functiondef('wake'::regproc)";
    let wake: String = value(&client, wake).await;
    let wake = format!("set role rowlock_owner; {wake}; reset role");
    let backoff: String = value(&client, "select pg_get_functiondef('backoff'::regproc)").await;
    let backoff = format!("set role rowlock_owner; {backoff}; reset role");
    for (fault, expected) in [
        (
            ["create or replace function wake(queues text[]) returns void language sql as ''", &wake],
            ("drift", "error", "wake(text[]) (changed)"),
        ),
        (
            ["create or replace function backoff(failures int) returns interval
                language sql volatile parallel safe return interval '1 s'", &backoff],
            ("drift", "error", "backoff(integer) (changed)"),
        ),
        (
            ["alter function verify() reset search_path",
                "alter function verify() set search_path = rowlock, pg_temp"],
            ("drift", "error", "verify() (changed)"),
        ),
        (
            ["alter function verify() rename to verify_not", "alter function verify_not() rename to verify"],
            ("drift", "error", "verify() (missing)"),
        ),
        (
            ["create function length(uuid) returns int language sql return 1", "drop function length(uuid)"],
            ("drift", "warning", "length(uuid) (unknown)"),
        ),
        (
            ["alter table tickets disable trigger user", "alter table tickets enable trigger user"],
            ("triggers", "error", "on tickets"),
        ),
        (
            ["alter table jobs set (autovacuum_enabled = off)", "alter table jobs reset (autovacuum_enabled)"],
            ("tables", "warning", "jobs (autovacuum_enabled = off)"),
        ),
        (
            ["insert into migrations values (999, 'x', 'x')", "delete from migrations where version = 999"],
            ("migrations", "error", "version 999"),
        ),
        (
            ["update function_files set checksum = 'x' || checksum",
                "update function_files set checksum = substr(checksum, 2)"],
            ("migrations", "error", "not this binary's"),
        ),
        (
            ["select enqueue('k', id => '01900000-0000-7000-8000-000000000001', run_at => clock_timestamp() + '1 h');
              update scheduled set run_at = clock_timestamp() - interval '5 min'",
                "update scheduled set run_at = clock_timestamp() + interval '1 h'"],
            ("maintenance", "warning", "1 jobs have been due"),
        ),
    ] {
        told(&client, &url, fault, expected).await;
    }
    // A migration does not make its own what it finds there.
    run(&client, "create function length(uuid) returns int language sql return 1").await;
    run(&client, "update function_files set checksum = 'x'").await;
    let schema = "rowlock".parse().expect("a name");
    rowlock::db::migrate::run(&mut client, &schema).await.expect("applies all again");
    let found = doctor(&url, &[]).await;
    assert_eq!(found.severity("drift", "length(uuid) (unknown)"), Some("warning"));
    run(&client, "drop function length(uuid)").await;
    run(&client, "delete from scheduled; delete from jobs").await;
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn dead_rows_that_stay_are_found() {
    let db = Db::new().await;
    let client = db.connect().await;
    let make = "insert into duties select 'x' || n from generate_series(1, 150000) n";
    run(&client, make).await;
    // Autovacuum would be there before us.
    let holder = db.connect().await;
    run(&holder, "begin isolation level repeatable read; select 1 from duties limit 1").await;
    run(&client, "delete from duties where duty like 'x%'").await;
    wait_until("the statistics say so", DEADLINE, || async {
        doctor(&db.url(), &[]).await.severity("tables", "duties (150000 dead rows").is_some()
    })
    .await;
    run(&holder, "commit").await;
    run(&client, "vacuum duties").await;
    wait_until("the statistics say that they are gone", DEADLINE, || async {
        doctor(&db.url(), &[]).await.severity("tables", "duties").is_none()
    })
    .await;
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn rights_that_lack_or_are_too_many_are_found() {
    let db = Db::new().await;
    let client = db.connect().await;
    let service = doctor(&db.login(&["service"]).await, &[]).await;
    assert_eq!(service.code, 0, "{:#?}", service.findings);
    assert_eq!(service.severity("superuser", ""), None);
    assert_eq!(doctor(&db.url(), &[]).await.severity("superuser", ""), Some("warning"));
    let url = db.login(&["worker"]).await;
    assert_eq!(doctor(&url, &["--for", "worker"]).await.code, 0);
    let lacking = doctor(&url, &[]).await;
    assert_eq!(lacking.severity("privileges", "cancel"), Some("error"), "{:#?}", lacking.findings);
    assert_eq!(lacking.code, 1);
    let role = url.rsplit('=').next().expect("a name");
    run(&client, &format!("grant rowlock_service to {role}")).await;
    assert_eq!(doctor(&url, &[]).await.severity("privileges", ""), None);
    let nobody = doctor(&db.login(&[]).await, &[]).await;
    assert_eq!(
        nobody.severity("migrations", "permission denied"),
        Some("error"),
        "{:#?}",
        nobody.findings
    );
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn roles_that_are_missing_are_found() {
    let db = Db::new().await;
    let mut client = db.connect().await;
    let name = format!("doc_{}", std::process::id());
    let schema = name.parse().expect("a name");
    rowlock::db::migrate::run(&mut client, &schema).await.expect("migrates");
    let at = ["--schema", name.as_str()];
    assert_eq!(doctor(&db.url(), &at).await.severity("roles", ""), None);
    run(&client, &format!("drop owned by {name}_observer; drop role {name}_observer")).await;
    let report = doctor(&db.url(), &at).await;
    assert_eq!(report.severity("roles", &format!("{name}_observer")), Some("warning"));
    // As the finding says.
    run(&client, &format!("create role {name}_observer; delete from {name}.function_files")).await;
    rowlock::db::migrate::run(&mut client, &schema).await.expect("migrates");
    assert_eq!(doctor(&db.url(), &at).await.severity("roles", ""), None);
    for duty in ["observer", "worker", "producer", "service", "owner"] {
        run(&client, &format!("drop owned by {name}_{duty} cascade; drop role {name}_{duty}"))
            .await;
    }
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn who_keeps_old_snapshots_is_named() {
    let db = Db::new().await;
    let client = db.connect().await;
    let reader = db.connect().await;
    let pid: i32 = value(&reader, "select pg_backend_pid()").await;
    run(&reader, "set application_name = 'the long report'").await;
    let at = ["--bound", "1ms"];
    let name = format!("session {pid} of rowlock (the long report, idle in transaction)");
    assert_eq!(doctor(&db.url(), &at).await.severity("holders", &name), None);
    run(&reader, "begin isolation level repeatable read; select from rowlock.jobs").await;
    assert_eq!(doctor(&db.url(), &at).await.severity("holders", &name), Some("warning"));
    assert_eq!(doctor(&db.url(), &[]).await.severity("holders", &name), None, "it is young");
    run(&reader, "rollback; begin; select rowlock.enqueue('k')").await;
    let writes = doctor(&db.url(), &at).await;
    let found = writes.findings.iter().filter(|finding| finding["check"] == "holders");
    let found: Vec<String> = found.map(|finding| finding["found"].to_string()).collect();
    let ours = found.iter().find(|found| found.contains(&name)).expect("it is found");
    assert!(ours.contains("and the lanes' floors from rising"), "{ours}");

    // A login that may not look into others' sessions is told so.
    let url = db.login(&["service"]).await;
    let blind = doctor(&url, &at).await;
    assert_eq!(blind.severity("holders", &name), None);
    assert_eq!(blind.severity("hidden", "sessions of other roles"), Some("info"));
    let role = url.rsplit('=').next().expect("a name");
    run(&client, &format!("grant pg_read_all_stats to {role}")).await;
    let seeing = doctor(&url, &at).await;
    assert_eq!(seeing.severity("hidden", ""), None);
    assert_eq!(seeing.severity("holders", &name), Some("warning"));
    run(&reader, "rollback").await;
    assert_eq!(doctor(&db.url(), &at).await.severity("holders", &name), None);

    let prepared = format!("doctor {pid}");
    run(&client, "set rowlock.notify = off").await;
    run(&client, &format!("begin; select enqueue('k'); prepare transaction '{prepared}'")).await;
    assert_eq!(doctor(&db.url(), &at).await.severity("holders", &prepared), Some("warning"));
    run(&client, &format!("rollback prepared '{prepared}'")).await;
    assert_eq!(doctor(&db.url(), &at).await.severity("holders", &prepared), None);
    drop((client, reader));
    db.finish().await;
}

#[tokio::test]
async fn a_transaction_pooler_that_is_not_declared_is_found() {
    let db = Db::new().await;
    let pgbouncer = PgBouncer::start(&db.url(), 10).await;
    let through = pgbouncer.url(&db.url());
    let direct = db.url();
    assert_eq!(doctor(&direct, &[]).await.severity("pooler", ""), None);
    let found = doctor(&through, &[]).await;
    assert_eq!(
        found.severity("pooler", "ROWLOCK_POOLER says none"),
        Some("error"),
        "{:#?}",
        found.findings
    );
    let declared = ["--pooler", "transaction"];
    let report = doctor(&through, &declared).await;
    assert_eq!(report.severity("pooler", "no wake-ups"), Some("info"), "{:#?}", report.findings);
    assert_eq!(report.code, 0, "{:#?}", report.findings);
    let deaf = [&declared[..], &["--listen-url", &through]].concat();
    assert_eq!(
        doctor(&through, &deaf).await.severity("pooler", "LISTEN hears nothing"),
        Some("error")
    );
    let hears = [&declared[..], &["--listen-url", &direct]].concat();
    assert_eq!(doctor(&through, &hears).await.severity("pooler", ""), None);
    drop(pgbouncer);
    db.finish().await;
}

#[test]
fn the_page_lists_every_check() {
    let page = include_str!("../../docs/OPERATIONS.md");
    let listed: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(check, _)| check)
        .collect();
    assert_eq!(listed, rowlock::doctor::CHECKS);
}
