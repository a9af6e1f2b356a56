-- What falls with parents that ended cancelled or discarded: the whole closure is read, locked in
-- one order, and written.
-- Lock order: job rows -> blocked by job_id -> children's job rows -> unique_keys.

create or replace function edges_among(nodes uuid[], out children int[], out parents int[])
language plpgsql stable
set search_path from current
as $$
begin
    select array_agg(y.child), array_agg(y.parent) into children, parents
    from (
        -- A sort where a join to the array would be a loop in a loop.
        select x.parent, max(x.place) over (partition by x.id) as child
        from (
            select n.place as parent, d.child as id, null::int as place
            from unnest(edges_among.nodes) with ordinality n(id, place)
            cross join lateral (
                select e.child
                from dependencies e
                where e.parent = n.id and e.policy = 'cancel'
                offset 0
            ) d
            union all
            select null, n.id, n.place
            from unnest(edges_among.nodes) with ordinality n(id, place)
        ) x
    ) y
    where y.parent is not null and y.child is not null;
end $$;
comment on function edges_among is
    'The edges with policy cancel between these jobs, as places in the array.';

create or replace function prospects_of(children uuid[])
returns table (id uuid, place bigint, wait_for_any boolean, cause uuid, lifelines bigint)
language sql stable
set search_path from current
begin atomic
    select
        k.id,
        k.place,
        b.wait_for_any,
        min(coalesce(p.cause, p.id)::text) filter (where p.is_lost)::uuid,
        count(p.id) filter (where not p.is_lost) + l.n
    from unnest(prospects_of.children) with ordinality k(id, place)
    cross join lateral (
        select x.wait_for_any from blocked x where x.job_id = k.id offset 0
    ) b
    cross join lateral (
        select count(*) as n from (select from links y where y.child = k.id limit 1) x
    ) l
    left join lateral (
        select
            q.id,
            q.cause,
            d.policy = 'cancel' and q.state in ('cancelled', 'discarded') as is_lost
        from dependencies d
        cross join lateral (
            select x.id, x.cause, x.state from jobs x where x.id = d.parent offset 0
        ) q
        where d.child = k.id
        offset 0
    ) p on true
    group by k.id, k.place, b.wait_for_any, l.n;
end;
comment on function prospects_of is
    'Of those of these children that are blocked: the first cause, if an ended parent would cancel '
    'them, and how many other parents there are, with one for those still to be attached.';

create or replace function forsaken(children uuid[], out ids uuid[], out causes uuid[])
language plpgsql stable
set search_path from current
as $$
begin
    select array_agg(p.id order by p.id), array_agg(p.cause order by p.id) into ids, causes
    from prospects_of(forsaken.children) p
    where p.cause is not null and (not p.wait_for_any or p.lifelines = 0);
end $$;
comment on function forsaken is
    'Those of these blocked children that their ended '
    'parents cancel, with the first cause of each.';

create or replace function closure_of(
    ended uuid[],
    out doomed uuid[],
    out causes uuid[],
    out touched uuid[],
    out reached uuid[],
    out has_any boolean
)
language plpgsql stable
set search_path from current
as $$
begin
    -- All that could fall.
    with recursive fall (id, wait_for_any) as (
        select d.child, b.wait_for_any
        from unnest(closure_of.ended) p(id)
        cross join lateral (
            select y.child
            from dependencies y
            where y.parent = p.id and y.policy = 'cancel'
            offset 0
        ) d
        cross join lateral (
            select x.wait_for_any from blocked x where x.job_id = d.child offset 0
        ) b
        union
        select d.child, b.wait_for_any
        from fall f
        cross join lateral (
            select y.child
            from dependencies y
            where y.parent = f.id and y.policy = 'cancel'
            offset 0
        ) d
        cross join lateral (
            select x.wait_for_any from blocked x where x.job_id = d.child offset 0
        ) b
    )
    select array_agg(f.id order by f.id), coalesce(bool_or(f.wait_for_any), false)
    into doomed, has_any
    from fall f;
    reached := doomed;
    if doomed is not null then
        causes := array(
            select distinct coalesce(j.cause, j.id) from jobs j where j.id = any(closure_of.ended)
        );
        if has_any or cardinality(causes) > 1 then
            select s.doomed, s.causes into doomed, causes
            from without_spared(reached) s;
        else
            causes := array_fill(causes[1], array[cardinality(doomed)]);
        end if;
    end if;
    select array_agg(x.child order by x.child) into touched
    from (
        select distinct d.child
        from unnest(closure_of.ended || doomed) p(id)
        cross join lateral (
            select y.child, y.policy from dependencies y where y.parent = p.id offset 0
        ) d
        cross join lateral (
            select x.wait_for_any from blocked x where x.job_id = d.child offset 0
        ) b
        where d.policy <> 'cancel' or b.wait_for_any
        except
        select k.id
        from unnest(doomed) k(id)
    ) x;
    reached := reached || touched;
end $$;
comment on function closure_of is
    'The blocked jobs that fall with these ended ones, at any depth, each with its first cause; '
    'those that only hear of it (continue, hold, any); and all that are to be '
    'held before this is read, some of which may be spared since any parent is enough.';

create or replace function without_spared(
    candidates uuid[],
    out doomed uuid[],
    out causes uuid[]
)
language plpgsql stable
set search_path from current
as $$
declare
    edges record := edges_among(without_spared.candidates);
    needs int[];
    walk record;
begin
    select
        array_agg(
            case
                when not p.wait_for_any then case when p.cause is null then 1 else 0 end
                else p.lifelines
            end
            order by p.place
        ),
        array_agg(p.cause order by p.place)
    into needs, causes
    from prospects_of(without_spared.candidates) p;
    walk := spread(needs, edges.children, edges.parents);
    select array_agg(c.id order by c.id), array_agg(without_spared.causes[c.origin] order by c.id)
    into doomed, causes
    from unnest(without_spared.candidates, walk.origins) c(id, origin)
    where c.origin is not null;
end $$;
comment on function without_spared is
    'Those of these jobs (sorted ids) that fall indeed, each with the first cause of one of its '
    'parents: of those that wait for any parent, only the ones that have none left.';

create or replace function cascade_ended(parents uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    ended uuid[] := cascade_ended.parents;
    fall record;
    before uuid[];
begin
    -- Read the whole closure, lock it in one statement,
    -- write it; then read again for edges committed between.
    loop
        fall := closure_of(ended);
        exit when fall.doomed is null and fall.touched is not distinct from before;
        perform from blocked b
        where b.job_id = any(fall.reached)
        order by b.job_id for update;
        if fall.has_any then
            -- The other parents of these may have ended, or run again, before they were held.
            fall := closure_of(ended);
        end if;
        ended := ended || cancel_blocked(fall.doomed, fall.causes);
        perform recount(fall.touched);
        perform hold_children(fall.touched);
        perform unblock(fall.touched);
        before := fall.touched;
    end loop;
end $$;
comment on function cascade_ended is
    'Applies the policies of the children of cancelled and '
    'discarded parents, and of theirs: cancel, continue, hold.';

create or replace function cancel_blocked(doomed uuid[], causes uuid[]) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    written uuid[];
    keyed boolean;
begin
    if doomed is null then
        return '{}';
    end if;
    with gone as (
        delete from blocked b
        using unnest(cancel_blocked.doomed, cancel_blocked.causes) d(id, cause)
        where b.job_id = d.id
        returning b.job_id, d.cause
    )
    select
        coalesce(array_agg(g.job_id order by g.job_id), '{}'),
        array_agg(g.cause order by g.job_id)
    into written, causes
    from gone g;
    with gone as (
        update jobs j
        set state = 'cancelled',
            finished_at = clock_timestamp(),
            cause = w.cause,
            reason = 'a parent was ' || coalesce(r.state, 'cancelled')
        from unnest(written, causes) w(id, cause)
        left join jobs r on r.id = w.cause
        where j.id = w.id
        returning j.unique_key
    )
    select bool_or(g.unique_key is not null) into keyed
    from gone g;
    if keyed then
        perform free_keys(written);
    end if;
    return written;
end $$;
comment on function cancel_blocked is
    'Cancels blocked jobs (rows held) whose parents ended, with the first cause on each.';

create or replace function holder_of(child uuid, wait_for_any boolean) returns uuid
language sql stable cost 10000
set search_path from current
return (
    select h.id
    from (
        select p.id, d.child
        from dependencies d
        cross join lateral (
            select x.id, x.finished_at
            from jobs x
            where x.id = d.parent and x.state in ('cancelled', 'discarded')
            offset 0
        ) p
        where d.child = holder_of.child and d.policy = 'hold'
        order by p.finished_at limit 1
    ) h
    -- By h, so that only a child with such an edge is looked at closer, and once.
    where not holder_of.wait_for_any or (
        select x.lifelines from prospects_of(array[h.child]) x
    ) = (
        select count(*)
        from dependencies o
        cross join lateral (
            select
            from jobs x
            where x.id = o.parent and x.state in ('cancelled', 'discarded')
            offset 0
        ) x
        where o.child = h.child and o.policy = 'hold'
    )
);
comment on function holder_of is
    'The ended parent that holds a blocked job, if one does; one that '
    'waits for any of its parents is held when no other is left.';

create or replace function hold_children(children uuid[]) returns void
language sql volatile
set search_path from current
begin atomic
    update jobs j
    set (cause, reason) = (
        select coalesce(p.cause, p.id), 'held: a parent was ' || p.state
        from jobs p
        where p.id = holder_of(j.id, j.wait_for_any)
    )
    where j.id = any(hold_children.children)
        and j.state = 'blocked'
        and j.cause is null
        and (
            select count(*)
            from (
                select from dependencies d where d.child = j.id and d.policy = 'hold' limit 1
            ) x
        ) > 0
        and holder_of(j.id, j.wait_for_any) is not null;
end;
comment on function hold_children is 'Marks held children with the parent that holds them.';
