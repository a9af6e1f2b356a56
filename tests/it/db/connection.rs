//! Connections, transactions, the pool and classes of errors.

use std::time::Duration;

use super::{options, scalar};
use rowlock::config::Pooler;
use rowlock::db::{Error, Pool, Recovery};
use rowlock::model::Code;

#[tokio::test]
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
async fn a_database_that_is_away_is_told_from_a_full_pool() {
    let mut options = options().await;
    options.url = "host=/nowhere user=nobody".into();
    let error = Pool::new(&options).unwrap().get().await.err().unwrap();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_statement_outlives_a_change_of_its_function() {
    let pool = Pool::new(&options().await).unwrap();
    pool.get().await.unwrap().batch("create view v as select 1 as a").await.unwrap();
    assert_eq!(scalar::<i32>(&pool, "select * from v").await, 1);
    let change = "drop view v; create view v as select 2::bigint as a";
    pool.get().await.unwrap().batch(change).await.unwrap();
    assert_eq!(scalar::<i64>(&pool, "select * from v").await, 2);
}

#[tokio::test]
async fn behind_a_pooler_nothing_is_tried_again_outside_a_transaction_that_is_set_up() {
    let mut options = options().await;
    options.settings.pooler = Pooler::Transaction;
    let pool = Pool::new(&options).unwrap();
    let mut connection = pool.get().await.unwrap();
    let transaction = connection.begin().await.unwrap();
    // Temporary, so that it is found whatever the search_path.
    let make = "create temp sequence tries;
        create function pg_temp.fails() returns void language plpgsql as $$
        begin
            perform nextval('pg_temp.tries');
            raise exception 'no' using errcode = '0A000';
        end $$";
    let outcome = transaction.batch(make).await;
    transaction.end(outcome).await.unwrap();
    connection.query("select pg_temp.fails()", &[]).await.unwrap_err();
    let tries = connection.query_one("select last_value from pg_temp.tries", &[]).await.unwrap();
    assert_eq!(tries.get::<_, i64>(0), 1);
    let left = "select count(*) from pg_prepared_statements";
    let left = connection.query_one(left, &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_connection_that_died_at_rest_is_not_lent() {
    let pool = Pool::new(&options().await).unwrap();
    let other = Pool::new(&options().await).unwrap();
    let pid: i32 = scalar(&pool, "select pg_backend_pid()").await;
    let kill = "select pg_terminate_backend($1)";
    other.get().await.unwrap().query(kill, &[&pid]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_ne!(scalar::<i32>(&pool, "select pg_backend_pid()").await, pid);
}
