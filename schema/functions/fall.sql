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

create or replace function lifelines_of(child uuid) returns int
language sql stable
set search_path from current
return links_of(lifelines_of.child) + (
    select count(*)
    from dependencies d
    join jobs p on p.id = d.parent
    where d.child = lifelines_of.child
        and not (d.policy = 'cancel' and p.state in ('cancelled', 'discarded'))
);
comment on function lifelines_of is
    'How many parents keep a child from its fall that waits for any of them.';

create or replace function forsaken(children uuid[], out ids uuid[], out causes uuid[])
language plpgsql stable
set search_path from current
as $$
begin
    select array_agg(x.id order by x.id), array_agg(x.cause order by x.id) into ids, causes
    from (
        select k.id, min(coalesce(p.cause, p.id)::text)::uuid as cause
        from unnest(forsaken.children) k(id)
        cross join lateral (
            select x.wait_for_any from blocked x where x.job_id = k.id offset 0
        ) b
        cross join lateral (
            select y.parent
            from dependencies y
            where y.child = k.id and y.policy = 'cancel'
            offset 0
        ) d
        cross join lateral (
            select x.id, x.cause
            from jobs x
            where x.id = d.parent and x.state in ('cancelled', 'discarded')
            offset 0
        ) p
        where not b.wait_for_any or lifelines_of(k.id) = 0
        group by k.id
    ) x;
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
    -- All that could fall. The first cause travels down from
    -- what ended, each job taking it from one of its parents.
    with recursive fall (id, cause, wait_for_any) as (
        select d.child, min(coalesce(p.cause, p.id)::text)::uuid, b.wait_for_any
        from jobs p
        cross join lateral (
            select y.child
            from dependencies y
            where y.parent = p.id and y.policy = 'cancel'
            offset 0
        ) d
        cross join lateral (
            select x.wait_for_any from blocked x where x.job_id = d.child offset 0
        ) b
        where p.id = any(closure_of.ended)
        group by d.child, b.wait_for_any
        union
        select x.child, x.cause, x.wait_for_any
        from (
            select distinct on (d.child) d.child, f.cause, b.wait_for_any
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
            order by d.child, f.cause
        ) x
    )
    select
        array_agg(x.id order by x.id),
        array_agg(x.cause order by x.id),
        coalesce(bool_or(x.wait_for_any), false)
    into doomed, causes, has_any
    from (
        select f.id, min(f.cause::text)::uuid as cause, bool_or(f.wait_for_any) as wait_for_any
        from fall f
        group by f.id
    ) x;
    reached := doomed;
    if has_any then
        select s.doomed, s.causes into doomed, causes
        from without_spared(reached) s;
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
    first record := forsaken(without_spared.candidates);
    edges record := edges_among(without_spared.candidates);
    needs int[];
    walk record;
begin
    select
        array_agg(
            case
                when x.cause is not null then 0
                when b.wait_for_any then lifelines_of(x.id)
                else 1
            end
            order by x.place
        ),
        array_agg(x.cause order by x.place)
    into needs, causes
    from (
        select y.id, y.place, max(y.cause::text) over (partition by y.id)::uuid as cause
        from (
            select c.id, c.place, null::uuid as cause
            from unnest(without_spared.candidates) with ordinality c(id, place)
            union all
            select f.id, null, f.cause
            from unnest(first.ids, first.causes) f(id, cause)
        ) y
    ) x
    cross join lateral (
        select w.wait_for_any from blocked w where w.job_id = x.id offset 0
    ) b
    where x.place is not null;
    walk := spread(needs, edges.children, edges.parents);
    select array_agg(c.id order by c.id), array_agg(without_spared.causes[c.origin] order by c.id)
    into doomed, causes
    from unnest(without_spared.candidates, walk.origins) c(id, origin)
    where c.origin is not null;
end $$;
comment on function without_spared is
    'Those of these jobs (sorted ids) that fall indeed: of those that '
    'wait for any parent, only the ones that have none left.';

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
    delete from links l where l.child = any(written);
    if keyed then
        perform free_keys(written);
    end if;
    return written;
end $$;
comment on function cancel_blocked is
    'Cancels blocked jobs (rows held) whose parents ended, with the first cause on each.';

create or replace function holder_of(child uuid, wait_for_any boolean) returns uuid
language sql stable
set search_path from current
return (
    select p.id
    from dependencies d
    join jobs p on p.id = d.parent
    where d.child = holder_of.child
        and d.policy = 'hold'
        and p.state in ('cancelled', 'discarded')
        and (not holder_of.wait_for_any or links_of(d.child) = 0 and (
            select q.id
            from dependencies o
            join jobs q on q.id = o.parent
            where o.child = holder_of.child
                and (q.finished_at is null or q.state = 'completed' or o.policy = 'continue')
            limit 1
        ) is null)
    order by p.finished_at limit 1
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
        and holder_of(j.id, j.wait_for_any) is not null;
end;
comment on function hold_children is 'Marks held children with the parent that holds them.';
