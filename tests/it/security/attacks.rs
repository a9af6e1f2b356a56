//! Every function with the owner's rights, called from a session in which everything is a trap.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, SimpleQueryMessage};
use uuid::Uuid;

use super::stage::{CALLS, COUNTS, Stage};
use crate::harness::Db;
use crate::harness::sql::{column, refused, run, value};

const LAIR: &str = include_str!("lair.sql");

/// What stands before everything else in the attacker's search path.
const PATHS: &[&str] =
    &["lair, public, pg_temp, rowlock, pg_catalog", "pg_temp, lair, rowlock, pg_catalog, public"];

/// Settings that a session may change, as far from usual as they go.
const SETTINGS: &str = "
    set check_function_bodies = off; set datestyle = 'SQL, DMY'; set intervalstyle = 'sql_standard';
    set timezone = 'Pacific/Apia'; set standard_conforming_strings = off; set backslash_quote = on;
    set escape_string_warning = off; set transform_null_equals = on; set array_nulls = off;
    set bytea_output = 'escape'; set extra_float_digits = -15; set quote_all_identifiers = on;
    set row_security = off; set default_transaction_read_only = off; set lc_numeric = 'C';
    set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off;
    set enable_hashagg = off; set enable_sort = off; set enable_nestloop = off;
    set plan_cache_mode = force_custom_plan; set work_mem = '64kB'; set from_collapse_limit = 1;
    set join_collapse_limit = 1; set geqo_threshold = 2; set constraint_exclusion = on;
    set statement_timeout = '30s'; set lock_timeout = '10s'; set idle_in_transaction_session_timeout = '60s';
    set jit = off; set default_tablespace = ''; set client_min_messages = error;
    set xmloption = content; set gin_fuzzy_search_limit = 1; set cursor_tuple_fraction = 0.01";

/// What no session of an ordinary login may do, whatever it has made before.
const REFUSED: &[&str] = &[
    "set role rowlock_owner",
    "set session authorization rowlock_owner",
    "set session_replication_role = replica",
    "set session_preload_libraries = 'x'",
    "set plpgsql.variable_conflict = use_column",
    "create cast (pg_catalog.uuid as pg_catalog.text) with inout as implicit",
    "create event trigger e on ddl_command_start execute function lair.trap()",
    "create function lair.c() returns int language internal as 'int4in'",
    "create operator class lair.o for type pg_catalog.uuid using btree as operator 1 pg_catalog.<",
    "create trigger t before insert on rowlock.jobs for each row execute function lair.trap()",
    "create rule r as on insert to rowlock.ready do also select 1",
    "create function rowlock.length(text) returns int language sql return 1",
    "alter function rowlock.enqueue reset search_path",
];

/// A login that may execute every function, read no table and make things of its own.
struct Attacker {
    url: String,
    name: String,
}

impl Attacker {
    async fn new(db: &Db, owner: &Client) -> Attacker {
        let url = db.login(&[]).await;
        let name = url.rsplit('=').next().expect("a name").to_owned();
        run(
            owner,
            &format!(
                "create schema lair authorization {name}; grant create on schema public to {name};
                 grant usage on schema rowlock to {name};
                 grant execute on all functions in schema rowlock to {name}"
            ),
        )
        .await;
        Attacker { url, name }
    }

    async fn connect(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        client
    }

    async fn leave(self, owner: &Client) {
        run(owner, &format!("drop owned by {} cascade", self.name)).await;
    }
}

/// The answer without what differs from call to call: ids, numbers and times.
async fn answer(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await;
    let messages = messages.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let cell = |text: Option<&str>| masked(text.unwrap_or("null"));
    rows.map(|row| (0..row.len()).map(|n| cell(row.get(n))).collect::<Vec<_>>().join(" ")).collect()
}

fn masked(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let plain = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        match Uuid::try_parse(plain) {
            Ok(_) => word.replace(plain, "ID"),
            Err(_) => word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect(),
        }
    });
    words.collect::<Vec<String>>().join(" ").replace("00", "0").replace("00", "0")
}

async fn counts(owner: &Client) -> BTreeMap<String, i64> {
    let text: String = value(owner, COUNTS).await;
    serde_json::from_str(&text).expect("counts")
}

/// What a call answers, and by how much it changes what is stored.
async fn outcome(
    owner: &Client,
    client: &Client,
    sql: &str,
) -> (Vec<String>, BTreeMap<String, i64>) {
    // What a stage before has left would be in the way of the duties.
    for _ in 0..2 {
        run(owner, "select maintain(10000)").await;
    }
    let stage = Stage::set(owner).await;
    let before = counts(owner).await;
    let answer = answer(client, &stage.call(sql)).await;
    let mut delta = counts(owner).await;
    for (what, n) in before {
        *delta.entry(what).or_default() -= n;
    }
    delta.retain(|_, n| *n != 0);
    (answer, delta)
}

async fn marks(owner: &Client) -> Vec<String> {
    let sql = "select distinct who || ': ' || what from lair.marks order by 1 limit 20";
    column(owner, sql).await
}

#[tokio::test]
async fn every_function_with_the_owners_rights_has_an_attack() {
    let db = Db::new().await;
    let client = db.connect().await;
    let definers = "select proname::text from pg_proc
        where pronamespace = 'rowlock'::regnamespace and prosecdef";
    let definers: BTreeSet<String> = column(&client, definers).await.into_iter().collect();
    let attacked: BTreeSet<String> = CALLS.iter().map(|call| call.function.to_owned()).collect();
    assert_eq!(definers, attacked, "each needs a line in tests/it/security/stage.rs");
    let loose = "select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'rowlock'::regnamespace and p.prosecdef
            and not coalesce('search_path=rowlock, pg_temp' = any(p.proconfig), false)
        union all
        select nspname || ' is open to ' || a.grantee::regrole from pg_namespace n,
            aclexplode(n.nspacl) a
        where n.nspname = 'rowlock' and a.privilege_type = 'CREATE' and a.grantee <> n.nspowner";
    let loose: Vec<String> = column(&client, loose).await;
    assert!(loose.is_empty(), "{loose:?}");
    drop(client);
    db.finish().await;
}

#[tokio::test]
async fn a_callers_own_things_are_never_run_with_the_owners_rights() {
    let db = Db::new().await;
    let owner = db.connect().await;
    let attacker = Attacker::new(&db, &owner).await;
    let honest = attacker.connect().await;
    let mut expected = Vec::new();
    for call in CALLS {
        expected.push(outcome(&owner, &honest, call.sql).await);
    }
    // The second session has its plans from before the attack.
    let fresh = attacker.connect().await;
    run(&fresh, LAIR).await;
    for (client, path) in [(&fresh, PATHS[0]), (&honest, PATHS[1])] {
        run(client, &format!("set search_path = {path}")).await;
        run(client, SETTINGS).await;
        for (call, expected) in CALLS.iter().zip(&expected) {
            let found = outcome(&owner, client, call.sql).await;
            assert_eq!(&found, expected, "{} with {path}", call.function);
            assert_eq!(marks(&owner).await, Vec::<String>::new(), "{} with {path}", call.function);
        }
    }
    let moved = "select count(*) from pg_sequences where schemaname like 'pg_temp%' and last_value is not null";
    assert_eq!(value::<i64>(&owner, moved).await, 0, "a temporary sequence was drawn from");
    for sql in REFUSED {
        refused(&fresh, "42501", sql).await;
    }
    // What is the caller's runs as the caller, before the call begins.
    run(&fresh, "select rowlock.enqueue('k'::lair.kindish, pg_catalog.jsonb '{}'::lair.args)")
        .await;
    let all = marks(&owner).await;
    let own = format!("{}: ", attacker.name);
    assert!(all.iter().any(|mark| mark.ends_with("cast")), "{all:?}");
    assert!(all.iter().all(|mark| mark.starts_with(&own)), "{all:?}");
    drop((fresh, honest));
    attacker.leave(&owner).await;
    drop(owner);
    db.finish().await;
}

/// The attack is worth something only if it takes functions that are careless.
#[tokio::test]
async fn the_traps_catch_careless_functions() {
    const CARELESS: &[(&str, &str, &str)] = &[
        ("no path: a function", "", "perform length('k'::pg_catalog.varchar)"),
        ("no path: an operator", "", "perform 'k'::pg_catalog.text = 'k'::pg_catalog.text"),
        ("no path: a type", "", "perform '1'::jsonb"),
        ("no path: a function of ours", "", "perform limit_of('args_bytes')"),
        ("temporary ones first", "set search_path = rowlock", "insert into duties values ('x')"),
        ("a temporary type first", "set search_path = rowlock", "perform '1'::jsonb"),
    ];
    let db = Db::new().await;
    let owner = db.connect().await;
    let attacker = Attacker::new(&db, &owner).await;
    for (n, (_, path, body)) in CARELESS.iter().enumerate() {
        let sql = format!(
            "create function careless_{n}() returns void language plpgsql security definer {path}
                as $$ begin {body}; end $$;
             alter function careless_{n} owner to rowlock_owner;
             grant execute on function careless_{n} to public"
        );
        run(&owner, &sql).await;
    }
    let client = attacker.connect().await;
    run(&client, LAIR).await;
    run(&client, &format!("set search_path = {}", PATHS[0])).await;
    for (n, (what, _, _)) in CARELESS.iter().enumerate() {
        run(&client, &format!("select rowlock.careless_{n}()")).await;
        let caught = marks(&owner).await;
        assert!(
            caught.iter().any(|mark| mark.starts_with("rowlock_owner: ")),
            "{what}: {caught:?}"
        );
        run(&owner, "delete from lair.marks").await;
        run(&owner, &format!("drop function careless_{n}")).await;
    }
    drop(client);
    attacker.leave(&owner).await;
    drop(owner);
    db.finish().await;
}
