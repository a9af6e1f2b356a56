//! How soon a worker hears of a job.

use std::time::{Duration, Instant};

use rowlock::{Job, Outcome};

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
