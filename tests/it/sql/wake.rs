//! Wake-ups: told while somebody sleeps, silent otherwise, and never lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::poll_fn;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use uuid::Uuid;

use crate::harness::sql::{
    acquire, acquire_job, cancel, column, complete, discard, enqueue, enqueue_many, fail, finish,
    refused, release, retry, run, value,
};
use crate::harness::{Db, wait_until};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A connection that hears: its client, and the queues it was told of.
struct Sleeper {
    client: Client,
    told: mpsc::UnboundedReceiver<String>,
}

impl Sleeper {
    async fn new(db: &Db) -> Sleeper {
        let config: tokio_postgres::Config = db.url().parse().expect("a URL");
        let (client, mut connection) = config.connect(NoTls).await.expect("connects");
        let (sender, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut messages = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = sender.send(notification.payload().to_owned());
                }
            }
        });
        run(&client, "listen rowlock").await;
        Sleeper { client, told }
    }

    /// What it has been told by now: a notification arrives before the answer to a later call.
    async fn heard(&mut self) -> Vec<String> {
        run(&self.client, "select 1").await;
        let mut heard = Vec::new();
        while let Ok(queue) = self.told.try_recv() {
            heard.push(queue);
        }
        heard
    }
}

async fn advisory_locks(client: &Client) -> i64 {
    let held = "select count(*) from pg_locks where locktype = 'advisory'
        and database = (select oid from pg_database where datname = current_database())";
    value(client, held).await
}

#[tokio::test]
async fn nobody_is_told_when_nobody_sleeps() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut sleeper = Sleeper::new(&db).await;
    enqueue(&client, "'k'").await;
    assert!(sleeper.heard().await.is_empty());
    run(&sleeper.client, "select watch('{other}')").await;
    enqueue(&client, "'k'").await;
    assert!(sleeper.heard().await.is_empty());
    enqueue(&client, "'k', queue => 'other'").await;
    assert_eq!(sleeper.heard().await, ["other"]);
    assert!(value::<bool>(&sleeper.client, "select unwatch('{other}')").await);
    assert!(!value::<bool>(&sleeper.client, "select unwatch('{other}')").await);
    enqueue(&client, "'k', queue => 'other'").await;
    assert!(sleeper.heard().await.is_empty());
    assert_eq!(advisory_locks(&client).await, 0);
    db.finish().await;
}

#[tokio::test]
async fn a_transaction_tells_once_a_queue_and_only_at_its_commit() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut sleeper = Sleeper::new(&db).await;
    run(&sleeper.client, "select watch('{a,b,a}')").await;
    let many = "begin; select enqueue('k', queue => (array['a', 'b', 'c'])[1 + n % 3])
        from generate_series(1, 60) n";
    run(&client, many).await;
    assert!(sleeper.heard().await.is_empty());
    run(&client, "commit").await;
    let mut heard = sleeper.heard().await;
    heard.sort();
    assert_eq!(heard, ["a", "b"]);
    run(&client, "begin; select enqueue('k', queue => 'a'); rollback").await;
    run(
        &client,
        "begin; set local rowlock.notify = off; select enqueue('k', queue => 'a'); commit",
    )
    .await;
    assert!(sleeper.heard().await.is_empty());
    // Not ready, no news.
    enqueue(&client, "'k', queue => 'a', run_at => clock_timestamp() + interval '1 h'").await;
    assert!(sleeper.heard().await.is_empty());
    // Named twice, watched once.
    run(&sleeper.client, "select unwatch('{a,b}')").await;
    assert_eq!(advisory_locks(&client).await, 0);
    db.finish().await;
}

#[tokio::test]
async fn every_verb_that_makes_a_job_ready_tells() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut sleeper = Sleeper::new(&db).await;
    run(&sleeper.client, "select watch('{default}')").await;
    let job = enqueue(&client, "'k'").await;
    assert_eq!(sleeper.heard().await, ["default"], "enqueue");
    let got = acquire_job(&client, job).await;
    assert!(sleeper.heard().await.is_empty(), "acquire");
    release(&client, &[got]).await;
    assert_eq!(sleeper.heard().await, ["default"], "release");
    let got = acquire_job(&client, job).await;
    let now = ", retry_at => array[clock_timestamp()]";
    assert_eq!(finish(&client, "fail", &[got], now).await, ["retrying"]);
    assert_eq!(sleeper.heard().await, ["default"], "fail, due at once");
    let got = acquire_job(&client, job).await;
    fail(&client, &[got]).await;
    assert!(sleeper.heard().await.is_empty(), "fail, to be retried later");
    run(
        &client,
        "update scheduled set run_at = run_at - interval '1 h';
        update jobs set run_at = run_at - interval '1 h'; select * from maintain()",
    )
    .await;
    assert_eq!(sleeper.heard().await, ["default"], "promote");
    acquire_job(&client, job).await;
    run(
        &client,
        "update workers set lease_ends_at = now() - interval '1 s'; select * from maintain()",
    )
    .await;
    assert_eq!(sleeper.heard().await, ["default"], "rescue");
    cancel(&client, &[job]).await;
    assert!(sleeper.heard().await.is_empty(), "cancel");
    retry(&client, &[job]).await;
    assert_eq!(sleeper.heard().await, ["default"], "retry");
    run(&client, "select pause_queue('default')").await;
    assert!(sleeper.heard().await.is_empty(), "pause");
    run(&client, "select resume_queue('default')").await;
    assert_eq!(sleeper.heard().await, ["default"], "resume");
    db.finish().await;
}

#[tokio::test]
async fn a_released_child_is_told_of() {
    let db = Db::new().await;
    let client = db.connect().await;
    let mut sleeper = Sleeper::new(&db).await;
    run(&sleeper.client, "select watch('{children}')").await;
    let graph = json!([
        {"kind": "p", "ref": "p"},
        {"kind": "c", "queue": "children", "depends_on": ["p"]},
        {"kind": "d", "queue": "children", "depends_on": ["p"], "on_parent_failure": "continue"},
    ]);
    enqueue_many(&client, &graph).await;
    let got = acquire(&client, Uuid::new_v4(), 1).await;
    assert!(sleeper.heard().await.is_empty());
    complete(&client, &got).await;
    assert_eq!(sleeper.heard().await, ["children"], "cascade");
    enqueue_many(&client, &graph).await;
    discard(&client, &acquire(&client, Uuid::new_v4(), 1).await).await;
    assert_eq!(sleeper.heard().await, ["children"], "cascade of a failure");
    // Linked at COMMIT to a parent that has ended: ready there and then.
    let parent = value::<Uuid>(&client, "select id from jobs where state = 'discarded'").await;
    let link = format!(
        "'l', queue => 'children', depends_on => '{{{parent}}}', on_parent_failure => 'continue'"
    );
    enqueue(&client, &link).await;
    assert_eq!(sleeper.heard().await, ["children"], "link");
    db.finish().await;
}

#[tokio::test]
async fn what_cannot_be_watched_leaves_no_lock() {
    let db = Db::new().await;
    let client = db.connect().await;
    let queues = |most: i32| format!("array(select 'q' || n from generate_series(1, {most}) n)");
    refused(&client, "RL413", &format!("select watch({})", queues(257))).await;
    refused(&client, "RL422", "select watch('{a,b,-c}')").await;
    refused(&client, "RL422", "select watch(array['a', null])").await;
    assert_eq!(advisory_locks(&client).await, 0);
    run(&client, &format!("select watch({})", queues(256))).await;
    assert_eq!(advisory_locks(&client).await, 256);
    assert!(value::<bool>(&client, &format!("select unwatch({})", queues(256))).await);
    assert_eq!(advisory_locks(&client).await, 0);
    db.finish().await;
}

/// Tests beside this one have transactions open in the same cluster, but not for long.
async fn settles(client: &Client, since: &str) {
    let settled = format!("select settled('{since}')");
    wait_until("it is settled", TIMEOUT, || async { value(client, &settled).await }).await;
}

#[tokio::test]
async fn settled_waits_for_whoever_looked_before() {
    let db = Db::new().await;
    let (sleeper, looked) = (db.connect().await, db.connect().await);
    let since: String = value(&sleeper, "select watch('{default}')::text").await;
    settles(&sleeper, &since).await;
    // One looked, and is still open; its xid is above all that has completed, so that no snapshot
    // lists it, and xids drawn and completed later change nothing.
    run(&sleeper, "select unwatch('{default}')").await;
    run(&looked, "begin; select enqueue('k')").await;
    let since: String = value(&sleeper, "select watch('{default}')::text").await;
    let settled = format!("select settled('{since}')");
    assert!(!value::<bool>(&sleeper, &settled).await);
    for _ in 0..20 {
        run(&sleeper, "select pg_current_xact_id()").await;
        assert!(!value::<bool>(&sleeper, &settled).await);
    }
    run(&looked, "commit").await;
    settles(&sleeper, &since).await;
    // Whoever begins later is no reason to wait.
    run(&looked, "begin; select enqueue('k')").await;
    assert!(value::<bool>(&sleeper, &settled).await);
    // Inside one transaction, nothing is settled.
    run(&looked, "commit").await;
    let at_once = "select settled(watch('{other}'))";
    assert!(!value::<bool>(&sleeper, at_once).await);
    db.finish().await;
}

#[tokio::test]
async fn an_xid_above_the_snapshot_is_waited_for_too() {
    let db = Db::new().await;
    let (sleeper, first, second) = (db.connect().await, db.connect().await, db.connect().await);
    // Both are open, and nothing newer has completed: a snapshot's xmax is below them.
    // Tests beside this one complete xids too, so it may take a few attempts to be in between.
    let mut attempts = 0;
    loop {
        run(&first, "begin; select pg_current_xact_id()").await;
        run(&second, "begin; select enqueue('k')").await;
        let own: i64 = value(&second, "select pg_current_xact_id()::text::bigint").await;
        let xmax = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        if value::<i64>(&sleeper, xmax).await <= own {
            break;
        }
        attempts += 1;
        assert!(attempts < 500, "there is no moment without a newer xid");
        run(&first, "rollback").await;
        run(&second, "rollback").await;
    }
    let since: String = value(&sleeper, "select watch('{default}')::text").await;
    let settled = format!("select settled('{since}')");
    assert!(!value::<bool>(&sleeper, &settled).await);
    run(&first, "commit").await;
    assert!(!value::<bool>(&sleeper, &settled).await);
    run(&second, "commit").await;
    settles(&sleeper, &since).await;
    db.finish().await;
}

#[tokio::test]
async fn statements_cut_short_leak_no_lock() {
    let db = Db::new().await;
    let client = db.connect().await;
    let sleeper = Sleeper::new(&db).await;
    let (mut cut, mut done) = (0, 0);
    for round in 0..400 {
        if round % 50 == 0 {
            run(&sleeper.client, "select watch('{q1,q3,q5}')").await;
        } else if round % 50 == 25 {
            run(&sleeper.client, "select unwatch('{q1,q3,q5}')").await;
        }
        let call = format!(
            "set statement_timeout = '{}us'; select count(enqueue('k', queue => 'q' || n % 40))
             from generate_series(1, 40) n; reset statement_timeout",
            1000 + 17 * round
        );
        match client.batch_execute(&call).await {
            Ok(()) => done += 1,
            Err(error) => {
                assert_eq!(error.code().expect("of the server").code(), "57014", "{error:?}");
                run(&client, "reset statement_timeout").await;
                cut += 1;
            }
        }
    }
    assert!(40 < cut, "{cut} cut and {done} done: the time-outs do not fit this machine");
    run(&sleeper.client, "select pg_advisory_unlock_all()").await;
    assert_eq!(advisory_locks(&client).await, 0);
    db.finish().await;
}

/// Sleeps by the protocol until a job came; gives how long it slept past the poll interval.
async fn consume(db: &Db, poll: Duration, total: u64, taken: &AtomicU64, missed: &AtomicU64) {
    let mut sleeper = Sleeper::new(db).await;
    let worker = Uuid::new_v4();
    let look = async |client: &Client| {
        let got = acquire(client, worker, 7).await;
        taken.fetch_add(got.len() as u64, Ordering::Relaxed);
        complete(client, &got).await;
        !got.is_empty()
    };
    while taken.load(Ordering::Relaxed) < total {
        if look(&sleeper.client).await {
            continue;
        }
        let since: String = value(&sleeper.client, "select watch('{default}')::text").await;
        let settled = format!("select settled('{since}')");
        let mut pause = Duration::from_millis(1);
        let found = loop {
            // Settled first, then the look that may be the last.
            let last = value::<bool>(&sleeper.client, &settled).await;
            if look(&sleeper.client).await {
                break true;
            }
            if last || poll < pause {
                break false;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        };
        if !found
            && taken.load(Ordering::Relaxed) < total
            && tokio::time::timeout(poll, sleeper.told.recv()).await.is_err()
            && look(&sleeper.client).await
        {
            missed.fetch_add(1, Ordering::Relaxed);
        }
        run(&sleeper.client, "select unwatch('{default}')").await;
        while sleeper.told.try_recv().is_ok() {}
    }
}

#[tokio::test]
async fn of_ten_thousand_enqueues_none_waits_for_the_poll() {
    let db = Db::new().await;
    let (taken, missed) = (AtomicU64::new(0), AtomicU64::new(0));
    let total = 10_000;
    let poll = Duration::from_secs(2);
    let produce = async |number: u64| {
        let client = db.connect().await;
        for n in 0..total / 4 {
            enqueue(&client, "'k'").await;
            if (n + number).is_multiple_of(50) {
                tokio::time::sleep(Duration::from_millis(3 + number)).await;
            }
        }
    };
    let started = Instant::now();
    let sleepers = join_all((0..4).map(|_| consume(&db, poll, total, &taken, &missed)));
    let producers = join_all((0..4).map(produce));
    tokio::time::timeout(TIMEOUT * 5, async { tokio::join!(sleepers, producers) })
        .await
        .expect("all is consumed");
    assert_eq!(taken.load(Ordering::Relaxed), total);
    assert_eq!(missed.load(Ordering::Relaxed), 0, "woken by the poll, in {:?}", started.elapsed());
    let left: Vec<Uuid> = column(&db.connect().await, "select job_id from ready").await;
    assert!(left.is_empty());
    db.finish().await;
}
