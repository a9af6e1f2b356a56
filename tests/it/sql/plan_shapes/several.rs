//! What the service sends: calls of several workers in one statement, and the floors.

use super::verbs::{Call, Walk};

/// One call in a hundred of `raise_floors` reads all floors.
const SELDOM: &str = "delete from lane_floors f using ( select";

const ENTRIES: &str = "(select array_agg(job_id order by place, job_id) from got),
    (select array_agg(attempt order by place, job_id) from got),
    (select array_agg(token order by place, job_id) from got)";

impl Walk<'_> {
    /// The batch in as many calls as may share a statement.
    pub(super) async fn several(&mut self) {
        let calls = self.n.min(100);
        let each = self.n / calls;
        self.enqueue("enqueue_batch", "several", "null, null, null, null, null, null").await;
        self.run(&format!(
            "create temporary table callers as
                select gen_random_uuid() as worker, place from generate_series(1, {calls}) place"
        ))
        .await;
        let workers = "(select array_agg(worker order by place) from callers)";
        let ones = format!("array_fill(1::bigint, array[{calls}])");
        let sql = format!(
            "drop table got; create temporary table got as
                select c.worker, a.*
                from acquire_batch({workers}, array_fill({each}, array[{calls}]), '{{several}}',
                    '1 hour', call_numbers => {ones}) a
                join callers c using (place)"
        );
        let plans = self.session.plans_of_command(&sql).await;
        self.calls.push(Call { verb: "acquire_batch", plans });
        let from = format!(
            "heartbeat_batch({workers}, array_fill(interval '1 hour', array[{calls}]), {ones},
                array_fill({each}, array[{calls}]), {ENTRIES}) b, unnest(b.verdicts) v(verdict)"
        );
        self.call("heartbeat_batch", &from, "verdict = 'held'").await;
        let owners = "(select array_agg(worker order by place, job_id) from got)";
        let from = format!("complete_batch({owners}, {ENTRIES})");
        self.call("complete_batch", &from, "verdict = 'completed'").await;
        self.run("drop table callers").await;
    }

    /// Those of so many queues, in a transaction in which no other worker lives.
    pub(super) async fn floors(&mut self) {
        let n = self.n;
        self.run(&format!(
            "begin; update workers set lease_ends_at = '-infinity';
             insert into workers (id, started_at, heartbeat_at, lease_ends_at, queues)
                select gen_random_uuid(), now(), now(), now() + interval '1 hour',
                    array_agg(case when q = 1 then 'default' else 'new ' || q end)
                from generate_series(1, {n}) q group by q / 100"
        ))
        .await;
        for verb in ["raise_floors", "raise_floors again", "try_floors"] {
            self.run("select nextval('ready_seq') from generate_series(1, 200)").await;
            let name = verb.split(' ').next().unwrap_or(verb);
            let sql = format!("select done from {name}(ready_mark(), '{{}}', server_life(), {n})");
            let mut plans = self.session.plans_of(&sql, i64::from(n)).await;
            plans.retain(|plan| !plan.statement.starts_with(SELDOM));
            self.calls.push(Call { verb, plans });
        }
        self.run("rollback").await;
    }
}
