-- Acquires of several workers in one statement, as the
-- service sends those that arrive while another is under way.
-- Lock order: worker rows by id -> ready rows (skip locked) -> job rows by id.

create or replace function check_acquire_batch(
    workers uuid[],
    max_jobs int[],
    queues text[],
    lease interval,
    kinds text[],
    names text[],
    capacities int[],
    call_numbers bigint[]
) returns void
language plpgsql stable
set search_path from current
as $$
declare
    n int := cardinality(check_acquire_batch.workers);
    suspect record;
begin
    if n is distinct from cardinality(check_acquire_batch.max_jobs)
        or n <> coalesce(cardinality(check_acquire_batch.names), n)
        or n <> coalesce(cardinality(check_acquire_batch.capacities), n)
        or n <> coalesce(cardinality(check_acquire_batch.call_numbers), n)
        or coalesce(n, 0) = 0
    then
        perform refuse(
            'RL422', 'the arrays differ in length, or are empty', format('%s workers', n),
            'Pass one worker and one max_jobs for each call.'
        );
    end if;
    perform check_count('acquire_batch', 'calls', n, limit_of('acquire_calls'));
    -- The first call, and whichever is not valid: what they share is checked with the first.
    for suspect in
        select a.*
        from unnest(
            check_acquire_batch.workers, check_acquire_batch.max_jobs, check_acquire_batch.names,
            check_acquire_batch.capacities
        ) with ordinality a(worker, most, name, capacity, n)
        where a.n = 1
            or a.worker is null
            or a.most is null
            or a.most not between 1 and limit_of('acquire_jobs')
            or length(a.name) not between 1 and limit_of('name_length')
            or a.capacity < 1
        order by a.n limit 2
    loop
        perform check_acquire(
            suspect.worker, check_acquire_batch.queues, suspect.most, check_acquire_batch.lease,
            suspect.name, suspect.capacity, null
        );
    end loop;
    perform check_count(
        'acquire_batch', 'jobs', (select sum(m.n) from unnest(check_acquire_batch.max_jobs) m(n)),
        limit_of('acquire_jobs')
    );
    if check_acquire_batch.kinds is not null then
        perform check_kinds(check_acquire_batch.kinds);
    end if;
end $$;
comment on function check_acquire_batch is
    'Raises RL422 or RL413 for arguments of acquire_batch that are not valid.';

create or replace function acquire_batch(
    workers uuid[],
    max_jobs int[],
    queues text[],
    lease interval default '30 seconds',
    kinds text[] default null,
    names text[] default null,
    capacities int[] default null,
    call_numbers bigint[] default null
) returns table (
    place int,
    job_id uuid,
    attempt int,
    token uuid,
    queue text,
    kind text,
    priority int,
    args jsonb,
    timeout interval,
    run_at timestamptz,
    created_at timestamptz
)
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
    took record;
    places int[];
    tokens uuid[] := array(select gen_random_uuid() from unnest(acquire_batch.workers));
    suspects uuid[];
    left_out uuid[];
    began constant timestamptz := clock_timestamp();
begin
    perform check_acquire_batch(
        acquire_batch.workers, acquire_batch.max_jobs, acquire_batch.queues, acquire_batch.lease,
        acquire_batch.kinds, acquire_batch.names, acquire_batch.capacities,
        acquire_batch.call_numbers
    );
    perform renew_late(
        acquire_batch.workers, acquire_batch.lease, acquire_batch.queues, acquire_batch.kinds,
        acquire_batch.names, acquire_batch.capacities
    );
    for round in 1 .. limit_of('acquire_jobs') loop
        took := pick(
            acquire_batch.queues,
            acquire_batch.kinds,
            (select sum(m.n)::int from unnest(acquire_batch.max_jobs) m(n))
        );
        if took.ids is null then
            return;
        end if;
        -- Dealt round: each call has its first before any has its second.
        places := array(
            select d.place
            from (
                select c.place, t.turn
                from unnest(acquire_batch.max_jobs) with ordinality c(most, place)
                cross join lateral generate_series(1, c.most) t(turn)
            ) d
            order by d.turn, d.place limit cardinality(took.ids)
        );
        suspects := grant_jobs(
            took.ids, took.ready_ats, places, acquire_batch.workers, tokens,
            acquire_batch.call_numbers
        );
        exit when suspects is null;
        left_out := quarantine(suspects);
        exit when cardinality(left_out) < cardinality(took.ids);
        -- What was quarantined stays so, and the next call goes on: a statement has its time-out.
        if clock_timestamp() > began + interval '1 second' then
            return;
        end if;
    end loop;
    return query
        select
            g.place, j.id, j.attempt, tokens[g.place], j.queue, j.kind, j.priority::int, j.args,
            j.timeout, j.run_at, j.created_at
        from unnest(took.ids, places) with ordinality g(id, place, n)
        join jobs j on j.id = g.id
        where left_out is null or g.id <> all(left_out)
        order by g.n;
end $$;
comment on function acquire_batch is
    'The acquires of several workers that ask for the same queues and kinds, as one. A job goes to '
    'the call at its place, from 1. At most 100 calls, and 1,000 jobs in all.';

create or replace function renew_late(
    workers uuid[],
    lease interval,
    queues text[],
    kinds text[],
    names text[],
    capacities int[]
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    late int[];
    place int;
begin
    late := array(
        select c.place
        from (
            select distinct on (w.worker) w.worker, w.place
            from unnest(renew_late.workers) with ordinality w(worker, place)
        ) c
        where not exists (
            select from workers w
            where w.id = c.worker and is_current(w, renew_late.lease, renew_late.queues)
        )
        order by c.worker
    );
    if cardinality(late) > 1 then
        -- All of them first: what a renewal takes back stands behind them in the order of locks.
        perform from workers w
        where w.id = any(array(select renew_late.workers[l.place] from unnest(late) l(place)))
        order by w.id for update;
    end if;
    foreach place in array late loop
        perform renew(
            renew_late.workers[place], renew_late.lease, null, null, renew_late.names[place],
            renew_late.capacities[place], renew_late.queues, renew_late.kinds
        );
    end loop;
end $$;
comment on function renew_late is
    'Renews those workers that have less than two thirds of a lease left, or ask for new queues.';
