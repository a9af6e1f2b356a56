//! The same through a PgBouncer in transaction mode, which gives each transaction any session.

use rowlock::config::{Pooler, Settings};
use rowlock::db::{Options, Pool};
use rowlock::engine::{Engine, Error, Wakeups};
use uuid::Uuid;

use super::{CALL_TIMEOUT, LOSSES};
use crate::engine::job;
use crate::harness::sql::value;
use crate::harness::{Db, PgBouncer};
use crate::proxy::{Fault, Protocol, Proxy, Upstream, When};

/// Fewer than the engine has connections.
const SESSIONS: u32 = 2;

#[tokio::test]
async fn jobs_with_ids_are_enqueued_once_through_a_pooler_too() {
    let db = Db::new().await;
    let direct = db.connect().await;
    let pgbouncer = PgBouncer::start(&db.url(), SESSIONS).await;
    let proxy = Proxy::start(Upstream::of(&pgbouncer.url(&db.url())), Protocol::Postgres).await;
    let mut settings = Settings::default();
    settings.database.pooler = Pooler::Transaction;
    settings.database.lock_timeout = CALL_TIMEOUT / 4;
    settings.database.statement_timeout = CALL_TIMEOUT / 2;
    settings.database.call_timeout = CALL_TIMEOUT;
    let url = proxy.url(&pgbouncer.url(&db.url()));
    let pool = Pool::new(&Options::new(url.as_str().into(), &settings.database)).expect("a pool");
    let engine = Engine::new(pool, &settings.queue, Wakeups::polling());
    let mut stored = 0;
    for (when, loss) in LOSSES {
        proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let error = engine.enqueue_one(job("q")).await.expect_err("nobody knows");
        assert!(matches!(error, Error::InDoubt(_)), "{}", error.chain());
        stored += i64::from(when == When::After);
        proxy.arm(Fault::once(when, loss, "enqueue_batch"));
        let id = Uuid::now_v7();
        let answer = engine.enqueue_one(job("q").id(id)).await.expect("known");
        assert_eq!((answer.job_id, answer.created), (id, when == When::Before));
        stored += 1;
        let jobs: i64 = value(&direct, "select count(*) from jobs").await;
        assert_eq!(jobs, stored, "{when:?} {loss:?}");
    }
    drop((engine, proxy, pgbouncer, direct));
    db.finish().await;
}
