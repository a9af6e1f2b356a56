//! Calls of many callers in one statement: each gets its own answer, and none suffers for another.

mod acquire;
mod enqueue;
mod finish;
mod restart;

use futures_util::future::join_all;
use rowlock::engine::Engine;

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
