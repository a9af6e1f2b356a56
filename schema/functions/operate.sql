-- Operators' verbs. The waiting row first, then the job row, never waiting
-- long; what is held is tried again, five times in all, then RL429. A
-- lock_timeout far below deadlock_timeout keeps them out of deadlocks.

create or replace function in_tries(verb text, job_ids uuid[], priority int default null)
returns table (job_id uuid, verdict text)
language plpgsql volatile
set search_path from current
set lock_timeout = '100ms'
set enable_seqscan = off
set jit = off
as $$
declare
    ids uuid[];
begin
    perform need_read_committed(in_tries.verb);
    perform check_count(
        in_tries.verb, 'jobs', cardinality(in_tries.job_ids), limit_of('finish_jobs')
    );
    -- Those that are there by now, and no others: one whose enqueue commits between two of the
    -- statements below would be changed by the later ones without having been held.
    ids := array(select j.id from jobs j where j.id = any(in_tries.job_ids) order by j.id);
    for try in 1 .. 5 loop
        begin
            return query
                select g.id, coalesce(w.word, 'unknown')
                from unnest(in_tries.job_ids) with ordinality g(id, n)
                left join once(in_tries.verb, ids, in_tries.priority) w on w.id = g.id
                order by g.n;
            return;
        exception when lock_not_available then
            perform pg_sleep(0.02 * try);
        end;
    end loop;
    perform refuse(
        'RL429', format('%s met jobs that are held by other transactions', in_tries.verb),
        ids[1]::text, 'Try again in a moment.'
    );
end $$;
comment on function in_tries is
    'An operator''s verb for each of these jobs, five times at most if others hold them.';

create or replace function once(verb text, ids uuid[], priority int)
returns table (id uuid, word text)
language plpgsql volatile
set search_path from current
as $$
begin
    case once.verb
        when 'cancel' then return query select w.* from cancel_once(once.ids) w;
        when 'retry' then return query select w.* from retry_once(once.ids) w;
        when 'reprioritize' then
            return query select w.* from reprioritize_once(once.ids, once.priority) w;
    end case;
end $$;
comment on function once is 'One try of a verb on jobs (sorted ids), or lock_not_available.';

create or replace function cancel(job_ids uuid[]) returns table (job_id uuid, verdict text)
language sql volatile security definer
set search_path from current
begin atomic
    select t.job_id, t.verdict from in_tries('cancel', cancel.job_ids) t;
end;
comment on function cancel is
    'Cancels waiting jobs and asks running ones to stop. Verdicts: cancelled, cancelling (it runs '
    'and was asked to stop), finished (it had ended before), unknown.';

create or replace function hold_jobs(ids uuid[]) returns void
language plpgsql volatile
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    perform from ready r
    join jobs j on j.queue = r.queue and j.priority = r.priority and j.seq = r.seq
    where j.id = any(hold_jobs.ids)
    order by r.job_id for update of r nowait;
    perform from scheduled s
    where s.job_id = any(hold_jobs.ids)
    order by s.job_id for update nowait;
    perform from blocked b
    where b.job_id = any(hold_jobs.ids)
    order by b.job_id for update nowait;
    perform from jobs j where j.id = any(hold_jobs.ids) order by j.id for no key update nowait;
    -- In a new statement, under the locks: a job that
    -- moved since its waiting row was read is tried again.
    if exists (
        select from jobs j
        where j.id = any(hold_jobs.ids)
            and case j.state
                when 'ready'
                    then (
                        select r.job_id
                        from ready r
                        where r.queue = j.queue and r.priority = j.priority and r.seq = j.seq
                    ) is null
                when 'scheduled'
                    then (select s.job_id from scheduled s where s.job_id = j.id) is null
                when 'blocked' then (select b.job_id from blocked b where b.job_id = j.id) is null
            end
    ) then
        raise lock_not_available;
    end if;
end $$;
comment on function hold_jobs is
    'Locks jobs and the rows they wait in, or raises lock_not_available.';

create or replace function cancel_once(ids uuid[]) returns table (id uuid, word text)
language plpgsql volatile
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    waiting uuid[];
    dependents uuid[];
    keyed boolean;
begin
    perform hold_jobs(cancel_once.ids);
    return query
        select
            u.id,
            case
                when j.id is null then 'unknown'
                when j.state = 'running' then 'cancelling'
                when j.state in ('completed', 'discarded') then 'finished'
                else 'cancelled'
            end
        from unnest(cancel_once.ids) u(id)
        left join jobs j on j.id = u.id;
    update jobs j set cancel_requested_at = clock_timestamp()
    where j.id = any(cancel_once.ids) and j.state = 'running' and j.cancel_requested_at is null;
    delete from ready r
    using jobs j
    where j.id = any(cancel_once.ids)
        and r.queue = j.queue
        and r.priority = j.priority
        and r.seq = j.seq;
    delete from scheduled s where s.job_id = any(cancel_once.ids);
    delete from blocked b where b.job_id = any(cancel_once.ids);
    with gone as (
        update jobs j
        set state = 'cancelled',
            seq = null,
            finished_at = clock_timestamp(),
            cause = null,
            reason = 'cancelled on request'
        where j.id = any(cancel_once.ids) and j.state in ('ready', 'scheduled', 'blocked')
        returning j.id, j.has_dependents, j.unique_key
    )
    select
        array_agg(g.id order by g.id),
        array_agg(g.id order by g.id) filter (where g.has_dependents),
        bool_or(g.unique_key is not null)
    into waiting, dependents, keyed
    from gone g;
    if dependents is not null then
        perform cascade_ended(dependents);
    end if;
    if keyed then
        perform free_keys(waiting);
    end if;
end $$;
comment on function cancel_once is 'Cancels jobs (sorted ids) or raises lock_not_available.';

create or replace function pause_queue(queue text) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
begin
    perform check_queue(pause_queue.queue);
    insert into queues as q (name, paused_at)
    values (pause_queue.queue, clock_timestamp())
    on conflict on constraint queues_pkey do update set
        paused_at = clock_timestamp(),
        updated_at = clock_timestamp()
    where q.paused_at is null;
    return found;
end $$;
comment on function pause_queue is
    'Stops acquires from a queue; enqueues go on. False if it was paused.';

create or replace function resume_queue(queue text) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
declare
    resumed boolean;
begin
    perform check_queue(resume_queue.queue);
    update queues q
    set paused_at = null, resumed_at = clock_timestamp(), updated_at = clock_timestamp()
    where q.name = resume_queue.queue and q.paused_at is not null;
    resumed := found;
    if resumed then
        perform wake(array[resume_queue.queue]);
    end if;
    return resumed;
end $$;
comment on function resume_queue is
    'Lets acquires from a queue go on and wakes its sleepers. False if it was not paused.';

create or replace function set_retention(
    queue text,
    retention interval,
    discarded_retention interval default null
) returns void
language plpgsql volatile security definer
set search_path from current
as $$
declare
    wrong record;
begin
    perform check_queue(set_retention.queue);
    select g.argument, g.given into wrong
    from (values
        ('retention', set_retention.retention),
        ('discarded_retention', set_retention.discarded_retention)
    ) g(argument, given)
    where g.given not between default_of('shortest_retention') and default_of('longest_retention')
    limit 1;
    if found then
        perform refuse(
            'RL422', format('%s is not valid', wrong.argument), wrong.given::text,
            'Use a minute to 366 days, or null for the default.'
        );
    end if;
    insert into queues as q (name, retention, discarded_retention)
    values (set_retention.queue, set_retention.retention, set_retention.discarded_retention)
    on conflict on constraint queues_pkey do update set
        retention = excluded.retention,
        discarded_retention = excluded.discarded_retention,
        updated_at = clock_timestamp();
end $$;
comment on function set_retention is
    'Says how long the jobs of a queue stay after their end, completed and cancelled ones, and '
    'discarded ones; null is the default.';

create or replace function paused(queues text[]) returns text[]
language plpgsql stable security definer
set search_path from current
as $$
begin
    perform check_count('paused', 'queues', cardinality(paused.queues), limit_of('watch_queues'));
    return array(
        select q.name
        from queues q
        where q.name = any(paused.queues) and q.paused_at is not null
        order by q.name
    );
end $$;
comment on function paused is 'Which of these queues are paused: for sleepers, who leave them out.';
