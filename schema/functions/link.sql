-- Attaching children to parents that existed before: inside COMMIT, never waiting; what could not
-- be held stays in links, and maintenance does the same a moment later.
-- Lock order: parents by id (skip locked) -> blocked by job_id (skip locked).

create or replace function link_children(children uuid[]) returns int
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
    kids uuid[];
    parents uuid[];
    policies text[];
    refs text[];
    held uuid[];
    able uuid[];
    linked uuid[];
    early uuid[];
    ended uuid[];
    fall record;
begin
    -- Read by themselves: joined to parents, or in their order, links whose statistics say
    -- "empty" would be walked from end to end by their other index, dead rows and all.
    select array_agg(l.child), array_agg(l.parent) into kids, parents
    from links l
    where l.child = any(link_children.children);
    held := array(
        select j.id
        from jobs j
        where j.id = any(parents) and j.state <> 'completed'
        order by j.id for no key update skip locked
    );
    -- In a new statement: who is neither completed nor
    -- held? Their children wait. Who is gone had completed.
    able := array(
        select k.id
        from unnest(link_children.children) k(id)
        except
        select x.child
        from (
            -- A sort where a join of two arrays would be a loop in a loop.
            select y.child, y.parent, bool_or(y.is_held) over (partition by y.parent) as is_held
            from (
                select l.child, l.parent, false as is_held
                from unnest(kids, parents) l(child, parent)
                union all
                select null, h.id, true
                from unnest(held) h(id)
            ) y
        ) x
        where x.child is not null
            and not x.is_held
            and (select j.state from jobs j where j.id = x.parent) <> 'completed'
    );
    select
        coalesce(array_agg(x.job_id order by x.job_id), '{}'),
        array_agg(x.job_id order by x.job_id) filter (where x.wait_for_any)
    into linked, early
    from (
        select b.job_id, b.wait_for_any
        from blocked b
        where b.job_id = any(able)
        order by b.job_id for update skip locked
    ) x;
    if cardinality(linked) < cardinality(able) then
        delete from links l
        where l.child = any(able)
            -- By key: as an anti-join it may read all that is blocked for each.
            and (select b.job_id from blocked b where b.job_id = l.child) is null
            and (select j.state from jobs j where j.id = l.child) is distinct from 'cancelled';
        -- One that was cancelled before it was attached waits for its parents when it is retried.
        linked := linked || array(
            select j.id
            from jobs j
            where j.id = any(able) and j.state = 'cancelled'
            order by j.id for no key update skip locked
        );
    end if;
    if linked = '{}' then
        return 0;
    end if;
    -- Again, now that the children are held.
    select array_agg(l.child), array_agg(l.parent), array_agg(l.policy), array_agg(l.ref)
    into kids, parents, policies, refs
    from links l
    where l.child = any(linked);
    update jobs j set has_dependents = true
    where j.id = any(parents) and j.state <> 'completed' and not j.has_dependents;
    -- One that has completed meanwhile has an edge for its result, if it can be kept from prune.
    insert into dependencies (parent, child, policy, ref)
    select l.parent, l.child, l.policy, l.ref
    from unnest(kids, parents, policies, refs) l(child, parent, policy, ref)
    cross join lateral (select from jobs j where j.id = l.parent for key share skip locked) j
    on conflict on constraint dependencies_pkey do nothing;
    if early is not null then
        -- A parent that could not have an edge had completed and was pruned: that is enough.
        early := array(
            select distinct l.child
            from links l
            where l.child = any(early)
                and (
                    select d.parent
                    from dependencies d
                    where d.parent = l.parent and d.child = l.child
                ) is null
        );
        update blocked b set remaining = 0 where b.job_id = any(early);
        perform unblock(early);
    end if;
    delete from links l where l.child = any(linked);
    perform recount(linked);
    -- Parents that had ended: their policy for these children.
    -- Their other children may be held, and are not ours.
    select coalesce(array_agg(distinct d.parent), '{}') into ended
    from unnest(linked) k(id)
    cross join lateral (select y.parent from dependencies y where y.child = k.id offset 0) d
    where (select j.state from jobs j where j.id = d.parent) in ('cancelled', 'discarded');
    if ended <> '{}' then
        fall := forsaken(linked);
        if fall.ids is not null then
            perform cascade_ended(cancel_blocked(fall.ids, fall.causes));
        end if;
        perform hold_children(linked);
    end if;
    perform unblock(linked);
    return cardinality(linked);
end $$;
comment on function link_children is
    'Attaches to these children (ids of jobs that have links) the '
    'parents that can be held now; gives how many were attached.';

create or replace function link_at_commit() returns trigger
language plpgsql volatile security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    delete from tickets t where t.xid = new.xid;
    if current_setting('transaction_isolation') in ('read committed', 'read uncommitted')
        and coalesce(current_setting('rowlock.notify', true), 'on') <> 'off'
    then
        perform link_children(array(select distinct l.child from links l where l.xid = new.xid));
    end if;
    return null;
end $$;
comment on function link_at_commit is 'Attaches the links of the committing transaction.';

create or replace function link(max_rows int, recent boolean default false)
returns table (done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set lock_timeout = '50ms'
as $$
declare
    here uuid;
    last uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    seen uuid[];
    free uuid[];
    risky uuid[];
    one uuid;
begin
    perform need_read_committed('link');
    -- In rounds, so that children who cannot be attached yet do not stand before the others.
    if link.recent then
        here := id_at(clock_timestamp() - default_of('recent'));
        last := id_at(clock_timestamp() + interval '1 day');
    else
        select d.position into here
        from duties d
        where d.duty = 'link'
        for update;
    end if;
    seen := array(
        select distinct l.child
        from links l
        where l.child > coalesce(here, '00000000-0000-0000-0000-000000000000')
            and l.child <= last
        order by l.child limit link.max_rows
    );
    more := cardinality(seen) = link.max_rows;
    if not link.recent then
        update duties d set position = case when link.more then seen[link.max_rows] end
        where d.duty = 'link' and (link.more or d.position is not null);
    end if;
    done := 0;
    if seen = '{}' then
        return next;
        return;
    end if;
    free := array(
        select j.id
        from jobs j
        where j.id = any(seen)
        order by j.id for no key update skip locked
    );
    -- A child whose end would cascade goes alone: if its children
    -- are not free at once, it is left for the next round.
    risky := array(
        select j.id
        from jobs j
        where j.id = any(free)
            and j.has_dependents
            and exists (
                select from links l
                where l.child = j.id
                    and l.policy = 'cancel'
                    and (
                        select p.state from jobs p where p.id = l.parent
                    ) in ('cancelled', 'discarded')
            )
        order by j.id
    );
    done := link_children(array(select f.id from unnest(free) f(id) where f.id <> all (risky)));
    foreach one in array risky loop
        begin
            done := done + link_children(array[one]);
        exception when lock_not_available then
            null;
        end;
    end loop;
    -- A recent round begins anew each time: where nothing was free, it would find the same again.
    more := more and (done > 0 or not link.recent);
    return next;
end $$;
comment on function link is 'The duty that attaches what COMMIT could not.';
