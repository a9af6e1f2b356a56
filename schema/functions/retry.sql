-- Retry, an operator's verb: a discarded or cancelled job runs again; a held one is let go.
-- Lock order: as in operate.sql, then the children's blocked rows, then the parents of ended jobs;
-- all of them without waiting.

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
    fallen uuid[];
    standing uuid[];
    children uuid[];
    held uuid[];
    keyed uuid[];
    clashing uuid[];
    along uuid[];
begin
    perform hold_jobs(retry_once.ids);
    fallen := fallen_with(retry_once.ids);
    if fallen <> '{}' then
        perform hold_jobs(fallen);
    end if;
    standing := array(
        select j.id
        from jobs j
        where j.id = any(retry_once.ids || fallen) and j.state in ('discarded', 'cancelled')
        order by j.id
    );
    -- A child that falls with its last other parent meanwhile would stay down.
    children := array(
        select distinct d.child
        from unnest(standing) s(id)
        cross join lateral (
            select e.child from dependencies e where e.parent = s.id offset 0
        ) d
        order by d.child
    );
    perform from blocked b where b.job_id = any(children) order by b.job_id for update nowait;
    if fallen_with(retry_once.ids) <> fallen then
        raise lock_not_available;
    end if;
    -- A parent that completes or is retried meanwhile would not
    -- see the child: it is held to the end, or all is tried again.
    perform from jobs p
    where p.state <> 'completed'
        and p.id = any(array(
            select distinct d.parent
            from dependencies d
            where d.child = any(standing)
        ))
    order by p.id for share nowait;
    keyed := standing;
    if exists (select from jobs j where j.id = any(fallen) and j.unique_key is not null) then
        -- One that stays down whatever its key takes it from nobody.
        keyed := retry_once.ids || those_back(standing, retry_once.ids, '{}');
    end if;
    insert into unique_keys (key, job_id)
    select j.unique_key, j.id
    from jobs j
    where j.id = any(standing) and j.id = any(keyed) and j.unique_key is not null
    order by j.unique_key, j.id = any(retry_once.ids) desc, j.id
    on conflict on constraint unique_keys_pkey do nothing;
    if exists (
        select from jobs j
        where j.id = any(standing)
            and j.id = any(keyed)
            and j.unique_key is not null
            and not exists (select from unique_keys u where u.key = j.unique_key)
    ) then
        -- Who had the key has ended since: it is free, and all is tried again.
        raise lock_not_available;
    end if;
    clashing := array(
        select j.id
        from jobs j
        where j.id = any(standing)
            and j.id = any(keyed)
            and j.unique_key is not null
            and (select u.job_id from unique_keys u where u.key = j.unique_key) <> j.id
        order by j.id
    );
    held := array(
        select j.id
        from jobs j
        where j.id = any(retry_once.ids) and j.state = 'blocked' and j.cause is not null
        order by j.id
    );
    return query
        select
            u.id,
            case
                when j.id is null then 'unknown'
                when j.id = any(clashing) then 'conflict'
                when j.id = any(held) then 'released'
                when j.state in ('discarded', 'cancelled') then 'retried'
                when j.state = 'completed' then 'completed'
                else 'unfinished'
            end
        from unnest(retry_once.ids) u(id)
        left join jobs j on j.id = u.id;
    if held <> '{}' then
        perform let_go(held);
    end if;
    if fallen <> '{}' then
        along := those_back(standing, retry_once.ids, clashing);
        perform free_keys(array(
            select f.id
            from unnest(fallen) f(id)
            except
            select x.id
            from unnest(along || clashing) x(id)
        ));
    end if;
    perform revive(
        array(
            select s.id
            from unnest(standing) s(id)
            except
            select x.id
            from unnest(fallen || clashing) x(id)
        ),
        coalesce(along, '{}')
    );
end $$;
comment on function retry_once is 'Retries jobs (sorted ids) or raises lock_not_available.';

create or replace function fallen_with(ended uuid[]) returns uuid[]
language plpgsql stable
set search_path from current
as $$
begin
    return array(
        with recursive fall (id) as (
            select j.id
            from jobs j
            where j.id = any(fallen_with.ended) and j.state in ('discarded', 'cancelled')
            union
            select c.id
            from fall f
            cross join lateral (
                select d.child
                from dependencies d
                where d.parent = f.id and d.policy = 'cancel'
                offset 0
            ) d
            join jobs c on c.id = d.child
            where c.state = 'cancelled' and c.attempt = 0 and c.cause is not null
        )
        select f.id from fall f
        except
        select u.id from unnest(fallen_with.ended) u(id)
        order by 1
    );
end $$;
comment on function fallen_with is
    'The descendants that fell with these ended jobs and never ran.';

create or replace function those_back(standing uuid[], asked uuid[], clashing uuid[])
returns uuid[]
language plpgsql stable
set search_path from current
as $$
declare
    edges record := edges_among(those_back.standing);
    needs int[];
    walk record;
begin
    -- What stays as it is keeps down what hangs below it. One that was asked for runs whatever
    -- its parents did, unless its key is taken.
    select array_agg(
        case
            when x.is_clashing then 0
            when x.is_asked then null
            when j.wait_for_any then x.inner_parents
            when j.ended_parents > x.inner_parents then 0
            else 1
        end
        order by x.place
    ) into needs
    from (
        -- A sort where joins of arrays would be loops in a loop.
        select
            y.id,
            y.place,
            bool_or(y.is_asked) over w as is_asked,
            bool_or(y.is_clashing) over w as is_clashing,
            (sum(y.n) over w)::int as inner_parents
        from (
            select s.id, s.place, false as is_asked, false as is_clashing, 0 as n
            from unnest(those_back.standing) with ordinality s(id, place)
            union all
            select a.id, null, true, false, 0 from unnest(those_back.asked) a(id)
            union all
            select c.id, null, false, true, 0 from unnest(those_back.clashing) c(id)
            union all
            select those_back.standing[e.child], null, false, false, 1
            from unnest(edges.children) e(child)
        ) y
        window w as (partition by y.id)
    ) x
    cross join lateral (
        select
            w.wait_for_any,
            (
                select count(*)
                from dependencies d
                cross join lateral (
                    select
                    from jobs p
                    where p.id = d.parent and p.state in ('discarded', 'cancelled')
                    offset 0
                ) p
                where d.child = w.id and d.policy = 'cancel'
            ) as ended_parents
        from jobs w
        where w.id = x.id
        offset 0
    ) j
    where x.place is not null;
    walk := spread(needs, edges.children, edges.parents);
    return array(
        select s.id
        from unnest(those_back.standing, walk.origins) s(id, origin)
        where s.origin is null
        except
        select a.id
        from unnest(those_back.asked) a(id)
        order by 1
    );
end $$;
comment on function those_back is
    'Which of these ended jobs (sorted ids, with all that fell with them) come back beside those '
    'asked for: not one whose unique key is taken, nor one that another ended parent stands '
    'against, nor what hangs below these.';

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

create or replace function revive(asked uuid[], along uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    back constant uuid[] := revive.asked || revive.along;
    children uuid[];
begin
    if back = '{}' then
        return;
    end if;
    update jobs j
    set state = 'blocked',
        failures = 0,
        finished_at = null,
        cancel_requested_at = null,
        cause = null,
        reason = null,
        run_at = case
            when j.id = any(revive.asked) then least(j.run_at, clock_timestamp())
            else j.run_at
        end
    where j.id = any(back);
    -- Whoever asks for a job wants it to run: its parents that have ended by now do not matter,
    -- even if they are retried later. Where any of several is enough, those left may still do.
    update dependencies d set policy = 'continue'
    where d.child = any(revive.asked)
        and d.policy <> 'continue'
        and (select p.state from jobs p where p.id = d.parent) in ('discarded', 'cancelled')
        and (
            select not c.wait_for_any or not has_unfinished_parent(c.id)
            from jobs c
            where c.id = d.child
        );
    update links l set policy = 'continue'
    where l.child = any(revive.asked)
        and l.policy <> 'continue'
        and (select p.state from jobs p where p.id = l.parent) in ('discarded', 'cancelled')
        and (
            select not c.wait_for_any or not has_unfinished_parent(c.id)
            from jobs c
            where c.id = l.child
        );
    insert into blocked (job_id, remaining, priority, queue, wait_for_any)
    select j.id, 0, j.priority, j.queue, j.wait_for_any
    from jobs j
    where j.id = any(back)
    order by j.id;
    -- Its children count it again; those that it held wait for it as for any parent.
    children := array(
        select distinct d.child
        from unnest(back) p(id)
        cross join lateral (
            select y.child from dependencies y where y.parent = p.id offset 0
        ) d
        cross join lateral (select from blocked x where x.job_id = d.child offset 0) b
        order by d.child
    );
    perform from blocked b where b.job_id = any(children) order by b.job_id for update;
    update jobs j set cause = null, reason = null
    where j.id = any(children) and j.cause is not null and j.state = 'blocked';
    perform hold_children(children || back);
    -- In a new statement, under the locks: a child that went
    -- on without its parent has nothing to do with it any more.
    delete from dependencies d
    where d.parent = any(back)
        and (
            select c.state from jobs c where c.id = d.child
        ) in ('ready', 'scheduled', 'running');
    perform recount(children || back);
    perform unblock(back);
end $$;
comment on function revive is
    'Puts ended jobs (rows held) back to wait for their unfinished parents, else ready: those '
    'asked for, and those that come along.';

create or replace function has_unfinished_parent(child uuid) returns boolean
language sql stable
set search_path from current
return exists (
    select from dependencies d
    join jobs p on p.id = d.parent
    where d.child = has_unfinished_parent.child and p.finished_at is null
    offset 0
) or exists (
    select from links l
    join jobs p on p.id = l.parent
    where l.child = has_unfinished_parent.child and p.finished_at is null
    offset 0
);
comment on function has_unfinished_parent is 'Whether a parent of the job has yet to end.';
