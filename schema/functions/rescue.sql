-- Rescue: executions whose worker's lease has ended or
-- whose worker is gone, and executions past their time-out.
-- Lock order: worker (skip locked) -> executions (skip locked) -> job rows (skip locked).

create or replace function rescue(max_rows int, recent boolean default false)
returns table (done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
set lock_timeout = '50ms'
as $$
declare
    lost record;
    deadline timestamptz := clock_timestamp() + interval '1 second';
begin
    perform need_read_committed('rescue');
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
            select distinct x.worker
            from grants x
            where not rescue.recent
            union all
            select x.id
            from workers x
            where rescue.recent and x.status = 'live' and x.lease_ends_at < clock_timestamp()
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

create or replace function close_overdue(max_rows int, since timestamptz) returns bigint
language plpgsql volatile
set search_path from current
as $$
declare
    -- In a variable: an index knows no bound that is a volatile function.
    past timestamptz := clock_timestamp() - default_of('timeout_grace');
    overdue bigint[];
    ids uuid[];
    attempts int[];
    done bigint := 0;
begin
    overdue := array(
        select g.id
        from grants g
        where g.expires_at >= close_overdue.since and g.expires_at < past
        order by g.expires_at limit close_overdue.max_rows for update skip locked
    );
    if overdue = '{}' then
        return 0;
    end if;
    select array_agg(x.job_id order by x.job_id), array_agg(x.attempt order by x.job_id)
    into ids, attempts
    from (
        select e.job_id, e.attempt
        from grants g
        cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
        join executions e on e.job_id = u.job_id
            and e.attempt = u.attempt
            and e.finished_at is null
        join jobs j on j.id = e.job_id
        where g.id = any(overdue)
            and e.started_at + j.timeout < clock_timestamp() - default_of('timeout_grace')
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
        select o.id, min(e.started_at + j.timeout) as expires_at
        from grants o
        left join unnest(o.job_ids, o.attempts) u(job_id, attempt) on true
        left join executions e on e.job_id = u.job_id
            and e.attempt = u.attempt
            and e.finished_at is null
        left join jobs j on j.id = e.job_id
        where o.id = any(overdue)
        group by o.id
    ) x
    where g.id = x.id;
    return done;
end $$;
comment on function close_overdue is
    'Closes executions past their job''s timeout and a grace: '
    'a blocking handler cannot be stopped from outside.';
