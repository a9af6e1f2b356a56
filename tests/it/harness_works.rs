//! The harness keeps its promises.

use std::time::Duration;

use crate::harness::{Db, blocked_on_lock, wait_until};

#[tokio::test]
async fn tests_do_not_see_each_other() {
    let (first, second) = tokio::join!(Db::new(), Db::new());
    let client = first.connect().await;
    client.batch_execute("create table public.mine ()").await.expect("create");
    let other = second.connect().await;
    let query = "select to_regclass('public.mine') is null, current_setting('search_path')";
    let row = other.query_one(query, &[]).await.expect("query");
    assert_eq!((row.get(0), row.get(1)), (true, "rowlock"));
    drop((client, other));
    first.finish().await;
    second.finish().await;
}

#[tokio::test]
async fn a_blocked_backend_is_noticed() {
    let db = Db::new().await;
    let (holder, waiter) = (db.connect().await, db.connect().await);
    holder.batch_execute("select pg_advisory_lock(1)").await.expect("lock");
    let pid: i32 = waiter.query_one("select pg_backend_pid()", &[]).await.expect("pid").get(0);
    let waiting =
        tokio::spawn(async move { waiter.batch_execute("select pg_advisory_lock(1)").await });
    blocked_on_lock(&holder, pid).await;
    holder.batch_execute("select pg_advisory_unlock(1)").await.expect("unlock");
    waiting.await.expect("joins").expect("gets the lock");
    db.finish().await;
}

#[tokio::test]
async fn a_dropped_database_is_gone() {
    let keeper = Db::new().await;
    let observer = keeper.connect().await;
    let db = Db::new().await;
    let client = db.connect().await;
    let name: String =
        client.query_one("select current_database()::text", &[]).await.expect("name").get(0);
    drop(db);
    wait_until("the database is gone", Duration::from_secs(20), || async {
        let query = "select not exists (select from pg_database where datname = $1)";
        observer.query_one(query, &[&name]).await.expect("query").get(0)
    })
    .await;
    keeper.finish().await;
}
