-- Heartbeat: one statement a worker extends everything that it holds, and says what it must stop.
-- Lock order: worker -> executions -> job rows.

create or replace function held(
    workers uuid[], job_ids uuid[], attempts int[], tokens uuid[]
) returns table (job_id uuid, verdict text)
language plpgsql stable
set search_path from current
as $$
begin
    return query
        select
            g.job_id,
            case
                when e.job_id is null then 'lost'
                when j.cancel_requested_at is not null then 'cancel'
                else 'held'
            end
        from unnest(
            held.workers, held.job_ids, held.attempts, held.tokens
        ) with ordinality g(worker, job_id, attempt, token, n)
        -- Each by a probe: on empty tables the planner would rather read them whole.
        left join lateral (
            select x.job_id
            from executions x
            where x.job_id = g.job_id
                and x.attempt = g.attempt
                and x.token = g.token
                and x.worker = g.worker
                and x.finished_at is null
            limit 1
        ) e on true
        left join lateral (
            select y.cancel_requested_at from jobs y where y.id = e.job_id limit 1
        ) j on true
        order by g.n;
end $$;
comment on function held is
    'What a worker is told of each execution that it lists: held, cancel or lost.';

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
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    n int := check_finish(
        'heartbeat', for_each(heartbeat.worker, heartbeat.job_ids), heartbeat.job_ids,
        heartbeat.attempts, heartbeat.tokens
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
        select h.job_id, h.verdict
        from held(
            for_each(heartbeat.worker, heartbeat.job_ids), heartbeat.job_ids, heartbeat.attempts,
            heartbeat.tokens
        ) h;
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
    open uuid[];
    open_attempts int[];
begin
    select u.ids, u.attempts_of_ids into open, open_attempts
    from unlisted(
        reconcile.worker, reconcile.seen_call, reconcile.job_ids, reconcile.attempts
    ) u;
    if open is not null then
        perform take_back(open, open_attempts, 'released', 0, null, true);
        perform tidy_grants(reconcile.worker);
    end if;
end $$;
comment on function reconcile is
    'Releases what a worker was granted by calls whose replies it never saw.';
