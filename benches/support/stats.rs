//! What Postgres counts: WAL, commits, dead tuples. Read before and after, and subtracted.

use super::database::Bench;
use super::process::until;

/// The counters at one moment, or their difference between two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stats {
    /// Bytes of WAL of the whole cluster.
    pub(crate) wal_bytes: i64,
    /// Transactions of this database that ended well, those that only read included.
    pub(crate) commits: i64,
    /// Row versions that an update or a delete left dead.
    pub(crate) dead: i64,
    /// Updates, and those of them that left the indexes alone.
    pub(crate) updates: i64,
    pub(crate) hot_updates: i64,
}

impl Stats {
    /// Reads the counters once every other session has ended: only then have all told theirs.
    pub(crate) async fn read(bench: &Bench) -> Stats {
        let others = "select count(*) from pg_stat_activity where datname = current_database()
            and backend_type = 'client backend' and pid <> pg_backend_pid()";
        until("the other sessions end", async || bench.count(others).await == 0).await;
        let sql = "select (select wal_bytes::bigint from pg_stat_wal),
            (select xact_commit from pg_stat_database where datname = current_database()),
            sum(n_tup_upd + n_tup_del)::bigint, sum(n_tup_upd)::bigint,
            sum(n_tup_hot_upd)::bigint from pg_stat_user_tables";
        let row = bench.client.query_one(sql, &[]).await.expect("statistics");
        Stats {
            wal_bytes: row.get(0),
            commits: row.get(1),
            dead: row.get(2),
            updates: row.get(3),
            hot_updates: row.get(4),
        }
    }

    /// What was added since.
    pub(crate) fn since(self, before: Stats) -> Stats {
        Stats {
            wal_bytes: self.wal_bytes - before.wal_bytes,
            commits: self.commits - before.commits,
            dead: self.dead - before.dead,
            updates: self.updates - before.updates,
            hot_updates: self.hot_updates - before.hot_updates,
        }
    }
}
