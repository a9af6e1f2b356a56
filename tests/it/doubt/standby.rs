//! A COMMIT that waits for a standby that nobody is.

use std::time::Duration;

use rowlock::NewJob;
use rowlock::config::Settings;
use rowlock::db::{Error, Options, Pool};
use rowlock::embedded;
use rowlock::engine::Engine;
use rowlock::model::{Execution, Token};
use rowlock::shutdown::Shutdown;
use tokio_postgres::Client;
use uuid::Uuid;

use super::{CALL_TIMEOUT, DEADLINE};
use crate::harness::sql::{acquire, run, value};
use crate::harness::wait_until;
use crate::sql::crash::Victim;

const ADD: &str = "insert into toys values (1)";
const WAITING: &str = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";

async fn wait_for_standbys(client: &Client, names: &str) {
    run(client, &format!("alter system set synchronous_standby_names = '{names}'")).await;
    run(client, "select pg_reload_conf()").await;
    let names = format!("select current_setting('synchronous_standby_names') = '{names}'");
    wait_until("the setting holds", DEADLINE, || async { value(client, &names).await }).await;
}

/// Commits hang when the checkpointer has read the setting, too, which is a moment later.
async fn commits_hang(victim: &Victim, direct: &Client) {
    wait_until("commits hang", DEADLINE, || async {
        let probe = victim.connect().await.expect("connects");
        let commit = probe.batch_execute("select pg_logical_emit_message(true, '', '')");
        let hangs = tokio::time::timeout(Duration::from_millis(300), commit).await.is_err();
        let end = "select pg_terminate_backend(pid) from pg_stat_activity
                   where wait_event = 'SyncRep'";
        run(direct, end).await;
        hangs
    })
    .await;
    wait_until("nothing waits", DEADLINE, || async { value::<i64>(direct, WAITING).await == 0 })
        .await;
}

#[tokio::test]
async fn a_commit_that_no_standby_confirms_is_in_doubt() {
    let victim = Victim::new().await;
    // What the test itself does is not to wait.
    let direct = victim.connect().await.expect("connects");
    run(&direct, "set synchronous_commit = local; create table toys (id int)").await;
    let mut settings = Settings::default().database;
    settings.statement_timeout = CALL_TIMEOUT / 2;
    settings.call_timeout = CALL_TIMEOUT;
    let url = victim.cluster.url(embedded::DATABASE);
    let pool = Pool::new(&Options::new(url.as_str().into(), &settings)).expect("the url is good");
    wait_until("a session is there", DEADLINE, || async {
        match pool.get().await {
            Ok(connection) => connection.query("select 1", &[]).await.is_ok(),
            Err(_) => false,
        }
    })
    .await;
    let call = r#"{"workflow": "w", "jobs": [{"kind": "k", "queue": "flow"}]}"#;
    run(&direct, &format!("select rowlock.enqueue_many('{call}')")).await;
    let flow: Uuid = value(&direct, "select workflow from rowlock.jobs").await;
    wait_for_standbys(&direct, "nobody").await;
    commits_hang(&victim, &direct).await;

    // No time-out of the server's bounds it, but ours does.
    let error = pool.get().await.expect("connects").query(ADD, &[]).await.expect_err("hangs");
    assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
    // Sessions do not pile up behind it; and it was kept, here.
    wait_until("nothing waits", DEADLINE, || async { value::<i64>(&direct, WAITING).await == 0 })
        .await;
    assert_eq!(value::<i64>(&direct, "select count(*) from toys").await, 1);

    // Somebody cancels the wait: Postgres warns, and answers that all is well. It is not.
    let connection = pool.get().await.expect("connects");
    let cancelling = async {
        wait_until("the commit waits", CALL_TIMEOUT / 2, || async {
            value::<i64>(&direct, WAITING).await == 1
        })
        .await;
        let cancel =
            "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'";
        run(&direct, cancel).await;
    };
    let (outcome, ()) = tokio::join!(connection.query(ADD, &[]), cancelling);
    let error = outcome.expect_err("no standby has it");
    assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
    assert!(error.chain().contains("standbys"), "{}", error.chain());
    assert!(!connection.is_broken(), "the session is as good as before");

    // What is said again finds its job here, and is no more confirmed for that.
    let shutdown = Shutdown::new();
    let options = Options::new(url.as_str().into(), &settings);
    let engine = Engine::open(&options, &Settings::default().queue, &shutdown).expect("opens");
    let named = NewJob::new("k", &()).expect("args").id(Uuid::now_v7());
    let error = engine.enqueue_one(named.clone()).await.expect_err("no standby has it");
    assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
    assert_eq!(
        value::<i64>(&direct, "select count(*) from rowlock.jobs where queue <> 'flow'").await,
        1
    );
    let error = engine.enqueue_one(named.clone()).await.expect_err("nor has it now");
    assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
    // Nor is a workflow cancelled, though all of it is by the second time.
    for _ in 0..2 {
        let error = engine.cancel_workflow(flow).await.expect_err("no standby has it");
        assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
    }
    // Nor is an end that is told again.
    run(&direct, "set search_path = rowlock").await;
    let held = acquire(&direct, Uuid::new_v4(), 1).await.remove(0);
    run(
        &direct,
        &format!(
            "select complete('{}', '{{{}}}', '{{1}}', '{{{}}}')",
            held.worker, held.job_id, held.token
        ),
    )
    .await;
    let end = Execution { job_id: held.job_id, attempt: 1, token: Token::new(held.token) };
    let error = engine.complete(held.worker, vec![(end, None)]).await.expect_err("nor has that");
    assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());

    wait_for_standbys(&direct, "").await;
    assert!(!engine.enqueue_one(named).await.expect("confirmed").created);
    shutdown.drain(DEADLINE).await;
    drop(engine);
    tokio::time::timeout(Duration::from_secs(10), connection.query(ADD, &[]))
        .await
        .expect("in time")
        .expect("nothing is left of the warning");
    drop((connection, pool, direct));
    victim.end().await;
}
