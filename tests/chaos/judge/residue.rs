//! L12: what must not be left when everybody has gone.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio_postgres::Client;

use super::{Finding, rows, text_of};

/// For the server to notice that its clients are gone.
const PATIENCE: Duration = Duration::from_secs(10);

const LEFT: &str = "
    select format('%s is still connected, and %s', a.application_name, a.state)
    from pg_stat_activity a
    where a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
    union all
    select format('an advisory lock is held by %s', l.pid) from pg_locks l
    where l.locktype = 'advisory'
    union all
    select format('a prepared transaction %s is left', p.gid) from pg_prepared_xacts p
    union all
    select format('the queue of notifications is used to %s', pg_notification_queue_usage())
    where pg_notification_queue_usage() > 0.01
    union all
    select format('%s rows are left in %s', x.n, x.name)
    from (
        select 'ready' as name, count(*) as n from rowlock.ready
        union all
        select 'scheduled', count(*) from rowlock.scheduled
        union all
        select 'blocked', count(*) from rowlock.blocked
        union all
        select 'links', count(*) from rowlock.links
        union all
        select 'tickets', count(*) from rowlock.tickets
        union all
        select 'unique_keys', count(*) from rowlock.unique_keys
    ) x
    where x.n > 0";

/// While all processes live, and have nothing to do.
const LEFT_OPEN: &str = "
    select format('a transaction of %s is idle since %s', a.application_name, a.state_change)
    from pg_stat_activity a
    where a.state like 'idle in transaction%'
        and a.state_change < clock_timestamp() - interval '10 seconds'
    union all
    select format('%s has %s sessions', a.application_name, count(*))
    from pg_stat_activity a
    where a.backend_type = 'client backend' and a.application_name <> 'chaos'
    group by a.application_name
    having count(*) > 25";

/// What processes keep open that have nothing to do any more; those that are killed afterwards
/// leave nothing.
pub(crate) async fn left_open(client: &Client) -> Result<Vec<String>> {
    rows(client, LEFT_OPEN, "L12").await
}

/// Words in the server's log that a queue must not be the reason for.
const ALARMS: [&str; 3] = ["deadlock detected", "PANIC:", "out of shared memory"];

pub(super) async fn look(client: &Client, log: &Path) -> Result<Finding> {
    let end = Instant::now() + PATIENCE;
    let mut violations = rows(client, LEFT, "L12").await?;
    while !violations.is_empty() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        violations = rows(client, LEFT, "L12").await?;
    }
    let log = text_of(log);
    for alarm in ALARMS {
        let count = log.matches(alarm).count();
        if 0 < count {
            violations.push(format!("the server's log says \"{alarm}\" {count} times"));
        }
    }
    Ok(Finding { check: "L12", what: "residue", violations })
}
