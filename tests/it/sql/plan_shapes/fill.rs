//! Two hundred thousand jobs and more in every table that grows, straight into the tables.

use tokio_postgres::Client;

use crate::harness::sql::run;

/// Statistics as they are when autovacuum has not come by; and it does not.
pub(crate) async fn without_autovacuum(client: &Client) {
    let sql = "do $$
        declare name text;
        begin
            for name in select c.relname from pg_class c
                where c.relnamespace = 'rowlock'::regnamespace and c.relkind = 'r'
            loop
                execute format('alter table %I set (autovacuum_enabled = off)', name);
            end loop;
        end $$";
    run(client, sql).await;
}

/// Jobs of one state, born so long ago; the table `made` holds them until the commit.
const JOBS: &str = "
    create temporary table made on commit drop as
        select n, (left(id_at(clock_timestamp() - interval 'AGE' + n * interval '1 ms')::text, 13)
            || '-7' || substr(gen_random_uuid()::text, 16))::uuid as id
        from generate_series(1, COUNT) n;
    insert into jobs (id, state, priority, has_dependents, attempt, max_attempts, args_bytes, seq,
        run_at, created_at, finished_at, queue, kind, args, unique_key)
    select id, 'STATE', 5, 'STATE' = 'scheduled', ATTEMPT, 25, 2,
        case when 'STATE' = 'ready' then nextval('ready_seq') end,
        clock_timestamp() + interval '1 day', clock_timestamp() - interval 'AGE',
        case when 'STATE' = 'completed' then clock_timestamp() - interval 'AGE' end,
        'default', 'k', '{}', case when 'STATE' = 'scheduled' then id::text end
    from made order by n;";

fn jobs(state: &str, count: u32, age: &str, attempt: u32, rest: &str) -> String {
    let jobs = JOBS.replace("STATE", state).replace("COUNT", &count.to_string());
    let jobs = jobs.replace("AGE", age).replace("ATTEMPT", &attempt.to_string());
    format!("begin; {jobs} {rest}; drop table made; commit")
}

/// A history, a depth and a future. Two hundred thousand stand for a million: a scan of either is
/// a hundred times the work of the largest batch.
pub(crate) async fn fill(client: &Client) {
    let history = "insert into executions (job_id, attempt, token, worker, ready_at, started_at,
            finished_at, outcome)
        select id, 1, gen_random_uuid(), gen_random_uuid(), clock_timestamp(), clock_timestamp(),
            clock_timestamp(), 'completed' from made";
    run(client, &jobs("completed", 100_000, "3 days", 1, history)).await;
    let ready = "insert into ready (queue, priority, seq, job_id, ready_at, args_bytes, kind)
        select j.queue, j.priority, j.seq, j.id, clock_timestamp(), 2, 'k'
        from jobs j join made on j.id = made.id";
    run(client, &jobs("ready", 200_000, "2 hours", 0, ready)).await;
    let scheduled = "insert into scheduled (job_id, run_at, priority, queue)
            select j.id, j.run_at, 5, 'default' from jobs j join made on j.id = made.id;
        insert into unique_keys (key, job_id) select id::text, id from made";
    run(client, &jobs("scheduled", 100_000, "1 hour", 0, scheduled)).await;
    // Each waits for a scheduled one, half of them by a link.
    let blocked = "insert into blocked (job_id, remaining, priority, queue)
            select id, 1, 5, 'default' from made;
        create temporary table parents on commit drop as
            select j.id, row_number() over (order by j.id) as n from jobs j where j.state = 'scheduled';
        insert into dependencies (parent, child, policy)
            select p.id, m.id, 'cancel' from made m join parents p using (n) where n % 2 = 0;
        insert into links (parent, child, xid, policy)
            select p.id, m.id, '1', 'cancel' from made m join parents p using (n) where n % 2 = 1";
    run(client, &jobs("blocked", 50_000, "30 minutes", 0, blocked)).await;
    let running = "create temporary table who on commit drop as
            select gen_random_uuid() as id, w from generate_series(0, 19) w;
        insert into workers (id, started_at, heartbeat_at, lease_ends_at)
            select id, clock_timestamp(), clock_timestamp(), clock_timestamp() + interval '1 day' from who;
        insert into executions (job_id, attempt, token, worker, ready_at, started_at)
            select m.id, 1, gen_random_uuid(), who.id, clock_timestamp(), clock_timestamp()
            from made m join who on who.w = m.n % 20;
        insert into grants (worker, job_ids, attempts)
            select who.id, array_agg(m.id order by m.id), array_agg(1)
            from made m join who on who.w = m.n % 20 group by who.id, m.n / 200;
        insert into lane_floors (mark, queue, floors)
            select 1, 'old ' || n, array_fill(1::bigint, array[10]) from made";
    run(client, &jobs("running", 20_000, "10 minutes", 1, running)).await;
}
