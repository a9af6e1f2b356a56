-- What the edges of a call mean.

create or replace function meant_edges(
    ids uuid[],
    owners uuid[],
    children int[],
    parents int[],
    outside uuid[],
    policies text[]
) returns table (child int, meant uuid, place int, policy text, k bigint)
language sql immutable
set search_path from current
begin atomic
    -- The job meant: a ref may stand for one that exists, or for another of this call. A sort by id
    -- finds the latter, where a join of two arrays would be a loop in a loop.
    select y.child, y.id, y.here, y.policy, y.k
    from (
        select x.child, x.id, x.policy, x.k, max(x.place) over (partition by x.id) as here
        from (
            select
                g.child,
                coalesce(
                    meant_edges.owners[g.parent], meant_edges.ids[g.parent], g.outside
                ) as id,
                g.policy,
                g.k,
                null::int as place
            from unnest(
                meant_edges.children, meant_edges.parents, meant_edges.outside,
                meant_edges.policies
            ) with ordinality g(child, parent, outside, policy, k)
            union all
            select null, i.id, null, null, i.place::int
            from unnest(meant_edges.ids) with ordinality i(id, place)
            where meant_edges.owners[i.place] is null
        ) x
    ) y
    where y.k is not null;
end;
comment on function meant_edges is
    'The edges of a call (owners may be null), each with the job it '
    'means and the place of that job, if this call creates it.';

create or replace function plan_edges(
    ids uuid[],
    owners uuid[],
    inout priorities int[],
    inout children int[],
    inout parents int[],
    inout outside uuid[],
    inout policies text[],
    inout refs text[],
    wait_for_any boolean[],
    out is_done boolean[],
    out remaining int[],
    out has_children boolean[]
)
language plpgsql volatile
set search_path from current
as $$
declare
    inherited int[] := array_fill(null::int, array[cardinality(ids)]);
    e record;
begin
    -- Edges of jobs that this call does not create are
    -- ignored; parents that it does not create are outside.
    select
        array_agg(x.child order by x.k),
        array_agg(x.parent order by x.k),
        array_agg(x.outside order by x.k),
        array_agg(x.policy order by x.k),
        array_agg(plan_edges.refs[x.k] order by x.k)
    into children, parents, outside, policies, refs
    from (
        select distinct on (g.child, y.parent, y.outside)
            g.child, y.parent, y.outside, g.policy, g.k
        from meant_edges(
            plan_edges.ids, owners, plan_edges.children, plan_edges.parents, plan_edges.outside,
            plan_edges.policies
        ) g
        cross join lateral (
            select g.place as parent, case when g.place is null then g.meant end as outside
        ) y
        where owners[g.child] is null
        order by g.child, y.parent, y.outside, g.k
    ) x;
    remaining := array_fill(0, array[cardinality(ids)]);
    has_children := array_fill(false, array[cardinality(ids)]);
    for e in
        select g.child, g.parent, g.outside, j.id as found, j.state, j.priority
        from unnest(children, parents, outside) with ordinality g(child, parent, outside, k)
        left join jobs j on j.id = g.outside
        order by g.k
    loop
        if e.parent is not null then
            remaining[e.child] := remaining[e.child] + 1;
            has_children[e.parent] := true;
        elsif e.found is null then
            perform refuse(
                'RL422', format('depends_on of job %s names no job', e.child), e.outside::text,
                'Enqueue the parent first, or leave it out if it was pruned.'
            );
        else
            inherited[e.child] := least(inherited[e.child], e.priority);
        end if;
    end loop;
    -- What has completed stays so: the edge is for its result, and prune keeps it from here on.
    is_done := array(
        select j.id is not null
        from unnest(outside) with ordinality g(outside, k)
        left join lateral (
            select x.id
            from jobs x
            where x.id = g.outside and x.state = 'completed'
            for key share skip locked
        ) j on true
        order by g.k
    );
    priorities := inherit_priorities(
        coalesce(priorities, array_fill(null::int, array[cardinality(ids)])),
        coalesce(
            (
                select array_agg(g.child order by g.k)
                from unnest(children, parents) with ordinality g(child, parent, k)
                where g.parent is not null
            ),
            '{}'
        ),
        coalesce(
            (
                select array_agg(g.parent order by g.k)
                from unnest(parents) with ordinality g(parent, k)
                where g.parent is not null
            ),
            '{}'
        ),
        inherited
    );
    for e in
        select
            g.child,
            bool_or(g.outside is not null and not g.is_done)::int as links,
            bool_or(g.is_done) as is_satisfied
        from unnest(children, outside, is_done) g(child, outside, is_done)
        group by g.child
    loop
        remaining[e.child] := remaining[e.child] + e.links;
        if e.is_satisfied and plan_edges.wait_for_any[e.child] then
            remaining[e.child] := 0;
        end if;
    end loop;
end $$;
comment on function plan_edges is
    'What the edges of a call mean: what each job waits for, who has children, which parents have '
    'completed and which are to be linked, and the inherited priorities.';
