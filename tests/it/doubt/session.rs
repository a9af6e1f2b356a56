//! One connection: deadlines, and which of two errors is the right one.

use std::time::{Duration, Instant};

use rowlock::config::Pooler;
use rowlock::db::{Error, Pool};

use super::{CALL_TIMEOUT, DEADLINE, LOSSES, Scene};
use crate::harness::sql::{run, value};
use crate::harness::wait_until;
use crate::proxy::{Fault, Loss, Mode, When};

const ADD: &str = "insert into toys values (1)";

async fn toys() -> (Scene, Pool) {
    let scene = Scene::new().await;
    run(&scene.direct, "create table toys (id int)").await;
    let pool = Pool::new(&scene.options()).expect("the url is good");
    (scene, pool)
}

/// An attempt that hangs may have to end first.
async fn until_connected(pool: &Pool) {
    wait_until("a connection is had", DEADLINE, || async { pool.get().await.is_ok() }).await;
}

#[tokio::test]
async fn a_statement_that_got_no_answer_is_in_doubt_whether_it_was_kept_or_not() {
    let (scene, pool) = toys().await;
    for (when, loss) in LOSSES {
        run(&scene.direct, "truncate toys").await;
        scene.proxy.arm(Fault::once(when, loss, "insert into toys"));
        let connection = pool.get().await.expect("connects");
        let began = Instant::now();
        let error = connection.query(ADD, &[]).await.expect_err("lost");
        assert!(matches!(error, Error::InDoubt(_)), "{when:?} {loss:?}: {}", error.chain());
        let waited = began.elapsed();
        assert!(waited < CALL_TIMEOUT + Duration::from_secs(5), "{waited:?}");
        assert_eq!(loss == Loss::Silence, CALL_TIMEOUT <= waited, "{waited:?}");
        let kept: i64 = value(&scene.direct, "select count(*) from toys").await;
        assert_eq!(kept, i64::from(when == When::After));
        // Nobody is lent that connection again.
        assert!(connection.is_broken());
        drop(connection);
        pool.get().await.expect("connects").query(ADD, &[]).await.expect("another is good");
    }
    drop(pool);
    scene.end().await;
}

#[tokio::test]
async fn only_the_commit_of_a_transaction_is_in_doubt() {
    let (scene, pool) = toys().await;
    for (when, loss) in LOSSES {
        run(&scene.direct, "truncate toys").await;
        let mut connection = pool.get().await.expect("connects");
        let transaction = connection.begin().await.expect("begins");
        transaction.query(ADD, &[]).await.expect("adds");
        scene.proxy.arm(Fault::once(when, loss, "commit"));
        let error = transaction.commit().await.expect_err("lost");
        assert!(matches!(error, Error::InDoubt(_)), "{when:?} {loss:?}: {}", error.chain());
        let kept: i64 = value(&scene.direct, "select count(*) from toys").await;
        assert_eq!(kept, i64::from(when == When::After));
    }
    for mode in [Mode::BlackHole, Mode::Reset] {
        let mut connection = pool.get().await.expect("connects");
        let transaction = connection.begin().await.expect("begins");
        transaction.query("select 1", &[]).await.expect("answers");
        scene.proxy.set(mode);
        let error = transaction.query(ADD, &[]).await.expect_err("lost");
        assert!(matches!(error, Error::Unavailable(_)), "{mode:?}: {}", error.chain());
        drop(transaction);
        scene.proxy.set(Mode::Pass);
    }
    drop(pool);
    scene.end().await;
}

#[tokio::test]
async fn what_was_never_sent_is_not_in_doubt() {
    let (scene, pool) = toys().await;
    // Its preparation is not answered: nothing can have run.
    let connection = pool.get().await.expect("connects");
    scene.proxy.set(Mode::BlackHole);
    let error = connection.query(ADD, &[]).await.expect_err("lost");
    assert!(matches!(error, Error::Unavailable(_)), "{}", error.chain());
    drop(connection);
    // No connection can be had, and those that hang are given up.
    let error = pool.get().await.err().expect("none");
    assert!(matches!(error, Error::Unavailable(_) | Error::PoolExhausted), "{}", error.chain());
    scene.proxy.set(Mode::Pass);
    until_connected(&pool).await;
    // The server says itself that it ended the session before the statement.
    let connection = pool.get().await.expect("connects");
    let pid = connection.query_one("select pg_backend_pid()", &[]).await.expect("a pid");
    let pid: i32 = pid.get(0);
    let end = format!("select pg_terminate_backend({pid})");
    run(&scene.direct, &end).await;
    let error = connection.query(ADD, &[]).await.expect_err("ended");
    assert!(matches!(error, Error::Unavailable(_)), "{}", error.chain());
    drop((connection, pool));
    scene.end().await;
}

#[tokio::test]
async fn connects_that_hang_do_not_use_the_pool_up() {
    let scene = Scene::new().await;
    let options = scene.options();
    let pool = Pool::new(&options).expect("the url is good");
    scene.proxy.set(Mode::BlackHole);
    let all = (0..options.settings.pool_size).map(|_| pool.get());
    assert!(futures_util::future::join_all(all).await.iter().all(Result::is_err));
    // What hangs stays so: only new connections come through.
    scene.proxy.strand_all();
    scene.proxy.set(Mode::Pass);
    until_connected(&pool).await;
    drop(pool);
    scene.end().await;
}

#[tokio::test]
async fn through_a_pooler_begin_statement_and_commit_are_in_doubt_as_one() {
    let scene = Scene::new().await;
    run(&scene.direct, "create table toys (id int)").await;
    let mut options = scene.options();
    options.settings.pooler = Pooler::Transaction;
    let pool = Pool::new(&options).expect("the url is good");
    for (when, loss) in LOSSES {
        run(&scene.direct, "truncate toys").await;
        scene.proxy.arm(Fault::once(when, loss, "insert into toys"));
        let error = pool.get().await.expect("connects").query(ADD, &[]).await.expect_err("lost");
        assert!(matches!(error, Error::InDoubt(_)), "{when:?} {loss:?}: {}", error.chain());
        let kept: i64 = value(&scene.direct, "select count(*) from toys").await;
        assert_eq!(kept, i64::from(when == When::After));
    }
    drop(pool);
    scene.end().await;
}

#[tokio::test]
async fn what_was_given_up_ends_on_the_server_too() {
    let scene = Scene::new().await;
    let mut options = scene.options();
    options.settings.statement_timeout = Duration::ZERO;
    let pool = Pool::new(&options).expect("the url is good");
    let connection = pool.get().await.expect("connects");
    let error = connection.query("select pg_sleep(600)", &[]).await.expect_err("too long");
    assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
    let sleeping = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event = 'PgSleep'";
    wait_until("it is cancelled", DEADLINE, || async {
        value::<i64>(&scene.direct, sleeping).await == 0
    })
    .await;
    drop((connection, pool));
    scene.end().await;
}
