//! Every hot function once, with a batch of a given size, and the plans of what it ran.

use super::explain::{Explained, Plan};
use crate::harness::sql::run;

/// A verb and the plans of one call of it.
pub(crate) struct Call {
    pub(crate) verb: &'static str,
    pub(crate) plans: Vec<Plan>,
}

/// One walk through the verbs.
pub(crate) struct Walk<'a> {
    pub(super) session: &'a Explained,
    pub(super) n: u32,
    pub(super) calls: Vec<Call>,
}

const WORKER: &str = "(select worker from walk)";
const GOT: &str = "(select array_agg(job_id order by job_id) from got),
    (select array_agg(attempt order by job_id) from got),
    (select array_agg(token order by job_id) from got)";

impl<'a> Walk<'a> {
    /// All verbs, at this batch size.
    pub(crate) async fn through(session: &'a Explained, n: u32) -> Vec<Call> {
        let mut walk = Walk { session, n, calls: Vec::new() };
        run(&session.client, "create temporary table walk (worker uuid)").await;
        walk.one_job().await;
        walk.plain().await;
        walk.several().await;
        walk.keyed().await;
        walk.returning().await;
        walk.graphs().await;
        walk.links().await;
        walk.lost().await;
        walk.operators().await;
        walk.prune().await;
        walk.floors().await;
        run(&session.client, "drop table walk; drop table got; drop table given").await;
        walk.calls
    }

    /// `count(*)` of a verb's answers, all of which must be this word.
    pub(super) async fn call(&mut self, verb: &'static str, from: &str, condition: &str) {
        let sql = format!("select count(*) filter (where {condition}) from {from}");
        let plans = self.session.plans_of(&sql, i64::from(self.n)).await;
        self.calls.push(Call { verb, plans });
    }

    pub(super) async fn enqueue(&mut self, verb: &'static str, queue: &str, rest: &str) {
        let n = self.n;
        let from = format!(
            "enqueue_batch(array_fill('k'::text, array[{n}]), array_fill('{{}}'::jsonb, array[{n}]),
                array_fill('{queue}'::text, array[{n}]), {rest})"
        );
        self.call(verb, &from, "created").await;
    }

    /// For a fresh worker, into the table `got`.
    async fn acquire(&mut self, verb: &'static str, queue: &str, rest: &str) {
        let n = self.n;
        let sql = format!(
            "drop table if exists got; truncate walk; insert into walk select gen_random_uuid();
             create temporary table got as
                select * from acquire({WORKER}, '{{{queue}}}', {n}, '1 hour'{rest})"
        );
        let plans = self.session.plans_of_command(&sql).await;
        self.calls.push(Call { verb, plans });
        let got = format!("select count(*) from got where queue = '{queue}'");
        self.session.plans_of(&got, i64::from(n)).await;
    }

    async fn finish(&mut self, verb: &'static str, rest: &str, verdict: &str) {
        let name = verb.split(' ').next().unwrap_or(verb);
        let from = format!("{name}({WORKER}, {GOT}{rest})");
        self.call(verb, &from, &format!("verdict = '{verdict}'")).await;
    }

    async fn duty(&mut self, verb: &'static str) {
        let name = verb.split(' ').next().unwrap_or(verb);
        let sql = format!("select done from {name}({})", self.n);
        let plans = self.session.plans_of(&sql, i64::from(self.n)).await;
        self.calls.push(Call { verb, plans });
    }

    pub(super) async fn run(&self, sql: &str) {
        run(&self.session.client, sql).await;
    }

    async fn one_job(&mut self) {
        let n = self.n;
        let each = format!("generate_series(1, {n}) g, enqueue('k', queue => 'one') e");
        self.call("enqueue", &each, "e is not null").await;
        let many = format!(
            "enqueue_many((select jsonb_agg(jsonb_build_object('kind', 'k', 'queue', 'many'))
                from generate_series(1, {n})))"
        );
        self.call("enqueue_many", &many, "created").await;
    }

    async fn plain(&mut self) {
        self.enqueue("enqueue_batch", "default", "null, null, null, null, null, null").await;
        self.acquire("acquire", "default", "").await;
        self.finish("heartbeat", "", "held").await;
        self.finish("complete", "", "completed").await;
        self.finish("complete again", "", "repeated").await;
        self.enqueue("enqueue_batch", "default", "null, null, null, null, null, null").await;
        self.acquire("acquire kinds", "default", ", kinds => '{k}'").await;
        self.finish("release", "", "released").await;
    }

    async fn keyed(&mut self) {
        let n = self.n;
        self.run(&format!(
            "drop table if exists given; create temporary table given as
                select u.id, gen_random_uuid()::text as key from unnest(new_ids({n})) u(id)"
        ))
        .await;
        let given = "null, null, null, null, (select array_agg(key order by id) from given),
            (select array_agg(id order by id) from given)";
        self.enqueue("enqueue_batch keyed", "keyed", given).await;
        let again = format!(
            "enqueue_batch(array_fill('k'::text, array[{n}]), array_fill('{{}}'::jsonb, array[{n}]),
                array_fill('keyed'::text, array[{n}]), {given})"
        );
        self.call("enqueue_batch again", &again, "not created").await;
        self.acquire("acquire", "keyed", "").await;
        self.finish("complete keyed", "", "completed").await;
    }

    /// What comes back: failed, snoozed, scheduled, promoted.
    async fn returning(&mut self) {
        for (verb, rest, verdict) in [
            ("fail", "", "retrying"),
            ("snooze", ", array_fill(clock_timestamp() + interval '1 day', array[N])", "snoozed"),
            ("fail discard", ", discard => array_fill(true, array[N])", "discarded"),
        ] {
            self.enqueue("enqueue_batch", "returning", "null, null, null, null, null, null").await;
            self.acquire("acquire", "returning", "").await;
            self.finish(verb, &rest.replace('N', &self.n.to_string()), verdict).await;
        }
        let later = format!(
            "null, array_fill(clock_timestamp() + interval '1 hour', array[{}]), null, null, null, null",
            self.n
        );
        self.enqueue("enqueue_batch scheduled", "later", &later).await;
        self.run(
            "update scheduled s set run_at = run_at - interval '2 hours' where queue = 'later';
             update jobs j set run_at = s.run_at from scheduled s
             where s.job_id = j.id and s.queue = 'later';
             update scheduled s set run_at = run_at + interval '1 day' where queue = 'returning';
             update jobs j set run_at = s.run_at from scheduled s
             where s.job_id = j.id and s.queue = 'returning'",
        )
        .await;
        self.duty("promote").await;
    }

    /// A parent of n children, and a child of n parents.
    async fn graphs(&mut self) {
        let n = self.n;
        for (verb, edges, queue) in [
            (
                "complete a parent",
                "array(select generate_series(2, M)), array_fill(1, array[N])",
                "fan",
            ),
            (
                "fail a parent",
                "array(select generate_series(2, M)), array_fill(1, array[N])",
                "fan",
            ),
            (
                "fail a parent of any",
                "array(select generate_series(2, M)), array_fill(1, array[N])",
                "fan",
            ),
            (
                "complete parents",
                "array_fill(M, array[N]), array(select generate_series(1, N))",
                "in",
            ),
        ] {
            let (m, any) = (n + 1, verb.ends_with("any"));
            let edges = edges.replace('N', &n.to_string()).replace('M', &m.to_string());
            let sql = format!(
                "select count(*) - 1 from enqueue_batch(
                    array_fill('k'::text, array[{m}]), array_fill('{{}}'::jsonb, array[{m}]),
                    array_fill('{queue}'::text, array[{m}]), null, null, null, null, null, null,
                    {edges}, array_fill(null::uuid, array[{n}]), array_fill('cancel'::text, array[{n}]),
                    wait_for_any => array_fill({any}, array[{m}]))"
            );
            let plans = self.session.plans_of(&sql, i64::from(n)).await;
            self.calls.push(Call { verb: "enqueue_batch graph", plans });
            let take = format!(
                "drop table if exists got; truncate walk; insert into walk select gen_random_uuid();
                 create temporary table got as select * from acquire({WORKER}, '{{{queue}}}', {n}, '1 hour')"
            );
            self.run(&take).await;
            let (name, rest) = match verb {
                "fail a parent" | "fail a parent of any" => ("fail", ", discard => '{true}'"),
                _ => ("complete", ""),
            };
            let sql = format!("{name}({WORKER}, {GOT}{rest})");
            let sql = format!("select {n} / greatest(count(*), {n} / count(*)) from {sql}");
            let plans = self.session.plans_of(&sql, 1).await;
            self.calls.push(Call { verb, plans });
            self.after(verb).await;
            // The children that became ready go before the next graph is acquired.
            let rest =
                format!("select cancel(array(select job_id from ready where queue = '{queue}'))");
            self.run(&rest).await;
        }
    }

    /// What may follow when a parent has ended.
    async fn after(&mut self, verb: &str) {
        let (verb, from, expected) = match verb {
            "complete parents" => (
                "inputs_of",
                "inputs_of(array(select child from dependencies
                    where parent = (select job_id from got limit 1)))",
                self.n,
            ),
            "fail a parent of any" => {
                ("retry and all below", "retry(array(select job_id from got))", 1)
            }
            _ => return,
        };
        let sql = format!("select count(*) from {from}");
        let plans = self.session.plans_of(&sql, i64::from(expected)).await;
        self.calls.push(Call { verb, plans });
    }

    /// Parents that exist already: attached inside COMMIT, or by the duty.
    async fn links(&mut self) {
        let n = self.n;
        for (verb, parents) in [
            (
                "link a parent",
                format!("(select array_fill(min(job_id::text)::uuid, array[{n}]) from parents)"),
            ),
            ("link parents", "(select array_agg(job_id order by job_id) from parents)".to_owned()),
        ] {
            let sql = format!(
                "create temporary table parents as select * from enqueue_batch(
                    array_fill('k'::text, array[{n}]), array_fill('{{}}'::jsonb, array[{n}]),
                    array_fill('parents'::text, array[{n}]), null, null, null, null, null, null)"
            );
            self.run(&sql).await;
            let edges = format!(
                "null, null, null, null, null, null, array(select generate_series(1, {n})), null,
                 {parents}, array_fill('cancel'::text, array[{n}])"
            );
            self.run("begin").await;
            self.enqueue("enqueue_batch with parents", "children", &edges).await;
            let plans = self.session.plans_of_command("commit").await;
            self.calls.push(Call { verb, plans });
            self.run("begin; set local rowlock.notify = off").await;
            self.enqueue("enqueue_batch with parents", "children", &edges).await;
            self.run(
                "commit; update duties set position =
                (select l.child from links l order by l.child desc offset N limit 1)
                where duty = 'link'"
                    .replace('N', &n.to_string())
                    .as_str(),
            )
            .await;
            self.duty("link").await;
            self.run("drop table parents").await;
        }
    }

    /// What lost workers held, and what ran too long.
    async fn lost(&mut self) {
        for (verb, end) in [
            (
                "rescue lost",
                "update workers w set lease_ends_at = clock_timestamp() - interval '1 second'
                from walk where w.id = walk.worker",
            ),
            (
                "rescue late",
                "update executions e set started_at = started_at - interval '1 hour'
                from got where e.job_id = got.job_id and e.attempt = got.attempt;
                update grants g set expires_at = expires_at - interval '1 hour'
                from walk where g.worker = walk.worker",
            ),
        ] {
            let timeout = format!(
                "null, null, null, array_fill(interval '1 min', array[{}]), null, null",
                self.n
            );
            self.enqueue("enqueue_batch", "lost", &timeout).await;
            self.acquire("acquire", "lost", "").await;
            self.run(end).await;
            self.duty(verb).await;
            self.run("select cancel(array(select job_id from got))").await;
        }
    }

    async fn operators(&mut self) {
        self.enqueue("enqueue_batch", "operated", "null, null, null, null, null, null").await;
        self.acquire("acquire", "operated", "").await;
        let discard = format!(", discard => array_fill(true, array[{}])", self.n);
        self.finish("fail discard", &discard, "discarded").await;
        let jobs = "(select array_agg(job_id order by job_id) from got)";
        self.call("retry", &format!("retry({jobs})"), "verdict = 'retried'").await;
        let moved = format!("reprioritize({jobs}, 7)");
        self.call("reprioritize", &moved, "verdict = 'reprioritized'").await;
        self.call("cancel", &format!("cancel({jobs})"), "verdict = 'cancelled'").await;
    }

    async fn prune(&mut self) {
        let ids = format!(
            "null, null, null, null, null, array(select overlay(u.id::text placing
                left(id_at(clock_timestamp() - interval '20 days')::text, 13) from 1 for 13)::uuid
                from unnest(new_ids({})) u(id))",
            self.n
        );
        self.enqueue("enqueue_batch named", "old", &ids).await;
        self.acquire("acquire", "old", "").await;
        self.finish("complete", "", "completed").await;
        self.run(
            "update jobs j set finished_at = finished_at - interval '20 days'
             from got where got.job_id = j.id; update duties set position = null, front = null, rests_until = '-infinity'",
        )
        .await;
        self.duty("prune").await;
    }
}
