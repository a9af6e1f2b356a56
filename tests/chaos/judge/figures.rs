//! Counts and times of a run, for the closing line and the report.

use std::collections::BTreeMap;

use anyhow::Result;
use tokio_postgres::Client;

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) jobs: i64,
    pub(crate) in_graphs: i64,
    pub(crate) executions: i64,
    pub(crate) calls: i64,
    pub(crate) unknowns: i64,
    pub(crate) stale: i64,
    pub(crate) by_state: BTreeMap<String, i64>,
    pub(crate) faults: BTreeMap<String, i64>,
    /// That found nothing to strike.
    pub(crate) missed: i64,
    pub(crate) stalls: i64,
    /// Executions beyond the one that ended the job, by their cause.
    pub(crate) causes: BTreeMap<String, i64>,
    /// Seconds from the end of a killed worker's lease to the next attempt of what it held, where
    /// neither the database nor the service was away meanwhile.
    pub(crate) recovery: Vec<f64>,
    /// Jobs ended a second in the 5 s before each restart, and in the 10 s after it accepted
    /// connections.
    pub(crate) restarts: Vec<(f64, f64)>,
    /// The share of the run in which no fault that strikes all excuses anything.
    pub(crate) judged_share: f64,
}

const RECOVERY: &str = "
    select extract(epoch from n.opened - w.lease_ends_at)::float8
    from chaos.causes c
    join rowlock.workers w on w.name = c.worker
    join chaos.executions n on n.job = c.job and n.attempt = c.attempt + 1
    where c.outcome = 'lost' and c.cause = 'kill_worker'
        and not exists (
            select from chaos.faults f
            where f.kind in ('restart_database', 'kill_backend', 'exhaust_connections',
                    'kill_service', 'step_clock')
                and f.begin < n.opened and f.ends + interval '2 seconds' > w.lease_ends_at
        )
    order by 1";

const RESTARTS: &str = "
    select
        (
            select count(*) from chaos.ends e
            where e.at between f.begin - interval '5 seconds' and f.begin
        ) / 5.0::float8,
        (
            select count(*) from chaos.ends e
            where e.at between f.ends and f.ends + interval '10 seconds'
        ) / 10.0::float8
    from chaos.faults f
    where f.kind in ('restart_database', 'kill_backend')
    order by f.begin";

const JUDGED_SHARE: &str = "
    select coalesce(
        (select extract(epoch from sum(s.ends - s.begin)) from chaos.stretches s)
            / nullif(extract(epoch from max(h.at) - min(h.at)), 0),
        0)::float8
    from chaos.history h";

impl Figures {
    pub(super) async fn read(client: &Client) -> Result<Figures> {
        let count = |sql: &'static str| async move {
            anyhow::Ok(client.query_one(sql, &[]).await?.get::<_, i64>(0))
        };
        let counts = |sql: &'static str| async move {
            let rows = client.query(sql, &[]).await?;
            let pair = |row: &tokio_postgres::Row| (row.get::<_, String>(0), row.get::<_, i64>(1));
            anyhow::Ok(rows.iter().map(pair).collect::<BTreeMap<_, _>>())
        };
        let rows = client.query(RECOVERY, &[]).await?;
        let recovery = rows.iter().map(|row| row.get(0)).collect();
        let rows = client.query(RESTARTS, &[]).await?;
        let restarts = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Figures {
            jobs: count("select count(*) from chaos.found").await?,
            in_graphs: count(
                "select count(*) from chaos.found f where exists (
                    select from chaos.edges e where e.child = f.job or e.parent = f.job)",
            )
            .await?,
            executions: count("select count(*) from chaos.executions").await?,
            calls: count("select count(*) from chaos.answers").await?,
            unknowns: count("select coalesce(sum(unknowns), 0)::bigint from chaos.answers").await?,
            stale: count("select count(*) from chaos.told where word = 'stale'").await?,
            by_state: counts("select state, count(*) from chaos.found group by 1").await?,
            faults: counts(
                "select kind, count(*) from chaos.faults
                 where kind not in ('stall', 'slow_database') group by 1",
            )
            .await?,
            missed: count(
                "select count(*) from chaos.lines where ledger = 'faults' and e = 'missed'",
            )
            .await?,
            stalls: count("select count(*) from chaos.faults where kind = 'stall'").await?,
            causes: counts(
                "select coalesce(cause, 'unexplained'), count(*) from chaos.causes group by 1",
            )
            .await?,
            recovery,
            restarts,
            judged_share: client.query_one(JUDGED_SHARE, &[]).await?.get(0),
        })
    }

    /// How many faults were struck.
    pub(crate) fn fault_count(&self) -> i64 {
        self.faults.values().sum()
    }

    /// Executions that another one followed, and why. A discarded job has no other.
    pub(crate) fn explained(&self) -> i64 {
        let counts = self
            .causes
            .iter()
            .filter(|(cause, _)| !["unexplained", "handler: discard"].contains(&cause.as_str()));
        counts.map(|(_, n)| n).sum()
    }

    /// The recovery that so large a share of the lost executions did not exceed.
    pub(crate) fn recovery_at(&self, share: f64) -> Option<f64> {
        let last = self.recovery.len().checked_sub(1)?;
        self.recovery.get((last as f64 * share).ceil() as usize).copied()
    }
}
