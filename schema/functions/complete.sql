-- The good end of an execution.

create or replace function complete_batch(
    workers uuid[],
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    results jsonb[] default null
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
        'complete', complete_batch.workers, complete_batch.job_ids, complete_batch.attempts,
        complete_batch.tokens, array[cardinality(complete_batch.results)]
    );
    done uuid[];
    stopped boolean;
    clock timestamptz := clock_timestamp();
begin
    with given as materialized (
        select g.*
        from unnest(
            complete_batch.workers, complete_batch.job_ids, complete_batch.attempts,
            complete_batch.tokens, complete_batch.results
        ) with ordinality g(worker, id, attempt, token, result, n)
        order by g.id, g.attempt, g.n
    ),
    closed as (
        update executions e
        set finished_at = clock, outcome = 'completed', result = g.result
        from given g
        where e.job_id = g.id
            and e.attempt = g.attempt
            and e.token = g.token
            and e.worker = g.worker
            and e.finished_at is null
            and (g.result is null or json_fault(g.result, limit_of('result_bytes')) is null)
        returning e.job_id
    )
    select array_agg(c.job_id) into done
    from closed c;
    stopped := done is not null and end_running(done, 'completed');
    if cardinality(done) = n and not stopped then
        return query
            select g.id, 'completed'
            from unnest(complete_batch.job_ids) with ordinality g(id, n)
            order by g.n;
    else
        perform confirm_repeat();
        return query
            select v.job_id, v.verdict
            from completed_verdicts(
                complete_batch.workers, complete_batch.job_ids, complete_batch.attempts,
                complete_batch.tokens, complete_batch.results, done
            ) v;
    end if;
end $$;
comment on function complete_batch is
    'Ends executions of several workers well: workers names one for each execution. Verdicts as '
    'in complete.';

create or replace function completed_verdicts(
    workers uuid[],
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    results jsonb[],
    done uuid[]
) returns table (job_id uuid, verdict text)
language plpgsql stable
set search_path from current
as $$
begin
    -- Of one execution given several times the first result that fits was taken.
    return query
        select x.job_id,
            case
                when not x.done then x.verdict
                when x.n < x.taken then 'result_too_large'
                when x.n = x.taken then 'completed'
                else 'repeated'
            end
        from (
            select v.job_id, v.verdict, v.n,
                bool_or(v.verdict = 'completed') over same as done,
                min(v.n) filter (
                    where v.result is null
                        or json_fault(v.result, limit_of('result_bytes')) is null
                ) over same as taken
            from rows from (
                verdicts(
                    completed_verdicts.workers,
                    completed_verdicts.job_ids,
                    completed_verdicts.attempts,
                    completed_verdicts.tokens,
                    'completed',
                    completed_verdicts.done,
                    array_fill(
                        'completed'::text,
                        array[coalesce(cardinality(completed_verdicts.done), 0)]
                    )
                ),
                unnest(completed_verdicts.workers),
                unnest(completed_verdicts.attempts),
                unnest(completed_verdicts.tokens),
                unnest(completed_verdicts.results)
            ) with ordinality v(job_id, verdict, worker, attempt, token, result, n)
            window same as (partition by v.worker, v.job_id, v.attempt, v.token)
        ) x
        order by x.n;
end $$;
comment on function completed_verdicts is
    'What became of each entry of a complete of which some did not simply end well.';

create or replace function complete(
    worker uuid,
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    results jsonb[] default null
) returns table (job_id uuid, verdict text)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    return query
        select b.job_id, b.verdict
        from complete_batch(
            for_each(complete.worker, complete.job_ids), complete.job_ids,
            complete.attempts, complete.tokens, complete.results
        ) b;
end $$;
comment on function complete is
    'Ends executions well. Verdicts: completed, repeated, cancelled (the job was asked to stop), '
    'stale, result_too_large (the job stays running).';

create or replace function refuse_result(result jsonb) returns void
language plpgsql stable
set search_path from current
as $$
begin
    case json_fault(refuse_result.result, limit_of('result_bytes'))
        when 'depth' then
            perform refuse(
                'RL422', 'result is nested too deep', excerpt(refuse_result.result),
                format('Nest at most %s levels.', limit_of('json_depth'))
            );
        when 'number' then
            perform refuse(
                'RL422', 'result has a number out of range', excerpt(refuse_result.result),
                'Keep numbers to 1,000 digits and 1,000 decimal places; or send it as a string.'
            );
        else
            perform refuse(
                'RL413',
                'result is too large',
                format('%s bytes', pg_column_size(refuse_result.result)),
                format(
                    'Keep it under %s bytes as text; pass a reference to what is large.',
                    limit_of('result_bytes')
                )
            );
    end case;
end $$;
comment on function refuse_result is 'Raises for what is wrong with a result.';

create or replace function complete_or_raise(
    worker uuid,
    job_id uuid,
    attempt int,
    token uuid,
    result jsonb default null
) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
declare
    verdict text;
begin
    select c.verdict into verdict
    from complete(
        complete_or_raise.worker, array[complete_or_raise.job_id],
        array[complete_or_raise.attempt], array[complete_or_raise.token],
        array[complete_or_raise.result]
    ) c;
    case verdict
        when 'stale' then
            perform refuse(
                'RL001', 'token is stale: this execution is not yours to finish',
                complete_or_raise.job_id::text,
                'Roll back; another execution of the job runs or has run.'
            );
        when 'repeated' then
            -- The writes beside this call would be a second time what was committed with the first.
            perform refuse(
                'RL001', 'this execution has been completed already',
                complete_or_raise.job_id::text,
                'Roll back: what was written with the first call is there.'
            );
        when 'result_too_large' then
            perform refuse_result(complete_or_raise.result);
        else
            return verdict <> 'cancelled';
    end case;
end $$;
comment on function complete_or_raise is
    'Ends one execution well in the caller''s transaction, so that its writes and its completion '
    'stand or fall together. Raises RL001 when the token is stale and RL413 or RL422 for a '
    'result that cannot be kept; false when the job was asked to stop.';
