-- Finishing executions: arrays in, one verdict a row out, in input order; one entry never harms another.
-- Lock order: executions by (job, attempt) -> job rows by id -> blocked -> children -> unique_keys.

create or replace function check_finish(verb text, worker uuid, job_ids uuid[], attempts int[], tokens uuid[], extra bigint default null) returns int
language plpgsql stable
set search_path from current
as $$
declare
    n int := cardinality(check_finish.job_ids);
begin
    perform need_read_committed(check_finish.verb);
    if check_finish.worker is null then
        perform refuse('RL422', 'worker is null', null, 'Pass the worker that acquired the jobs.');
    elsif n is null then
        perform refuse('RL422', 'job_ids is null', null, 'Pass an array.');
    elsif cardinality(check_finish.attempts) is distinct from n or cardinality(check_finish.tokens) is distinct from n
        or coalesce(check_finish.extra, n) <> n
    then
        perform refuse('RL422', 'the arrays differ in length',
            format('%s job_ids, %s attempts, %s tokens, %s others', n, cardinality(check_finish.attempts), cardinality(check_finish.tokens), check_finish.extra),
            'Pass one attempt and one token for each job.');
    end if;
    perform check_count(check_finish.verb, 'executions', n, limit_of('finish_jobs'));
    return n;
end $$;
comment on function check_finish is 'Raises for arguments of a finishing verb that are not valid; gives how many executions there are.';

create or replace function verdicts(
    worker uuid, job_ids uuid[], attempts int[], tokens uuid[], own text, done_ids uuid[], done_words text[]
) returns table (job_id uuid, verdict text)
language plpgsql stable
set search_path from current
set enable_hashjoin = on
as $$
begin
    return query
        select g.job_id, case
            when e.job_id is null then 'stale'
            when e.finished_at is null then 'result_too_large'
            when e.outcome = 'cancelled' then 'cancelled'
            when e.outcome <> verdicts.own then 'stale'
            when d.word is not null and e.attempt = max(e.attempt) over (partition by g.job_id)
                and row_number() over (partition by g.job_id, g.attempt, g.token order by g.n) = 1 then d.word
            else 'repeated' end
        from unnest(verdicts.job_ids, verdicts.attempts, verdicts.tokens) with ordinality g(job_id, attempt, token, n)
        left join executions e on e.job_id = g.job_id and e.attempt = g.attempt and e.token = g.token and e.worker = verdicts.worker
        left join unnest(verdicts.done_ids, verdicts.done_words) d(id, word) on d.id = g.job_id
        order by g.n;
end $$;
comment on function verdicts is 'What became of each entry of a finishing call whose outcome is own: judged by that execution alone, whatever came after.';

create or replace function end_running(ids uuid[], ended_as text) returns boolean
language plpgsql volatile
set search_path from current
as $$
declare
    cancelled uuid[];
    done uuid[];
    stopped uuid[];
    keyed boolean;
    closure record;
begin
    with gone as (
        update jobs j set state = case when j.cancel_requested_at is null then ended_as else 'cancelled' end,
            finished_at = clock_timestamp(), reason = case when j.cancel_requested_at is not null then 'cancelled on request' end
        where j.id = any(end_running.ids) and j.state = 'running'
        returning j.id, j.state, j.has_dependents, j.unique_key)
    select array_agg(g.id order by g.id) filter (where g.has_dependents and g.state = 'completed'),
        array_agg(g.id order by g.id) filter (where g.has_dependents and g.state <> 'completed'),
        array_agg(g.id order by g.id) filter (where g.state = 'cancelled'), bool_or(g.unique_key is not null)
    into done, stopped, cancelled, keyed from gone g;
    if cancelled is not null then
        update executions e set outcome = 'cancelled', result = null
        from jobs j where j.id = any(cancelled) and e.job_id = j.id and e.attempt = j.attempt;
    end if;
    if done is not null and stopped is not null then
        -- Two cascades lock children: all of them first, in one order.
        closure := closure_of(stopped);
        perform from blocked b where b.job_id = any(closure.doomed || closure.touched
            || array(select d.child from dependencies d where d.parent = any(done))) order by b.job_id for update;
    end if;
    if done is not null then
        perform cascade_completed(done);
    end if;
    if stopped is not null then
        perform cascade_ended(stopped);
    end if;
    if keyed then
        perform free_keys(end_running.ids);
    end if;
    return cancelled is not null;
end $$;
comment on function end_running is 'Ends running jobs (sorted ids) whose executions were just closed, and cascades; true if one of them ended cancelled.';

create or replace function complete(worker uuid, job_ids uuid[], attempts int[], tokens uuid[], results jsonb[] default null)
returns table (job_id uuid, verdict text)
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
    n int := check_finish('complete', complete.worker, complete.job_ids, complete.attempts, complete.tokens, cardinality(complete.results));
    done uuid[];
    stopped boolean;
    clock timestamptz := clock_timestamp();
begin
    with given as materialized (
        select g.* from unnest(complete.job_ids, complete.attempts, complete.tokens, complete.results)
            with ordinality g(id, attempt, token, result, n) order by g.id, g.attempt, g.n),
    closed as (
        update executions e set finished_at = clock, outcome = 'completed', result = g.result
        from given g
        where e.job_id = g.id and e.attempt = g.attempt and e.token = g.token and e.worker = complete.worker
            and e.finished_at is null and (g.result is null or json_fault(g.result, limit_of('result_bytes')) is null)
        returning e.job_id)
    select array_agg(c.job_id) into done from closed c;
    stopped := done is not null and end_running(done, 'completed');
    if cardinality(done) = n and not stopped then
        return query select g.id, 'completed' from unnest(complete.job_ids) with ordinality g(id, n) order by g.n;
    else
        -- Of one execution given several times the first result that fits was taken.
        return query
            select x.job_id, case when not x.done then x.verdict when x.n < x.taken then 'result_too_large'
                when x.n = x.taken then 'completed' else 'repeated' end
            from (select v.job_id, v.verdict, v.n, bool_or(v.verdict = 'completed') over same as done,
                    min(v.n) filter (where v.result is null or json_fault(v.result, limit_of('result_bytes')) is null) over same as taken
                  from rows from (verdicts(complete.worker, complete.job_ids, complete.attempts, complete.tokens, 'completed', done,
                        array_fill('completed'::text, array[coalesce(cardinality(done), 0)])),
                    unnest(complete.attempts), unnest(complete.tokens), unnest(complete.results))
                    with ordinality v(job_id, verdict, attempt, token, result, n)
                  window same as (partition by v.job_id, v.attempt, v.token)) x
            order by x.n;
    end if;
end $$;
comment on function complete is 'Ends executions well. Verdicts: completed, repeated, cancelled (the job was asked to stop), stale, result_too_large (the job stays running).';

create or replace function complete_or_raise(worker uuid, job_id uuid, attempt int, token uuid, result jsonb default null) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
declare
    verdict text;
begin
    select c.verdict into verdict from complete(complete_or_raise.worker, array[complete_or_raise.job_id],
        array[complete_or_raise.attempt], array[complete_or_raise.token], array[complete_or_raise.result]) c;
    case verdict
        when 'stale' then
            perform refuse('RL001', 'token is stale: this execution is not yours to finish', complete_or_raise.job_id::text,
                'Roll back; another execution of the job runs or has run.');
        when 'result_too_large' then
            perform refuse('RL413', 'result is too large', format('%s bytes', pg_column_size(complete_or_raise.result)),
                format('Keep it under %s bytes as text; pass a reference to what is large.', limit_of('result_bytes')));
        else
            return verdict <> 'cancelled';
    end case;
end $$;
comment on function complete_or_raise is 'Ends one execution well in the caller''s transaction, so that its writes and its completion stand or fall together. Raises RL001 when the token is stale and RL413 for a result too large; false when the job was asked to stop.';
