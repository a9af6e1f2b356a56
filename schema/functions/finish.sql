-- Finishing executions: arrays in, one verdict a row
-- out, in input order; one entry never harms another.
-- Lock order: executions by (job, attempt) -> job rows by id -> blocked -> children -> unique_keys.

create or replace function for_each(worker uuid, job_ids uuid[]) returns uuid[]
language sql immutable parallel safe
return array_fill(worker, array[coalesce(cardinality(job_ids), 0)]);
comment on function for_each is 'The worker of each entry, where one worker finishes all of them.';

create or replace function check_finish(
    verb text,
    workers uuid[],
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    extras int[] default '{}'
) returns int
language plpgsql stable
set search_path from current
as $$
declare
    n int := cardinality(check_finish.job_ids);
begin
    perform need_read_committed(check_finish.verb);
    if n is null then
        perform refuse('RL422', 'job_ids is null', null, 'Pass an array.');
    elsif array_position(check_finish.workers, null) > 0 then
        perform refuse('RL422', 'worker is null', null, 'Pass the worker that acquired the jobs.');
    elsif cardinality(check_finish.workers) is distinct from n
        or cardinality(check_finish.attempts) is distinct from n
        or cardinality(check_finish.tokens) is distinct from n
        or not coalesce(n = all(check_finish.extras), true)
    then
        perform refuse(
            'RL422',
            'the arrays differ in length',
            format(
                '%s job_ids, %s workers, %s attempts, %s tokens, others: %s',
                n,
                cardinality(check_finish.workers),
                cardinality(check_finish.attempts),
                cardinality(check_finish.tokens),
                check_finish.extras
            ),
            'Pass one attempt and one token for each job.'
        );
    end if;
    perform check_count(check_finish.verb, 'executions', n, limit_of('finish_jobs'));
    return n;
end $$;
comment on function check_finish is
    'Raises for arguments of a finishing verb that are '
    'not valid; gives how many executions there are.';

create or replace function verdicts(
    workers uuid[],
    job_ids uuid[],
    attempts int[],
    tokens uuid[],
    own text,
    done_ids uuid[],
    done_words text[]
) returns table (job_id uuid, verdict text)
language plpgsql stable
set search_path from current
as $$
begin
    return query
        select
            g.job_id,
            case
                when e.job_id is null then 'stale'
                when e.finished_at is null then 'result_too_large'
                when e.outcome = 'cancelled' then 'cancelled'
                when e.outcome <> verdicts.own then 'stale'
                when g.word is not null
                    and e.attempt = max(e.attempt) over (partition by g.job_id)
                    and row_number() over (
                        partition by g.worker, g.job_id, g.attempt, g.token order by g.n
                    ) = 1
                    then g.word
                else 'repeated'
            end
        from (
            -- A sort where a join of two arrays would be a loop in a loop.
            select x.worker, x.job_id, x.attempt, x.token, x.n,
                max(x.word) over (partition by x.job_id) as word
            from (
                select u.worker, u.job_id, u.attempt, u.token, u.n, null as word
                from unnest(
                    verdicts.workers, verdicts.job_ids, verdicts.attempts, verdicts.tokens
                ) with ordinality u(worker, job_id, attempt, token, n)
                union all
                select null, d.id, null, null, null, d.word
                from unnest(verdicts.done_ids, verdicts.done_words) d(id, word)
            ) x
        ) g
        left join executions e on e.job_id = g.job_id
            and e.attempt = g.attempt
            and e.token = g.token
            and e.worker = g.worker
        where g.n is not null
        order by g.n;
end $$;
comment on function verdicts is
    'What became of each entry of a finishing call whose outcome '
    'is own: judged by that execution alone, whatever came after.';

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
        update jobs j
        set state = case when j.cancel_requested_at is null then ended_as else 'cancelled' end,
            finished_at = clock_timestamp(),
            reason = case when j.cancel_requested_at is not null then 'cancelled on request' end
        where j.id = any(end_running.ids) and j.state = 'running'
        returning j.id, j.state, j.has_dependents, j.unique_key
    )
    select
        array_agg(g.id order by g.id) filter (where g.has_dependents and g.state = 'completed'),
        array_agg(g.id order by g.id) filter (where g.has_dependents and g.state <> 'completed'),
        array_agg(g.id order by g.id) filter (where g.state = 'cancelled'),
        bool_or(g.unique_key is not null)
    into done, stopped, cancelled, keyed
    from gone g;
    if cancelled is not null then
        update executions e set outcome = 'cancelled', result = null
        from jobs j
        where j.id = any(cancelled) and e.job_id = j.id and e.attempt = j.attempt;
    end if;
    if done is not null and stopped is not null then
        -- Two cascades lock children: all of them first, in one order.
        closure := closure_of(stopped);
        perform from blocked b
        where b.job_id = any(
            closure.reached || array(
                select d.child from dependencies d where d.parent = any(done)
            )
        )
        order by b.job_id for update;
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
comment on function end_running is
    'Ends running jobs (sorted ids) whose executions were just '
    'closed, and cascades; true if one of them ended cancelled.';
