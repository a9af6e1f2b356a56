-- Reprioritize, an operator's verb: what waits moves to another lane, what runs keeps the priority
-- for its next attempt.
-- Lock order: as in operate.sql.

create or replace function reprioritize(job_ids uuid[], priority int)
returns table (job_id uuid, verdict text)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    if reprioritize.priority is null or reprioritize.priority not between 0 and 9 then
        perform refuse(
            'RL422', 'priority is not valid', reprioritize.priority::text,
            'Use 0 (runs first) to 9.'
        );
    end if;
    return query
        select t.job_id, t.verdict
        from in_tries('reprioritize', reprioritize.job_ids, reprioritize.priority) t;
end $$;
comment on function reprioritize is
    'Gives jobs another priority. A ready job goes to the end of its new lane and keeps its age. '
    'Verdicts: reprioritized, unchanged (it has that priority), finished, unknown.';

create or replace function reprioritize_once(ids uuid[], priority int)
returns table (id uuid, word text)
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
    moved uuid[];
    woken text[];
begin
    perform hold_jobs(reprioritize_once.ids);
    return query
        select
            u.id,
            case
                when j.id is null then 'unknown'
                when j.finished_at is not null then 'finished'
                when j.priority = reprioritize_once.priority then 'unchanged'
                else 'reprioritized'
            end
        from unnest(reprioritize_once.ids) u(id)
        left join jobs j on j.id = u.id;
    moved := array(
        select j.id
        from jobs j
        where j.id = any(reprioritize_once.ids)
            and j.finished_at is null
            and j.priority <> reprioritize_once.priority
        order by j.id
    );
    with gone as (
        delete from ready r
        using jobs j
        where j.id = any(moved)
            and r.queue = j.queue
            and r.priority = j.priority
            and r.seq = j.seq
        returning r.*
    ),
    placed as (
        -- In the old order, with fresh numbers: no floor has passed those.
        insert into ready as r (queue, priority, job_id, ready_at, args_bytes, kind)
        select
            g.queue, reprioritize_once.priority, g.job_id, g.ready_at, g.args_bytes, g.kind
        from gone g
        order by g.priority, g.seq
        returning r.job_id, r.seq, r.queue
    ),
    renumbered as (
        update jobs j set seq = p.seq, priority = reprioritize_once.priority
        from placed p
        where j.id = p.job_id
    )
    select array_agg(distinct p.queue) into woken
    from placed p;
    update scheduled s set priority = reprioritize_once.priority where s.job_id = any(moved);
    update blocked b set priority = reprioritize_once.priority where b.job_id = any(moved);
    update jobs j set priority = reprioritize_once.priority
    where j.id = any(moved) and j.priority <> reprioritize_once.priority;
    perform wake(woken);
end $$;
comment on function reprioritize_once is
    'Reprioritizes jobs (sorted ids) or raises lock_not_available.';
