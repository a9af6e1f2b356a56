-- What an enqueue refuses. One pass over the batch; only when it finds something wrong is the
-- first wrong job looked at again, to say what.

-- Without a sub-select and stable, so that it is inlined where it is called.
create or replace function job_is_valid(
    kind text,
    args jsonb,
    queue text,
    priority int,
    run_at timestamptz,
    max_attempts int,
    timeout interval,
    unique_key text,
    latest timestamptz
) returns boolean
language sql stable parallel safe
return kind is not null
    and length(kind) between 1 and limit_of('name_length')
    and kind !~ '[[:cntrl:]]'
    and is_queue_name(queue)
    and args is not null
    and coalesce(priority between 0 and 9, true)
    and coalesce(run_at between timestamptz '1970-01-01 00:00:00+00' and latest, true)
    and coalesce(max_attempts between 1 and limit_of('max_attempts'), true)
    and coalesce(timeout > interval '0' and timeout <= default_of('longest_timeout'), true)
    and coalesce(length(unique_key) between 1 and limit_of('name_length'), true);
comment on function job_is_valid is
    'Whether one job may be enqueued, its args apart, which json_fault judges, '
    'once as that may be slow; latest is the last run_at allowed.';

create or replace function check_jobs(
    kinds text[],
    args jsonb[],
    queues text[],
    priorities int[],
    run_ats timestamptz[],
    max_attempts int[],
    timeouts interval[],
    unique_keys text[],
    single boolean
) returns void
language plpgsql stable
set search_path from current
as $$
declare
    wrong record;
    latest timestamptz := clock_timestamp() + default_of('farthest_run_at');
begin
    select g.* into wrong
    from (
        select u.*, json_fault(u.args, limit_of('args_bytes')) as fault
        from unnest(
            check_jobs.kinds, check_jobs.args, check_jobs.queues, check_jobs.priorities,
            check_jobs.run_ats, check_jobs.max_attempts, check_jobs.timeouts,
            check_jobs.unique_keys
        ) with ordinality as u(
            kind, args, queue, priority, run_at, max_attempts, timeout, unique_key, n
        )
        -- A barrier: else args would be judged here and again below.
        offset 0
    ) g
    where g.fault is not null or not job_is_valid(
        g.kind, g.args, g.queue, g.priority, g.run_at, g.max_attempts, g.timeout, g.unique_key,
        latest
    )
    order by g.n limit 1;
    if found then
        perform check_queue(wrong.queue, case when not single then wrong.n end);
        perform refuse_job(
            case when single then '' else ' of job ' || wrong.n end,
            wrong.kind,
            wrong.args,
            wrong.fault,
            wrong.priority,
            wrong.run_at,
            wrong.max_attempts,
            wrong.timeout,
            wrong.unique_key
        );
    end if;
end $$;
comment on function check_jobs is
    'Raises RL422 or RL413 for the first job of a batch that is not valid.';

-- It judged args itself once.
drop function if exists refuse_job(
    text, text, jsonb, int, timestamptz, int, interval, text
);
create or replace function refuse_job(
    whose text,
    kind text,
    args jsonb,
    fault text,
    priority int,
    run_at timestamptz,
    max_attempts int,
    timeout interval,
    unique_key text
) returns void
language plpgsql stable
set search_path from current
as $$
declare
    name constant text := format('Use 1 to %s characters.', limit_of('name_length'));
begin
    if refuse_job.kind is null
        or length(refuse_job.kind) not between 1 and limit_of('name_length')
        or refuse_job.kind ~ '[[:cntrl:]]'
    then
        perform refuse(
            'RL422', format('kind%s is not valid', whose), refuse_job.kind,
            name || ' No control characters.'
        );
    elsif refuse_job.args is null then
        perform refuse('RL422', format('args%s is null', whose), null, 'Use {} for no args.');
    elsif coalesce(refuse_job.priority not between 0 and 9, false) then
        perform refuse(
            'RL422', format('priority%s is not valid', whose), refuse_job.priority::text,
            'Use 0 (runs first) to 9, or null to inherit one or get 5.'
        );
    elsif coalesce(refuse_job.max_attempts not between 1 and limit_of('max_attempts'), false) then
        perform refuse(
            'RL422', format('max_attempts%s is not valid', whose), refuse_job.max_attempts::text,
            format('Use 1 to %s.', limit_of('max_attempts'))
        );
    elsif coalesce(
        refuse_job.timeout <= interval '0' or refuse_job.timeout > default_of('longest_timeout'),
        false
    ) then
        perform refuse(
            'RL422', format('timeout%s is not valid', whose), refuse_job.timeout::text,
            'Use more than nothing and at most a year, or null for none.'
        );
    elsif coalesce(length(refuse_job.unique_key) not between 1 and limit_of('name_length'), false)
    then
        perform refuse(
            'RL422', format('unique_key%s is not valid', whose), refuse_job.unique_key, name
        );
    end if;
    case refuse_job.fault
        when 'size' then
            perform refuse(
                'RL413',
                format('args%s is too large', whose),
                -- Not how many: a number of five characters may be a thousand when written out.
                format('more than %s bytes as text', limit_of('args_bytes')),
                'Pass a reference to what is large.'
            );
        when 'depth' then
            perform refuse(
                'RL422', format('args%s is nested too deep', whose), excerpt(refuse_job.args),
                format('Nest at most %s levels.', limit_of('json_depth'))
            );
        when 'number' then
            perform refuse(
                'RL422', format('args%s has a number out of range', whose),
                long_number(refuse_job.args)::text,
                'Keep numbers to 1,000 digits and 1,000 decimal places; or send it as a string.'
            );
        else
            perform refuse(
                'RL422', format('run_at%s is not valid', whose), refuse_job.run_at::text,
                'Use a time from 1970 to ten years ahead.'
            );
    end case;
end $$;
comment on function refuse_job is
    'Raises for what is wrong with one job; fault is that of its args.';
