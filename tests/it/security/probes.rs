//! What a login of each role really can do: it is tried, and looked at whether it had an effect.

use tokio_postgres::Client;

use super::stage::{CALLS, Stage, digest};
use crate::harness::Db;
use crate::harness::sql::{column, refused, run};

const DUTIES: &[&str] = &["producer", "worker", "service", "observer", ""];

/// A connection of a fresh login with this role; with none for an empty name.
async fn login(db: &Db, duty: &str) -> Client {
    let roles: &[&str] = if duty.is_empty() { &[] } else { &[duty] };
    let url = db.login(roles).await;
    let (client, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    client
}

/// Who may call the function, by the manifest.
fn may(duty: &str, function: &str) -> bool {
    // A trigger's function is whose the statement is that fires it.
    let function = if function == "link_at_commit" { "enqueue" } else { function };
    let line = include_str!("grants.txt")
        .lines()
        .find(|line| line.starts_with(&format!("definer {function}(")))
        .unwrap_or_else(|| panic!("{function} is not in the manifest"));
    let (_, roles) = line.split_once(" = ").unwrap_or((line, ""));
    roles.split(' ').any(|role| role == duty && !duty.is_empty())
}

#[tokio::test]
async fn each_role_does_its_own_with_effect_and_nothing_else() {
    let db = Db::new().await;
    let owner = db.connect().await;
    let (mut did, mut refusals) = (0, 0);
    for duty in DUTIES {
        let client = login(&db, duty).await;
        let mut stage = Stage::set(&owner).await;
        for call in CALLS {
            let sql = stage.call(call.sql);
            let before = digest(&owner).await;
            if may(duty, call.function) {
                run(&client, &sql).await;
                let changed = digest(&owner).await != before;
                assert!(call.changes.is_none_or(|expected| expected == changed), "{duty}: {sql}");
                did += 1;
                if changed {
                    stage = Stage::set(&owner).await;
                }
            } else {
                refused(&client, "42501", &sql).await;
                assert_eq!(digest(&owner).await, before, "{duty}: {sql}");
                refusals += 1;
            }
        }
    }
    println!("{did} calls had their effect, {refusals} were refused");
    assert!(40 <= did && 100 <= refusals, "{did} and {refusals}");
    drop(owner);
    db.finish().await;
}

/// What only the owner may do, with a table's name in place of `{}`.
const WRITES: &[&str] = &[
    "insert into rowlock.{} default values",
    "update rowlock.{} set {column} = default",
    "delete from rowlock.{}",
    "truncate rowlock.{}",
    "lock table rowlock.{} in share row exclusive mode",
    "create trigger t before insert on rowlock.{} for each row execute function suppress_redundant_updates_trigger()",
    "create rule r as on insert to rowlock.{} do instead nothing",
    "alter table rowlock.{} add column x int",
    "drop table rowlock.{}",
];

const DEEDS: &[&str] = &[
    "create table rowlock.x ()",
    "create view rowlock.x as select 1",
    "create function rowlock.x() returns int language sql return 1",
    "create or replace function rowlock.wake(queues text[]) returns void language sql as ''",
    "alter function rowlock.verify() reset search_path",
    "alter function rowlock.verify() security invoker",
    "drop function rowlock.verify()",
    "alter schema rowlock rename to x",
    "comment on schema rowlock is 'x'",
    "select nextval('rowlock.ready_seq')",
    "select setval('rowlock.ready_seq', 1)",
    "grant rowlock_owner to current_user",
    "set role rowlock_owner",
    "set session authorization rowlock_owner",
    "alter role rowlock_owner login",
    "set session_replication_role = replica",
];

#[tokio::test]
async fn nobody_but_the_owner_writes_tables_or_changes_the_schema() {
    let db = Db::new().await;
    let owner = db.connect().await;
    Stage::set(&owner).await;
    let before = digest(&owner).await;
    let columns: Vec<String> = column(
        &owner,
        "select c.relname || ' ' || (select attname from pg_attribute
            where attrelid = c.oid and attnum = 1)
         from pg_class c where relnamespace = 'rowlock'::regnamespace and relkind = 'r'",
    )
    .await;
    let mut refusals = 0;
    for duty in DUTIES {
        let client = login(&db, duty).await;
        for table in &columns {
            let (table, column) = table.split_once(' ').expect("a table and a column");
            for write in WRITES {
                let sql = write.replace("{}", table).replace("{column}", column);
                // LOCK TABLE wants a transaction.
                run(&client, "begin").await;
                refused(&client, "42501", &sql).await;
                run(&client, "rollback").await;
                refusals += 1;
            }
            let is_public = ["migrations", "function_files", "function_digests"].contains(&table)
                && !duty.is_empty();
            if !["service", "observer"].contains(duty) && !is_public {
                refused(&client, "42501", &format!("select count(*) from rowlock.{table}")).await;
                refusals += 1;
            }
        }
        for deed in DEEDS {
            // A role that is not there for those without the schema says so first.
            refused(&client, "42501", deed).await;
            refusals += 1;
        }
    }
    assert_eq!(digest(&owner).await, before);
    println!("{refusals} refusals");
    drop(owner);
    db.finish().await;
}
