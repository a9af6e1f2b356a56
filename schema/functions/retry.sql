-- Retry, an operator's verb: a discarded or cancelled job runs again; a held one is let go.
-- Lock order: as in operate.sql, then the parents of ended jobs, then the children's blocked rows.

create or replace function retry(job_ids uuid[]) returns table (job_id uuid, verdict text)
language sql volatile security definer
set search_path from current
begin atomic
    select t.job_id, t.verdict from in_tries('retry', retry.job_ids) t;
end;
comment on function retry is
    'Lets discarded and cancelled jobs run again, with the descendants that fell with '
    'them and never ran, and held ones go. Verdicts: retried, released (a '
    'held job no longer waits for the parents that held it), conflict (another live job has its '
    'unique key), completed, unfinished, unknown.';

create or replace function retry_once(ids uuid[]) returns table (id uuid, word text)
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
    asked constant uuid[] := retry_once.ids;
    ended uuid[];
    held uuid[];
    clashing uuid[];
begin
    perform hold_jobs(asked);
    ids := asked || fallen_with(asked);
    perform hold_jobs(ids);
    -- A parent that completes or is retried meanwhile would not
    -- see the child: it is held to the end, or all is tried again.
    perform from jobs p
    where p.state <> 'completed'
        and p.id in (
            select d.parent
            from dependencies d
            join jobs j on j.id = d.child
            where j.id = any(retry_once.ids) and j.state in ('discarded', 'cancelled')
        )
    order by p.id for share nowait;
    insert into unique_keys (key, job_id)
    select j.unique_key, j.id
    from jobs j
    where j.id = any(retry_once.ids)
        and j.state in ('discarded', 'cancelled')
        and j.unique_key is not null
    order by j.unique_key
    on conflict on constraint unique_keys_pkey do nothing;
    clashing := array(
        select j.id
        from jobs j
        join unique_keys u on u.key = j.unique_key and u.job_id <> j.id
        where j.id = any(retry_once.ids) and j.state in ('discarded', 'cancelled')
    );
    ended := array(
        select j.id
        from jobs j
        where j.id = any(retry_once.ids)
            and j.state in ('discarded', 'cancelled')
            and j.id <> all (clashing)
        order by j.id
    );
    held := array(
        select distinct d.child
        from dependencies d
        join jobs p on p.id = d.parent
        join blocked b on b.job_id = d.child
        where d.child = any(retry_once.ids)
            and d.policy = 'hold'
            and p.state in ('discarded', 'cancelled')
        order by d.child
    );
    return query
        select
            u.id,
            case
                when j.id is null then 'unknown'
                when j.id = any(clashing) then 'conflict'
                when j.id = any(ended) then 'retried'
                when j.id = any(held) then 'released'
                when j.state = 'completed' then 'completed'
                else 'unfinished'
            end
        from unnest(asked) u(id)
        left join jobs j on j.id = u.id;
    if held <> '{}' then
        perform let_go(held);
    end if;
    if ended <> '{}' then
        perform revive(ended);
    end if;
end $$;
comment on function retry_once is 'Retries jobs (sorted ids) or raises lock_not_available.';

create or replace function fallen_with(ended uuid[]) returns uuid[]
language plpgsql stable
set search_path from current
as $$
declare
    fallen uuid[];
    lost uuid[];
begin
    fallen := array(
        with recursive fall (id) as (
            select j.id
            from jobs j
            where j.id = any(fallen_with.ended) and j.state in ('discarded', 'cancelled')
            union
            select c.id
            from fall f
            cross join lateral (
                select d.child from dependencies d where d.parent = f.id offset 0
            ) d
            join jobs c on c.id = d.child
            where c.state = 'cancelled' and c.attempt = 0 and c.cause is not null
        )
        select f.id from fall f except select u.id from unnest(fallen_with.ended) u(id)
    );
    if fallen = '{}' then
        return fallen;
    end if;
    -- Another parent that stays as it is would cancel these again, and theirs.
    lost := array(
        with recursive loss (id) as (
            select y.child
            from (
                -- A sort where a join of two arrays would be a loop in a loop.
                select x.child, bool_or(x.is_ours) over (partition by x.parent) as is_ours
                from (
                    select c.id as child, d.parent, false as is_ours
                    from unnest(fallen) f(id)
                    join jobs c on c.id = f.id and not c.wait_for_any
                    cross join lateral (
                        select e.parent
                        from dependencies e
                        where e.child = f.id and e.policy = 'cancel'
                        offset 0
                    ) d
                    where (
                        select p.state from jobs p where p.id = d.parent
                    ) in ('discarded', 'cancelled')
                    union all
                    select null, u.id, true
                    from unnest(fallen || fallen_with.ended) u(id)
                ) x
            ) y
            where y.child is not null and not y.is_ours
            union
            select c.id
            from loss l
            cross join lateral (
                select d.child
                from dependencies d
                where d.parent = l.id and d.policy = 'cancel'
                offset 0
            ) d
            join jobs c on c.id = d.child
            where c.state = 'cancelled'
                and c.attempt = 0
                and c.cause is not null
                and not c.wait_for_any
        )
        select l.id from loss l
    );
    return array(
        select f.id from unnest(fallen) f(id) except select l.id from unnest(lost) l(id)
    );
end $$;
comment on function fallen_with is
    'The descendants of these ended jobs that were cancelled by a '
    'cascade, never ran, and have no other ended parent against them.';

create or replace function let_go(held uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
begin
    update dependencies d set policy = 'continue'
    where d.child = any(held)
        and d.policy = 'hold'
        and (select p.state from jobs p where p.id = d.parent) in ('discarded', 'cancelled');
    update jobs j set cause = null, reason = null where j.id = any(held);
    perform recount(held);
    perform unblock(held);
end $$;
comment on function let_go is
    'Held children (rows held) wait no longer for the parents that hold them.';

create or replace function revive(ended uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    children uuid[];
begin
    update jobs j
    set state = 'blocked',
        failures = 0,
        finished_at = null,
        cancel_requested_at = null,
        cause = null,
        reason = null,
        run_at = least(j.run_at, clock_timestamp())
    where j.id = any(ended);
    -- A parent that has ended by now is waited for no more, even if it is retried later.
    update dependencies d set policy = 'continue'
    where d.child = any(ended)
        and d.policy <> 'continue'
        and (select p.state from jobs p where p.id = d.parent) in ('discarded', 'cancelled');
    insert into blocked (job_id, remaining, priority, queue, wait_for_any)
    select j.id, 0, j.priority, j.queue, j.wait_for_any
    from jobs j
    where j.id = any(ended)
    order by j.id;
    -- Its children count it again; those that it held wait for it as for any parent.
    children := array(
        select distinct d.child
        from dependencies d
        join blocked b on b.job_id = d.child
        where d.parent = any(ended)
        order by d.child
    );
    perform from blocked b where b.job_id = any(children) order by b.job_id for update;
    update jobs j set cause = null, reason = null
    where j.id = any(children) and j.cause is not null;
    perform hold_children(children);
    -- In a new statement, under the locks: a child that went
    -- on without its parent has nothing to do with it any more.
    delete from dependencies d
    where d.parent = any(ended)
        and (
            select c.state from jobs c where c.id = d.child
        ) in ('ready', 'scheduled', 'running');
    perform recount(children || ended);
    perform unblock(ended);
end $$;
comment on function revive is
    'Puts ended jobs (rows held) back to wait: for '
    'their parents if some are unfinished, else ready.';
