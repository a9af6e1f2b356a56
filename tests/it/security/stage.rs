//! Something of everything to act on, and a call of each function that somebody could make.

use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::sql::{acquire_with, discard, enqueue, run, value};

/// A call of one function, with what a [`Stage`] has in braces.
pub(super) struct Call {
    /// The function's name; a trigger's function is called by what fires it.
    pub(super) function: &'static str,
    pub(super) sql: &'static str,
    /// Whether it changes something on a stage; what floors do depends on what came before.
    pub(super) changes: Option<bool>,
}

const fn changes(function: &'static str, sql: &'static str) -> Call {
    Call { function, sql, changes: Some(true) }
}

const fn tells(function: &'static str, sql: &'static str) -> Call {
    Call { function, sql, changes: Some(false) }
}

const fn raises(function: &'static str, sql: &'static str) -> Call {
    Call { function, sql, changes: None }
}

/// One for every function with the owner's rights; literals without casts, whose names a caller
/// could give another meaning.
pub(super) const CALLS: &[Call] = &[
    changes(
        "enqueue",
        "select rowlock.enqueue('k', '{\"a\": [1]}', 'new', 3, null, null, 'hold', 2, '1 h', 'key {n}')",
    ),
    changes(
        "enqueue_many",
        "select * from rowlock.enqueue_many('{\"workflow\": \"w\", \"jobs\": [{\"kind\": \"k\", \"ref\": \"r\", \"priority\": 1}, {\"kind\": \"k\", \"depends_on\": [\"r\"]}]}')",
    ),
    changes(
        "enqueue_batch",
        "select * from rowlock.enqueue_batch('{k,l}', '{\"[1]\",\"{}\"}', '{q,q}', '{1,2}', '{today,today}', '{3,3}', '{1 h,2 h}', '{x {n},y {n}}', null)",
    ),
    changes("link_at_commit", "select rowlock.enqueue('c', depends_on => '{{ready}}')"),
    changes(
        "acquire",
        "select kind, attempt, args from rowlock.acquire('{worker}', '{a{n}}', 5, '1 h', '{k}', 'name', 3, '{\"m\": 1}', 9)",
    ),
    changes(
        "acquire_batch",
        "select kind, attempt, place from rowlock.acquire_batch('{{worker}}', '{5}', '{a{n}}', '1 h')",
    ),
    changes(
        "complete",
        "select verdict from rowlock.complete('{worker}', '{{running}}', '{1}', '{{token}}', '{\"7\"}')",
    ),
    changes(
        "complete_batch",
        "select verdict from rowlock.complete_batch('{{worker}}', '{{running}}', '{1}', '{{token}}', '{\"7\"}')",
    ),
    changes(
        "complete_or_raise",
        "select rowlock.complete_or_raise('{worker}', '{running}', 1, '{token}', '7')",
    ),
    changes(
        "fail",
        "select verdict from rowlock.fail('{worker}', '{{running}}', '{1}', '{{token}}', '{oh \u{7} no}')",
    ),
    changes(
        "snooze",
        "select verdict from rowlock.snooze('{worker}', '{{running}}', '{1}', '{{token}}', '{tomorrow}')",
    ),
    changes(
        "release",
        "select verdict from rowlock.release('{worker}', '{{running}}', '{1}', '{{token}}')",
    ),
    changes(
        "heartbeat",
        "select verdict from rowlock.heartbeat('{worker}', '{{running}}', '{1}', '{{token}}', '1 h')",
    ),
    changes(
        "heartbeat_batch",
        "select * from rowlock.heartbeat_batch('{{worker}}', '{1 h}', '{1}', '{1}', '{{running}}', '{1}', '{{token}}')",
    ),
    tells("watch", "select rowlock.watch('{a,b}')"),
    tells("settled", "select rowlock.settled('4:4:')"),
    tells("unwatch", "select rowlock.unwatch('{a,b}')"),
    tells("paused", "select rowlock.paused('{a,paused{n}}')"),
    tells("inputs", "select ref, state, result from rowlock.inputs('{blocked}')"),
    tells("inputs_of", "select state, result from rowlock.inputs_of('{{blocked},{running}}')"),
    changes("cancel", "select verdict from rowlock.cancel('{{ready},{running},{discarded}}')"),
    changes("retry", "select verdict from rowlock.retry('{{ready},{discarded}}')"),
    changes("reprioritize", "select verdict from rowlock.reprioritize('{{ready},{discarded}}', 0)"),
    tells("explain", "select state, summary from rowlock.explain('{blocked}')"),
    changes("pause_queue", "select rowlock.pause_queue('a{n}')"),
    changes("resume_queue", "select rowlock.resume_queue('paused{n}')"),
    changes("set_retention", "select rowlock.set_retention('a{n}', '2 days')"),
    changes("cancel_workflow", "select verdict from rowlock.cancel_workflow('{workflow}')"),
    changes("retry_workflow", "select verdict from rowlock.retry_workflow('{workflow}')"),
    tells("workflow_status", "select state, jobs, done from rowlock.workflow_status('{workflow}')"),
    tells("workflow_jobs", "select kind, state, is_held from rowlock.workflow_jobs('{workflow}')"),
    tells("readable", "select rowlock.readable('{\"a\": [1]}')"),
    changes("touch_token", "select rowlock.touch_token('0000000{n}')"),
    tells("verify", "select * from rowlock.verify()"),
    tells("drift", "select * from rowlock.drift()"),
    changes("maintain", "select duty, done, more from rowlock.maintain(100)"),
    changes("run_duty", "select * from rowlock.run_duty('rescue', 100, false)"),
    changes("try_duty", "select * from rowlock.try_duty('promote', 100)"),
    changes("link", "select * from rowlock.link(100)"),
    changes("promote", "select * from rowlock.promote(100)"),
    changes("rescue", "select * from rowlock.rescue(100)"),
    changes("prune", "select * from rowlock.prune(100)"),
    raises("floors", "select more from rowlock.floors(100)"),
    tells("note_floors", "select holders from rowlock.note_floors()"),
    raises("raise_floors", "select standing from rowlock.raise_floors(1, '{}', 'another', 100)"),
    raises("try_floors", "select ran from rowlock.try_floors(null, null, null, 100)"),
];

/// Jobs in all states, in queues of their own; no lease ends while a test runs.
pub(super) struct Stage(Vec<(&'static str, String)>);

impl Stage {
    /// As the owner of everything.
    pub(super) async fn set(client: &Client) -> Stage {
        // A number, which an answer may show and a comparison leaves out.
        let n = &format!("{:09}", Uuid::new_v4().as_u128() % 1_000_000_000);
        let worker = Uuid::new_v4();
        let take = |queue: String| async move {
            let call = format!("'{{{queue}}}', 10, '1 h'");
            acquire_with(client, worker, &call).await
        };
        let ready = enqueue(client, &format!("'k', queue => 'a{n}'")).await;
        enqueue(client, &format!("'k', queue => 'b{n}'")).await;
        let running = take(format!("b{n}")).await.remove(0);
        let discarded = enqueue(client, &format!("'k', queue => 'd{n}'")).await;
        let workflow = format!(
            "select job_id from enqueue_many('{{\"workflow\": \"f\", \"jobs\":
                [{{\"kind\": \"k\", \"queue\": \"d{n}\"}}, {{\"kind\": \"k\", \"queue\": \"w{n}\"}}]}}') limit 1"
        );
        let first: Uuid = value(client, &workflow).await;
        let workflow: Uuid =
            value(client, &format!("select workflow from jobs where id = '{first}'")).await;
        discard(client, &take(format!("d{n}")).await).await;
        let blocked = enqueue(client, &format!("'k', depends_on => '{{{ready}}}'")).await;
        for setting in [
            // One that is due, one whose worker is lost, one that was not linked, an old one.
            format!("select enqueue('k', queue => 's{n}', run_at => clock_timestamp() + '1 h')"),
            "with due as (update scheduled set run_at = clock_timestamp() - interval '1 min' returning *)
             update jobs j set run_at = due.run_at from due where j.id = due.job_id"
                .to_owned(),
            format!("select enqueue('k', queue => 'l{n}')"),
            format!("select acquire(gen_random_uuid(), '{{l{n}}}', 1)"),
            format!(
                "update workers set lease_ends_at = clock_timestamp() - interval '1 min' where queues = '{{l{n}}}'"
            ),
            "set rowlock.notify = off".to_owned(),
            format!("select enqueue('k', queue => 'u{n}', depends_on => '{{{ready}}}')"),
            "reset rowlock.notify".to_owned(),
            format!(
                "select enqueue('k', queue => 'o{n}', run_at => clock_timestamp() + '1 h', id => (id_at(clock_timestamp() - interval '99 days')::text::uuid))"
            ),
            format!("select cancel(array(select id from jobs where queue = 'o{n}'))"),
            format!(
                "update jobs set finished_at = clock_timestamp() - interval '90 days' where queue = 'o{n}'"
            ),
            format!("select pause_queue('paused{n}')"),
            format!("select create_token('0000000{n}', sha256('{n}'), 'n', '{{work}}')"),
        ] {
            run(client, &setting).await;
        }
        let named = [
            ("{n}", n.to_owned()),
            ("{worker}", worker.to_string()),
            ("{ready}", ready.to_string()),
            ("{running}", running.job_id.to_string()),
            ("{token}", running.token.to_string()),
            ("{discarded}", discarded.to_string()),
            ("{blocked}", blocked.to_string()),
            ("{workflow}", workflow.to_string()),
        ];
        Stage(named.into())
    }

    /// The call with what is here.
    pub(super) fn call(&self, sql: &str) -> String {
        self.0.iter().fold(sql.to_owned(), |sql, (name, value)| sql.replace(name, value))
    }
}

/// Everything that is stored, as one digest.
pub(super) async fn digest(client: &Client) -> String {
    let tables = "select string_agg(format('select %L, md5(coalesce(string_agg(t::text, ''|''
            order by t::text), '''')) from rowlock.%I t', relname, relname), ' union all ')
        from pg_class where relnamespace = 'rowlock'::regnamespace and relkind = 'r'";
    let tables: String = value(client, tables).await;
    value(
        client,
        &format!("select jsonb_object_agg(d.name, d.md5)::text from ({tables}) d(name, md5)"),
    )
    .await
}

/// How much of each sort is stored.
pub(super) const COUNTS: &str = "select jsonb_object_agg(c.what, c.n)::text from (
    select 'jobs ' || state, count(*) from rowlock.jobs group by state
    union all select 'executions ' || coalesce(outcome, 'open'), count(*) from rowlock.executions group by outcome
    union all select 'ready', count(*) from rowlock.ready
    union all select 'scheduled', count(*) from rowlock.scheduled
    union all select 'blocked', count(*) from rowlock.blocked
    union all select 'links', count(*) from rowlock.links
    union all select 'tickets', count(*) from rowlock.tickets
    union all select 'edges', count(*) from rowlock.dependencies
    union all select 'keys', count(*) from rowlock.unique_keys
    union all select 'workers', count(*) from rowlock.workers
    union all select 'grants', count(*) from rowlock.grants
    union all select 'tokens in use', count(*) from rowlock.tokens where last_used_at is not null
    union all select 'paused', count(*) from rowlock.queues where paused_at is not null) c(what, n)";
