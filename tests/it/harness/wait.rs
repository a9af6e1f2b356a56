//! Waiting for conditions, with a deadline; the only way a test may wait.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

const POLL: Duration = Duration::from_millis(10);
const LOCK_DEADLINE: Duration = Duration::from_secs(20);

/// Asks until the answer is yes, and fails the test when it is still no at the deadline.
#[track_caller]
pub(crate) fn wait_until<C, F>(
    what: &str,
    deadline: Duration,
    mut condition: C,
) -> impl Future<Output = ()>
where
    C: FnMut() -> F,
    F: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        while !condition().await {
            let waited = started.elapsed();
            assert!(waited < deadline, "waited {waited:?} until {what}, at {caller}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Waits until the backend `pid` waits for a heavyweight lock, as seen by another connection.
pub(crate) async fn blocked_on_lock(observer: &Client, pid: i32) {
    let query = "select coalesce(bool_or(wait_event_type = 'Lock'), false)
                 from pg_stat_activity where pid = $1";
    wait_until("the backend waits for a lock", LOCK_DEADLINE, || async {
        observer.query_one(query, &[&pid]).await.expect("activity is readable").get(0)
    })
    .await;
}
