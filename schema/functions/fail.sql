-- The other ends of an execution: fail, snooze, release. Failing always succeeds.

create or replace function clean_error(error text) returns text
language sql immutable parallel safe
return (
    select case
        when octet_length(c.clean) <= limit_of('error_bytes') then c.clean
        else left(c.clean, (limit_of('error_bytes') / 4)::int)
    end
    from (
        select regexp_replace(
            left(error, limit_of('error_bytes')::int), '[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]',
            '', 'g'
        ) as clean
    ) c
);
comment on function clean_error is 'An error cut to 16 KiB and without control characters.';

create or replace function close_executions(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    outcome text,
    errors text[],
    inout ats timestamptz[],
    inout discards boolean[],
    out done uuid[]
)
language plpgsql volatile
set search_path from current
as $$
begin
    with given as materialized (
        select g.*
        from unnest(
            close_executions.job_ids, close_executions.attempts, close_executions.tokens,
            close_executions.errors, close_executions.ats, close_executions.discards
        ) with ordinality g(id, attempt, token, error, at, discard, n)
        order by g.id, g.attempt, g.n
    ),
    closed as (
        update executions e
        set finished_at = clock_timestamp(),
            outcome = close_executions.outcome,
            error = clean_error(g.error)
        from given g
        where e.job_id = g.id
            and e.attempt = g.attempt
            and e.token = g.token
            and e.worker = close_executions.worker
            and e.finished_at is null
        returning e.job_id, g.at, g.discard
    )
    select
        array_agg(c.job_id order by c.job_id),
        array_agg(c.at order by c.job_id),
        array_agg(c.discard order by c.job_id)
    into done, ats, discards
    from closed c;
    if cardinality(done) is distinct from cardinality(close_executions.job_ids) then
        perform confirm_repeat();
    end if;
end $$;
comment on function close_executions is
    'Closes the open executions that the caller has the right to '
    'finish; gives their jobs, sorted, with what was asked for each.';

create or replace function fail(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    errors text[] default null,
    retry_at timestamptz[] default null,
    discard boolean[] default null
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
    closed record;
    words text[];
begin
    perform check_finish(
        'fail', for_each(fail.worker, fail.job_ids), fail.job_ids, fail.attempts, fail.tokens,
        array[cardinality(fail.errors), cardinality(fail.retry_at), cardinality(fail.discard)]
    );
    perform check_times('retry_at', fail.retry_at, true);
    closed := close_executions(
        fail.worker, fail.job_ids, fail.attempts, fail.tokens, 'failed', fail.errors,
        fail.retry_at, fail.discard
    );
    if closed.done is not null then
        words := reschedule(closed.done, closed.ats, closed.discards, 1);
    end if;
    return query
        select *
        from verdicts(
            for_each(fail.worker, fail.job_ids),
            fail.job_ids,
            fail.attempts,
            fail.tokens,
            'failed',
            closed.done,
            array(
                select case w.word when 'scheduled' then 'retrying' else w.word end
                from unnest(words) with ordinality w(word, n)
                order by w.n
            )
        );
end $$;
comment on function fail is
    'Ends executions badly. The job is retried at the given time or after the backoff, or '
    'discarded when its max_attempts are used up or discard says so. Verdicts: retrying, '
    'discarded, repeated, cancelled, stale.';

create or replace function snooze(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    until timestamptz[]
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
        'snooze', for_each(snooze.worker, snooze.job_ids), snooze.job_ids,
        snooze.attempts, snooze.tokens, array[coalesce(cardinality(snooze.until), -1)]
    );
    closed record;
begin
    perform check_times('until', snooze.until, false);
    closed := close_executions(
        snooze.worker, snooze.job_ids, snooze.attempts, snooze.tokens, 'snoozed', null,
        snooze.until, null
    );
    if closed.done is not null then
        perform reschedule(closed.done, closed.ats, null, 0);
    end if;
    return query
        select *
        from verdicts(
            for_each(snooze.worker, snooze.job_ids),
            snooze.job_ids,
            snooze.attempts,
            snooze.tokens,
            'snoozed',
            closed.done,
            array_fill('snoozed'::text, array[coalesce(cardinality(closed.done), 0)])
        );
end $$;
comment on function snooze is
    'Gives executions back to run again at a later time; does not count against max_attempts. '
    'Verdicts: snoozed, repeated, cancelled, stale.';

create or replace function release(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    tokens uuid[]
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
        'release', for_each(release.worker, release.job_ids), release.job_ids,
        release.attempts, release.tokens
    );
    closed record;
begin
    closed := close_executions(
        release.worker, release.job_ids, release.attempts, release.tokens, 'released', null,
        array_fill(clock_timestamp(), array[n]), null
    );
    if closed.done is not null then
        perform reschedule(closed.done, closed.ats, null, 0);
    end if;
    return query
        select *
        from verdicts(
            for_each(release.worker, release.job_ids),
            release.job_ids,
            release.attempts,
            release.tokens,
            'released',
            closed.done,
            array_fill('released'::text, array[coalesce(cardinality(closed.done), 0)])
        );
end $$;
comment on function release is
    'Gives executions back unharmed: the jobs are ready at once and nothing counts against '
    'max_attempts. Verdicts: released, repeated, cancelled, stale.';

create or replace function check_times(
    argument text,
    times timestamptz[],
    nullable boolean
) returns void
language plpgsql stable
set search_path from current
as $$
declare
    wrong record;
begin
    select g.n, g.at into wrong
    from unnest(check_times.times) with ordinality g(at, n)
    where not coalesce(
        g.at between '1970-01-01Z' and clock_timestamp() + default_of('farthest_run_at'),
        check_times.nullable
    )
    order by g.n limit 1;
    if found then
        perform refuse(
            'RL422', format('%s of entry %s is not valid', check_times.argument, wrong.n),
            wrong.at::text, 'Use a time from 1970 to ten years ahead.'
        );
    end if;
end $$;
comment on function check_times is 'Raises RL422 for the first time that is out of range.';
