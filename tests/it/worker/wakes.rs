//! How soon a worker hears of a job.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use rowlock::{Client as Rowlock, Job, Outcome};
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

use super::{DEADLINE, enqueue, job, reaches, start, worker};
use crate::harness::{Db, wait_until};

type Answer = Result<Outcome, String>;

const POLL: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_sleeping_worker_is_woken_long_before_its_poll() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = start(
        worker(&db)
            .poll(POLL)
            .queue("default", 1)
            .on("quick", |_: Job| async { Answer::Ok(Outcome::Complete) }),
    );
    // A sleeper is a shared lock on its queue.
    let asleep = "select exists (select from pg_locks l join pg_database d on d.oid = l.database
                  where l.locktype = 'advisory' and l.mode = 'ShareLock'
                  and d.datname = current_database())";
    for _ in 0..3 {
        wait_until("the worker sleeps", DEADLINE, || async {
            client.query_one(asleep, &[]).await.expect("query").get(0)
        })
        .await;
        let began = Instant::now();
        let id = enqueue(&client, job("quick")).await;
        reaches(&client, id, "completed").await;
        assert!(began.elapsed() < POLL / 4);
    }
    running.stop().await;
    db.finish().await;
}

#[tokio::test]
async fn without_wakeups_the_poll_finds_everything() {
    let db = Db::new().await;
    let client = db.connect().await;
    let running = start(
        worker(&db)
            .poll_only()
            .queue("default", 2)
            .queue("other", 1)
            .on("quick", |_: Job| async { Answer::Ok(Outcome::Complete) }),
    );
    for queue in ["default", "other", "default"] {
        let id = enqueue(&client, job("quick").queue(queue)).await;
        reaches(&client, id, "completed").await;
    }
    let listeners = "select count(*) from pg_stat_activity where datname = current_database()
                     and application_name like '%listener'";
    assert_eq!(client.query_one(listeners, &[]).await.expect("query").get::<_, i64>(0), 0);
    let queues = "select queues from rowlock.workers";
    let queues: Vec<String> = client.query_one(queues, &[]).await.expect("one worker").get(0);
    assert_eq!(queues.len(), 2);
    running.stop().await;
    db.finish().await;
}

/// Counts what reaches a session that listens and watches nothing.
async fn notifications(db: &Db) -> (Client, mpsc::UnboundedReceiver<String>) {
    let config: Config = db.url().parse().expect("a connection string");
    let (client, mut connection) = config.connect(NoTls).await.expect("connects");
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(news) = message {
                // The test may have ended.
                let _ = sender.send(news.payload().to_owned());
            }
        }
    });
    client.batch_execute("listen rowlock").await.expect("listens");
    (client, receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_beside_a_busy_worker_notify_nobody() {
    const PRODUCERS: usize = 4;
    const COMMITS: usize = 1_000;
    let db = Db::new().await;
    let client = db.connect().await;
    let backlog = vec![job("busy"); 10_000];
    for _ in 0..3 {
        Rowlock::default().enqueue(&client, &backlog).await.expect("the backlog is taken");
    }
    let busy = |_: Job| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Answer::Ok(Outcome::Complete)
    };
    let running = start(worker(&db).poll(POLL).queue("default", 8).on("busy", busy));
    let completed = "select count(*) from rowlock.jobs where state = 'completed'";
    wait_until("the worker is busy", DEADLINE, || async {
        500 < client.query_one(completed, &[]).await.expect("query").get::<_, i64>(0)
    })
    .await;
    let (listening, mut heard) = notifications(&db).await;
    let mut producers = Vec::new();
    for _ in 0..PRODUCERS {
        let client = db.connect().await;
        producers.push(tokio::spawn(async move {
            for _ in 0..COMMITS {
                enqueue(&client, job("busy")).await;
            }
        }));
    }
    for producer in producers {
        producer.await.expect("a producer");
    }
    let ready = "select count(*) from rowlock.jobs where state = 'ready'";
    let left: i64 = client.query_one(ready, &[]).await.expect("query").get(0);
    assert!(0 < left, "the worker was busy to the end");
    // They come in the order of the commits, so after this one there are no more.
    listening.batch_execute("select pg_notify('rowlock', '!end')").await.expect("notifies");
    let mut count = 0;
    while heard.recv().await.expect("the session lives") != "!end" {
        count += 1;
    }
    assert!(count * 100 < PRODUCERS * COMMITS, "{count} of {} commits", PRODUCERS * COMMITS);
    running.stop().await;
    db.finish().await;
}
