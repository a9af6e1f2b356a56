-- Rescue: executions whose worker's lease has ended or
-- whose worker is gone, and executions past their time-out.
-- Lock order: worker (skip locked) -> executions (skip locked) -> job rows (skip locked).

create or replace function rescue(max_rows int, recent boolean default false)
returns table (done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set lock_timeout = '50ms'
as $$
declare
    lost record;
    deadline timestamptz := clock_timestamp() + interval '1 second';
begin
    perform need_read_committed('rescue');
    if not rescue.recent then
        -- Seen at a time that has yet to come: the clock was set back, and such a lease, which may
        -- have hours to go, begins anew.
        update workers w
        set heartbeat_at = clock_timestamp(),
            lease_ends_at = clock_timestamp() + (w.lease_ends_at - w.heartbeat_at)
        where w.id = any(array(
            select x.id
            from workers x
            where x.heartbeat_at > clock_timestamp() + interval '1 second'
            for update skip locked
        ));
    end if;
    done := close_overdue(
        rescue.max_rows,
        case
            when rescue.recent then clock_timestamp() - default_of('recent')
            else '-infinity'
        end
    );
    for lost in
        select g.worker, w.id
        from (
            select x.worker
            from workers_with_grants() x(worker)
            where not rescue.recent
            union all
            select y.id
            from workers y
            where rescue.recent and y.status = 'live' and y.lease_ends_at < clock_timestamp()
        ) g
        left join workers w on w.id = g.worker
        where w.id is null or w.lease_ends_at < clock_timestamp()
        order by g.worker
    loop
        exit when done >= rescue.max_rows or clock_timestamp() > deadline;
        perform from workers w
        where w.id = lost.worker and w.lease_ends_at < clock_timestamp()
        for update skip locked;
        continue when not found and lost.id is not null;
        done := done + lose(lost.worker, null, null, (rescue.max_rows - done)::int, false);
        update workers w set status = 'lost'
        where w.id = lost.worker
            and not exists (select from grants g where g.worker = lost.worker);
    end loop;
    more := done >= rescue.max_rows or done > 0 and clock_timestamp() > deadline;
    return next;
end $$;
comment on function rescue is
    'The duty that takes back what lost workers hold and closes executions past their time-out.';

create or replace function workers_with_grants() returns setof uuid
language sql stable
set search_path from current
begin atomic
    with recursive skip (worker) as (
        (select g.worker from grants g order by g.worker limit 1)
        union all
        select (
            select g.worker from grants g where g.worker > s.worker order by g.worker limit 1
        )
        from skip s
        where s.worker is not null
    )
    select s.worker from skip s where s.worker is not null;
end;
comment on function workers_with_grants is
    'Who holds grants: a probe a worker, however many grants each has.';

create or replace function close_overdue(max_rows int, since timestamptz) returns bigint
language plpgsql volatile
set search_path from current
as $$
declare
    -- In a variable: an index knows no bound that is a volatile function.
    past timestamptz := clock_timestamp() - default_of('timeout_grace');
    overdue record;
    ids uuid[];
    attempts int[];
    done bigint := 0;
begin
    select array_agg(x.worker) as workers, array_agg(x.id) as ids into overdue
    from (
        select g.worker, g.id
        from grants g
        where g.expires_at >= close_overdue.since and g.expires_at < past
        order by g.expires_at limit close_overdue.max_rows for update skip locked
    ) x;
    if overdue.ids is null then
        return 0;
    end if;
    select array_agg(x.job_id order by x.job_id), array_agg(x.attempt order by x.job_id)
    into ids, attempts
    from (
        select e.job_id, e.attempt
        from unnest(overdue.workers, overdue.ids) o(worker, id)
        join grants g on g.worker = o.worker and g.id = o.id
        cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
        join executions e on e.job_id = u.job_id
            and e.attempt = u.attempt
            and e.finished_at is null
        join jobs j on j.id = e.job_id
        where e.started_at + j.timeout < clock_timestamp() - default_of('timeout_grace')
        limit close_overdue.max_rows
        for update of e skip locked for no key update of j skip locked
    ) x;
    if ids is not null then
        done := take_back(
            ids, attempts, 'timed_out', 1, 'the execution ran longer than its timeout', false
        );
    end if;
    -- What others hold goes behind the rest of what is overdue.
    update grants g
    set expires_at = case
        when done < close_overdue.max_rows
            then case when x.expires_at is not null then greatest(
                x.expires_at, clock_timestamp() - default_of('timeout_grace')
            ) end
        else x.expires_at
    end
    from (
        select o.worker, o.id, min(e.started_at + j.timeout) as expires_at
        from unnest(overdue.workers, overdue.ids) o(worker, id)
        join grants h on h.worker = o.worker and h.id = o.id
        left join unnest(h.job_ids, h.attempts) u(job_id, attempt) on true
        left join lateral (
            select y.job_id, y.started_at
            from executions y
            where y.job_id = u.job_id and y.attempt = u.attempt and y.finished_at is null
            limit 1
        ) e on true
        left join lateral (select y.timeout from jobs y where y.id = e.job_id limit 1) j on true
        group by o.worker, o.id
    ) x
    where g.worker = x.worker and g.id = x.id;
    return done;
end $$;
comment on function close_overdue is
    'Closes executions past their job''s timeout and a grace: '
    'a blocking handler cannot be stopped from outside.';
