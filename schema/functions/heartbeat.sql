-- Heartbeat: one statement a worker extends everything that it holds, and says what it must stop.
-- Lock order: worker -> executions -> job rows.

create or replace function heartbeat(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    lease interval default '30 seconds',
    seen_call bigint default null
) returns table (job_id uuid, verdict text)
language plpgsql volatile security definer
set search_path from current
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    n int := check_finish(
        'heartbeat', heartbeat.worker, heartbeat.job_ids, heartbeat.attempts, heartbeat.tokens
    );
begin
    perform check_lease(heartbeat.lease);
    perform renew(heartbeat.worker, heartbeat.lease, heartbeat.job_ids, heartbeat.attempts);
    if heartbeat.seen_call is not null then
        perform reconcile(
            heartbeat.worker, heartbeat.job_ids, heartbeat.attempts, heartbeat.seen_call
        );
    end if;
    return query
        select
            g.job_id,
            case
                when e.job_id is null then 'lost'
                when j.cancel_requested_at is not null then 'cancel'
                else 'held'
            end
        from unnest(
            heartbeat.job_ids, heartbeat.attempts, heartbeat.tokens
        ) with ordinality g(job_id, attempt, token, n)
        left join executions e on e.job_id = g.job_id
            and e.attempt = g.attempt
            and e.token = g.token
            and e.worker = heartbeat.worker
            and e.finished_at is null
        left join jobs j on j.id = e.job_id
        order by g.n;
end $$;
comment on function heartbeat is
    'Extends the lease of a worker and all that it holds. Verdicts: held, cancel (asked to stop), '
    'lost. With seen_call n (the highest number such that calls 1 to n were all answered or given '
    'up) it gives back what those calls granted and the worker does not list.';

create or replace function reconcile(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    seen_call bigint
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    unlisted uuid[];
    unlisted_attempts int[];
begin
    select
        array_agg(e.job_id order by e.job_id, e.attempt),
        array_agg(e.attempt order by e.job_id, e.attempt)
    into unlisted, unlisted_attempts
    from grants g
    cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
    join executions e on e.job_id = u.job_id and e.attempt = u.attempt
    where g.worker = reconcile.worker
        and g.call_number <= reconcile.seen_call
        and e.finished_at is null
        and not exists (
            select from unnest(reconcile.job_ids, reconcile.attempts) k(job_id, attempt)
            where k.job_id = e.job_id and k.attempt = e.attempt
        );
    if unlisted is not null then
        perform take_back(unlisted, unlisted_attempts, 'released', 0, null, true);
        perform tidy_grants(reconcile.worker);
    end if;
end $$;
comment on function reconcile is
    'Releases what a worker was granted by calls whose replies it never saw.';
