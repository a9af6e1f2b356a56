//! Tests of this floor against a live Postgres, with toy files in place of the schema.
//!
//! `ROWLOCK_TEST_DATABASE_URL=... cargo test --lib -- --ignored`, as a superuser. Each test has a
//! schema of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::listen::{Event, Listener, Mode, listener};
use super::migrate::{self, Files, FunctionFile, Migration};
use super::{Error, Options, Pool, Recovery, connect};
use crate::config::{DatabaseUrl, Settings};
use crate::model::{Code, SchemaName};

const TOYS: Files = Files {
    migrations: &[Migration { file: "0001_toys", sql: "create table toys (id int primary key);" }],
    functions: &[FunctionFile { file: "sleep", sql: TOY_FUNCTIONS }],
};

const MORE_TOYS: Files = Files {
    migrations: &[
        TOYS.migrations[0],
        Migration { file: "0002_colour", sql: "alter table toys add colour text;" },
    ],
    functions: TOYS.functions,
};

const TOY_FUNCTIONS: &str = "
    create or replace function watch(queues text[]) returns pg_snapshot
    language sql security definer set search_path from current
    as $$ select pg_current_snapshot() $$;
    create or replace function settled(since pg_snapshot) returns boolean
    language sql set search_path from current
    as $$ select pg_snapshot_xmin(since) <= pg_snapshot_xmin(pg_current_snapshot()) $$;
    create or replace function unwatch(queues text[]) returns void
    language plpgsql set search_path from current
    as $$ begin raise exception 'no' using errcode = 'RL422', hint = 'why'; end $$;";

static SCHEMAS: AtomicU32 = AtomicU32::new(0);

fn url() -> DatabaseUrl {
    let url = std::env::var("ROWLOCK_TEST_DATABASE_URL").expect("where to test is given");
    DatabaseUrl::from(url.as_str())
}

fn schema() -> SchemaName {
    let number = SCHEMAS.fetch_add(1, Ordering::Relaxed);
    format!("live_{}_{number}", std::process::id()).parse().unwrap()
}

async fn options() -> Options {
    let mut settings = Settings::default().database;
    settings.schema = schema();
    settings.pool_size = 2;
    settings.connect_timeout = Duration::from_millis(500);
    let mut client = connect(&url()).await.unwrap();
    migrate::run_files(&mut client, &settings.schema, &TOYS).await.unwrap();
    Options::new(url(), &settings)
}

async fn scalar<T: tokio_postgres::types::FromSqlOwned>(pool: &Pool, sql: &'static str) -> T {
    pool.get().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn twenty_migrations_at_once_are_one() {
    let schema = schema();
    let runs: Vec<_> = (0..20)
        .map(|_| {
            let schema = schema.clone();
            tokio::spawn(async move {
                let mut client = connect(&url()).await.unwrap();
                migrate::run_files(&mut client, &schema, &TOYS).await.unwrap()
            })
        })
        .collect();
    let mut changed = 0;
    for run in runs {
        let report = run.await.unwrap();
        assert_eq!(report.version, 1);
        changed += u32::from(!report.is_unchanged());
    }
    assert_eq!(changed, 1);
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_schema_goes_forward_and_never_back() {
    let schema = schema();
    let mut client = connect(&url()).await.unwrap();
    let before = migrate::check_files(&client, &schema, &TOYS).await;
    assert!(matches!(before, Err(migrate::Error::Behind { found: 0, newest: 1 })));
    migrate::run_files(&mut client, &schema, &TOYS).await.unwrap();
    let report = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert_eq!((report.from, report.version, report.functions), (1, 2, 1));
    let back = migrate::run_files(&mut client, &schema, &TOYS).await;
    assert!(matches!(back, Err(migrate::Error::Newer { found: 2, newest: 1 })));
    migrate::check_files(&client, &schema, &MORE_TOYS).await.unwrap();
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_failed_migration_names_its_line_and_leaves_nothing() {
    const BROKEN: Files = Files {
        migrations: &[
            TOYS.migrations[0],
            Migration { file: "0002_broken", sql: "select 1;\nselect 2;\nselect nothing;" },
        ],
        functions: &[],
    };
    let schema = schema();
    let mut client = connect(&url()).await.unwrap();
    let error = migrate::run_files(&mut client, &schema, &BROKEN).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(text, "schema/migrations/0002_broken.sql:3 failed and nothing was changed");
    let sql = format!("select 1 from pg_namespace where nspname = '{schema}'");
    assert!(client.query(&sql, &[]).await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn definer_functions_do_not_belong_to_a_superuser() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let owner: String = scalar(
        &pool,
        "select pg_get_userbyid(proowner)::text from pg_proc where oid = 'watch'::regproc",
    )
    .await;
    assert_eq!(owner, options.schema().role("owner"));
    let power = "select rolsuper or rolcanlogin from pg_roles \
                 where rolname = current_schema() || '_owner'";
    assert!(!scalar::<bool>(&pool, power).await);
    let path: String = scalar(
        &pool,
        "select array_to_string(proconfig, ' ') from pg_proc where oid = 'watch'::regproc",
    )
    .await;
    assert_eq!(path, format!("search_path={}, pg_temp", options.schema()));
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_role_without_rights_to_make_roles_may_install() {
    let schema = schema();
    let mut client = connect(&url()).await.unwrap();
    let plain = format!("{schema}_plain");
    let sql = format!(
        "create role {plain}; create schema {schema} authorization {plain}; \
         set session authorization {plain}"
    );
    client.batch_execute(&sql).await.unwrap();
    migrate::run_files(&mut client, &schema, &TOYS).await.unwrap();
    let again = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert_eq!(again.version, 2);
    // A superuser who migrates later leaves the owner as it was.
    client.batch_execute("reset session authorization").await.unwrap();
    let again = migrate::run_files(&mut client, &schema, &MORE_TOYS).await.unwrap();
    assert!(again.is_unchanged());
    let sql = format!(
        "select pg_get_userbyid(nspowner)::text from pg_namespace where nspname = '{schema}'"
    );
    let owner: String = client.query_one(&sql, &[]).await.unwrap().get(0);
    assert_eq!(owner, plain);
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn sessions_are_set_up() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let path: String = scalar(&pool, "show search_path").await;
    assert_eq!(path, format!("{}, pg_temp", options.schema()));
    assert_eq!(scalar::<String>(&pool, "show transaction_isolation").await, "read committed");
    assert_eq!(scalar::<String>(&pool, "show lock_timeout").await, "1s");
    assert_eq!(scalar::<String>(&pool, "show TimeZone").await, "UTC");
    assert_eq!(scalar::<String>(&pool, "show application_name").await, "rowlock");
    let prepared = "select count(*) from pg_prepared_statements";
    assert_eq!(scalar::<i64>(&pool, prepared).await, 6);
    assert_eq!(scalar::<i64>(&pool, prepared).await, 6);
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn an_abandoned_transaction_is_never_lent_again() {
    let pool = Pool::new(&options().await).unwrap();
    let pid = "select pg_backend_pid()";
    let first: i32 = scalar(&pool, pid).await;
    {
        let mut connection = pool.get().await.unwrap();
        let transaction = connection.begin().await.unwrap();
        transaction.batch("insert into toys values (1)").await.unwrap();
        drop(transaction);
        assert!(connection.is_broken());
    }
    let second: i32 = scalar(&pool, pid).await;
    assert_ne!(first, second);
    let connection = pool.get().await.unwrap();
    let slow = connection.query("select pg_sleep(5)", &[]);
    assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
    assert!(connection.is_broken());
    drop(connection);
    assert_eq!(scalar::<i64>(&pool, "select count(*) from toys").await, 0);
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_transaction_commits_all_or_says_that_it_did_not() {
    let pool = Pool::new(&options().await).unwrap();
    let mut connection = pool.get().await.unwrap();
    let transaction = connection.begin().await.unwrap();
    let outcome = transaction.batch("insert into toys values (1)").await;
    transaction.end(outcome).await.unwrap();
    let transaction = connection.begin().await.unwrap();
    transaction.batch("insert into toys values (2)").await.unwrap();
    assert!(transaction.batch("insert into toys values (1)").await.is_err());
    assert!(matches!(transaction.commit().await, Err(Error::Other(_))));
    assert!(!connection.is_broken());
    drop(connection);
    assert_eq!(scalar::<i64>(&pool, "select count(*) from toys").await, 1);
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn errors_have_their_class() {
    let pool = Pool::new(&options().await).unwrap();
    let connection = pool.get().await.unwrap();
    let refused = connection.query("select unwatch('{}')", &[]).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Invalid));
    assert!(matches!(&refused, Error::Refused { hint: Some(hint), .. } if hint == "why"));
    let late = connection.batch("set statement_timeout = 10; select pg_sleep(1)").await;
    assert!(matches!(late, Err(Error::Timeout(_))));
    connection.batch("set statement_timeout = 0").await.unwrap();
    let other = pool.get().await.unwrap();
    let exhausted = pool.get().await.err().unwrap();
    assert!(matches!(exhausted, Error::PoolExhausted));
    other.query("select pg_advisory_lock(7)", &[]).await.unwrap();
    let locked = connection.query("select pg_advisory_lock(7)", &[]).await;
    assert!(matches!(locked, Err(Error::Locked(_))));
    let pid: i32 = connection.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);
    other.query("select pg_terminate_backend($1)", &[&pid]).await.unwrap();
    let gone = connection.query("select 1", &[]).await.unwrap_err();
    assert!(matches!(gone, Error::Unavailable(_)), "{gone:?}");
    assert!(matches!(gone.recovery(), Recovery::Retry(_)));
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_database_that_is_away_is_told_from_a_full_pool() {
    let mut options = options().await;
    options.url = "host=/nowhere user=nobody".into();
    let error = Pool::new(&options).unwrap().get().await.err().unwrap();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_statement_outlives_a_change_of_its_function() {
    let pool = Pool::new(&options().await).unwrap();
    pool.get().await.unwrap().batch("create view v as select 1 as a").await.unwrap();
    assert_eq!(scalar::<i32>(&pool, "select * from v").await, 1);
    let change = "drop view v; create view v as select 2::bigint as a";
    pool.get().await.unwrap().batch(change).await.unwrap();
    assert_eq!(scalar::<i64>(&pool, "select * from v").await, 2);
}

async fn listening(options: &Options) -> (Listener, mpsc::Receiver<Event>, CancellationToken) {
    let stop = CancellationToken::new();
    let (listener, mut events, task) = listener(options, stop.clone()).unwrap();
    tokio::spawn(task);
    assert_eq!(events.recv().await, Some(Event::Reconnected { session: 1 }));
    assert_eq!(listener.mode(), Mode::Listen);
    (listener, events, stop)
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_listener_hears_and_hears_again_after_a_break() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let (listener, mut events, stop) = listening(&options).await;
    let notify = "select pg_notify(current_schema(), 'etl')";
    pool.get().await.unwrap().query(notify, &[]).await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Wake("etl".to_owned())));

    let watch = listener.watch(vec!["etl".to_owned()]).await.unwrap();
    while !listener.settled(&watch).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
                where application_name = 'rowlock listener' and query like '%settled%'";
    pool.get().await.unwrap().query(kill, &[]).await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Reconnected { session: 2 }));
    assert!(matches!(listener.settled(&watch).await, Err(Error::Unavailable(_))));

    // A refusal is an error too, and so the end of the session.
    let refused = listener.unwatch(vec![]).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::Invalid));
    assert_eq!(events.recv().await, Some(Event::Reconnected { session: 3 }));
    pool.get().await.unwrap().query(notify, &[]).await.unwrap();
    assert_eq!(events.recv().await, Some(Event::Wake("etl".to_owned())));
    stop.cancel();
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn a_flood_that_nobody_reads_is_summed_up() {
    let options = options().await;
    let pool = Pool::new(&options).unwrap();
    let (_listener, mut events, _stop) = listening(&options).await;
    let flood = "select pg_notify(current_schema(), 'q' || n) from generate_series(1, 5000) n";
    pool.get().await.unwrap().query(flood, &[]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut woken = 0;
    let last = loop {
        match events.recv().await {
            Some(Event::Wake(_)) => woken += 1,
            other => break other,
        }
    };
    assert_eq!(last, Some(Event::Missed));
    assert!(woken <= 1024, "{woken}");
}

#[tokio::test]
#[ignore = "needs ROWLOCK_TEST_DATABASE_URL"]
async fn six_databases_may_make_the_same_roles_at_once() {
    let schema = schema();
    let client = connect(&url()).await.unwrap();
    let databases: Vec<_> = (0..6).map(|number| format!("{schema}_{number}")).collect();
    for database in &databases {
        client.batch_execute(&format!("create database {database}")).await.unwrap();
    }
    let runs: Vec<_> = databases
        .iter()
        .map(|database| {
            let url = format!("{} dbname={database}", url().expose());
            let schema = schema.clone();
            tokio::spawn(async move {
                let mut client = connect(&url.as_str().into()).await.unwrap();
                migrate::run_files(&mut client, &schema, &TOYS).await.unwrap()
            })
        })
        .collect();
    for run in runs {
        assert_eq!(run.await.unwrap().applied, ["0001_toys"]);
    }
}
