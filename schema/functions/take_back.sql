-- Taking executions back from a worker: lost, timed out, or granted in a reply that it never saw.
-- Lock order: executions by (job, attempt) -> job rows -> the cascade.

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
    plain_attempts int[];
    one record;
    done int := 0;
    deadline timestamptz := clock_timestamp() + interval '1 second';
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
        -- By chance: those that are held must not stand before the others in each pass.
        order by random()
    loop
        risky := risky || one.id;
        continue when clock_timestamp() > deadline;
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
    into plain, plain_attempts
    from jobs j
    where j.id = any(plain) and j.id <> all (risky);
    return done + close_and_move(plain, plain_attempts, outcome, counts, error);
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
        counts
    );
    return cardinality(closed);
end $$;
comment on function close_and_move is
    'Closes those of these executions that are open (rows held) and reschedules their jobs.';
