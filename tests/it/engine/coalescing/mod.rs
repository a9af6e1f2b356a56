//! Calls of many callers in one statement: each gets its own answer, and none suffers for another.

mod acquire;
mod bounds;
mod enqueue;
mod finish;
mod restart;

use futures_util::future::join_all;
use rowlock::engine::{AcquireCall, Engine};
use rowlock::model::Execution;
use uuid::Uuid;

use crate::engine::job;

/// Statements that wait for a lock.
const HELD_UP: &str = "select count(*) from pg_stat_activity
    where wait_event_type = 'Lock' and datname = current_database()";

/// So many tasks, each with an engine of its own.
async fn callers<F, T>(engine: Engine, count: usize, call: impl Fn(Engine, usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let tasks: Vec<_> =
        (0..count).map(|caller| tokio::spawn(call(engine.clone(), caller))).collect();
    join_all(tasks).await.into_iter().map(|task| task.expect("joins")).collect()
}

/// Calls of a verb that wait or are under way.
fn waiting(engine: &Engine, verb: &str) -> usize {
    let found = engine.calls_waiting().into_iter().find(|(name, _)| *name == verb);
    found.expect("a verb that is coalesced").1
}

/// Workers, each with one job of its own under way.
async fn at_work(engine: &Engine, count: usize) -> Vec<(Uuid, Execution)> {
    engine.enqueue((0..count).map(|_| job("q")).collect()).await.expect("enqueues");
    callers(engine.clone(), count, |engine, _| async move {
        let worker = Uuid::now_v7();
        let call = AcquireCall::new(worker, vec!["q".to_owned()]);
        (worker, engine.acquire(call).await.expect("acquires")[0].execution)
    })
    .await
}
