-- A worker's own row, and what happens to what it held when its lease has ended.
-- Lock order: worker -> executions by (job, attempt) -> job rows -> the cascade.

create or replace function renew(
    worker uuid,
    lease interval,
    kept_ids uuid[],
    kept_attempts int[],
    name text default null,
    capacity int default null,
    queues text[] default null,
    kinds text[] default null,
    metadata jsonb default null
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz;
    ends timestamptz;
begin
    select w.lease_ends_at into ends
    from workers w
    where w.id = renew.worker
    for update;
    clock := clock_timestamp();
    -- Not to revive what rescue has not seen yet: what it held under the old lease is lost first.
    if ends is null or ends < clock then
        perform lose(renew.worker, kept_ids, kept_attempts, null, true);
    end if;
    insert into workers as w (
        id, name, capacity, started_at, heartbeat_at, lease_ends_at, queues, kinds, metadata
    )
    values (
        renew.worker, renew.name, renew.capacity, clock, clock, clock + renew.lease,
        coalesce(renew.queues, '{}'), renew.kinds, renew.metadata
    )
    on conflict on constraint workers_pkey do update set
        status = 'live',
        heartbeat_at = excluded.heartbeat_at,
        lease_ends_at = excluded.lease_ends_at,
        name = coalesce(excluded.name, w.name),
        capacity = coalesce(excluded.capacity, w.capacity),
        queues = coalesce(renew.queues, w.queues),
        kinds = case when renew.queues is null then w.kinds else excluded.kinds end,
        metadata = coalesce(excluded.metadata, w.metadata);
    -- Here too, for workers that never send a heartbeat.
    perform tidy_grants(renew.worker);
end $$;
comment on function renew is
    'Extends a worker''s lease, making its row if need be; what it '
    'held under an ended lease and does not list is lost first.';

create or replace function lose(
    worker uuid,
    kept_ids uuid[],
    kept_attempts int[],
    max_rows int,
    patient boolean
) returns int
language plpgsql volatile
set search_path from current
as $$
declare
    ids uuid[];
    attempts int[];
    done int := 0;
begin
    select
        array_agg(x.job_id order by x.job_id, x.attempt),
        array_agg(x.attempt order by x.job_id, x.attempt)
    into ids, attempts
    from (
        select e.job_id, e.attempt
        from grants g
        cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
        join executions e on e.job_id = u.job_id and e.attempt = u.attempt
        where g.worker = lose.worker
            and e.finished_at is null
            and not exists (
                select from unnest(kept_ids, kept_attempts) k(job_id, attempt)
                where k.job_id = e.job_id and k.attempt = e.attempt
            )
        limit lose.max_rows
    ) x;
    if ids is not null then
        done := take_back(ids, attempts, 'lost', 1, 'the worker''s lease ended', patient);
    end if;
    perform tidy_grants(lose.worker);
    return done;
end $$;
comment on function lose is 'Closes a worker''s open executions, but for those it keeps, as lost.';

create or replace function tidy_grants(worker uuid) returns void
language sql volatile
set search_path from current
begin atomic
    delete from grants g
    where g.worker = tidy_grants.worker
        and not exists (
            select from unnest(g.job_ids, g.attempts) u(job_id, attempt)
            join executions e on e.job_id = u.job_id and e.attempt = u.attempt
            where e.finished_at is null
        );
end;
comment on function tidy_grants is 'Deletes the grants of a worker of which nothing is open.';

create or replace function take_back(
    ids uuid[],
    attempts int[],
    outcome text,
    counts int,
    error text,
    patient boolean
) returns int
language plpgsql volatile
set search_path from current
as $$
declare
    risky uuid[] := '{}';
    plain uuid[];
    numbers int[];
    one record;
    done int := 0;
begin
    if patient then
        perform from executions e
        join unnest(take_back.ids, take_back.attempts) g(job_id, attempt) on e.job_id = g.job_id
            and e.attempt = g.attempt
        order by e.job_id, e.attempt for update of e;
        perform from jobs j where j.id = any(take_back.ids) order by j.id for no key update;
        return close_and_move(take_back.ids, take_back.attempts, outcome, counts, error);
    end if;
    plain := array(
        select e.job_id
        from unnest(take_back.ids, take_back.attempts) g(job_id, attempt)
        join executions e on e.job_id = g.job_id and e.attempt = g.attempt
        where e.finished_at is null
        order by e.job_id for update of e skip locked
    );
    plain := array(
        select j.id
        from jobs j
        where j.id = any(plain)
        order by j.id for no key update skip locked
    );
    -- A job whose end would cascade goes alone: if its children
    -- are not free at once, it is left for the next pass.
    for one in
        select j.id, j.attempt
        from jobs j
        where j.id = any(plain)
            and j.has_dependents
            and (j.cancel_requested_at is not null or j.failures + counts >= j.max_attempts)
        order by j.id
    loop
        risky := risky || one.id;
        begin
            done := done + close_and_move(
                array[one.id], array[one.attempt], outcome, counts, error
            );
        exception when lock_not_available then
            null;
        end;
    end loop;
    -- An open execution is its job's newest.
    select array_agg(j.id order by j.id), array_agg(j.attempt order by j.id)
    into plain, numbers
    from jobs j
    where j.id = any(plain) and j.id <> all (risky);
    return done + close_and_move(plain, numbers, outcome, counts, error);
end $$;
comment on function take_back is
    'Closes open executions from outside and puts their jobs where '
    'the retry rule says; impatient, it leaves what others hold.';

create or replace function close_and_move(
    ids uuid[],
    attempts int[],
    outcome text,
    counts int,
    error text
) returns int
language plpgsql volatile
set search_path from current
as $$
declare
    closed uuid[];
begin
    with gone as (
        update executions e
        set finished_at = clock_timestamp(),
            outcome = close_and_move.outcome,
            error = close_and_move.error
        from unnest(close_and_move.ids, close_and_move.attempts) g(job_id, attempt)
        where e.job_id = g.job_id and e.attempt = g.attempt and e.finished_at is null
        returning e.job_id
    )
    select array_agg(g.job_id order by g.job_id) into closed
    from gone g;
    if closed is null then
        return 0;
    end if;
    -- A time-out is a failure and backs off; whatever else is taken back is ready at once.
    perform reschedule(
        closed,
        case when close_and_move.outcome <> 'timed_out' then array_fill(
            clock_timestamp(), array[cardinality(closed)]
        ) end,
        null,
        counts,
        null
    );
    return cardinality(closed);
end $$;
comment on function close_and_move is
    'Closes those of these executions that are open (rows held) and reschedules their jobs.';
