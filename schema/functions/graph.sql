-- Edges inside a call, as places (1 is the first job): no
-- cycles, what each child waits for, what it inherits.

create or replace function spread(
    needs int[],
    children int[],
    parents int[],
    out sorted int[],
    out origins int[]
)
language plpgsql immutable
set search_path from current
as $$
declare
    left_over int[] := spread.needs;
    first_edge int[] := array_fill(0, array[cardinality(spread.needs)]);
    next_edge int[] := array_fill(0, array[coalesce(cardinality(spread.parents), 0)]);
    here int;
    child int;
    e int;
    i int := 0;
    last int := 0;
begin
    sorted := '{}';
    origins := array_fill(null::int, array[cardinality(spread.needs)]);
    for k in 1 .. coalesce(cardinality(spread.parents), 0) loop
        next_edge[k] := first_edge[spread.parents[k]];
        first_edge[spread.parents[k]] := k;
    end loop;
    for k in 1 .. cardinality(left_over) loop
        if left_over[k] = 0 then
            last := last + 1;
            sorted[last] := k;
            origins[k] := k;
        end if;
    end loop;
    while i < last loop
        i := i + 1;
        here := sorted[i];
        e := first_edge[here];
        while e > 0 loop
            child := spread.children[e];
            left_over[child] := left_over[child] - 1;
            if left_over[child] = 0 then
                last := last + 1;
                sorted[last] := child;
                origins[child] := origins[here];
            end if;
            e := next_edge[e];
        end loop;
    end loop;
end $$;
comment on function spread is
    'Walks a graph from the jobs that need nothing: a job is reached once as many of its parents '
    'are as it needs (Kahn, 1962; null: never). Gives the reached jobs, parents first, and for '
    'each job the one at which the walk to it began, null if it was not reached.';

create or replace function cycle_of(reached int[], children int[], parents int[]) returns int[]
language plpgsql immutable
set search_path from current
as $$
declare
    parent_of int[];
    path int[] := '{}';
    at int[];
    here int;
    first int;
begin
    -- What waits in vain has a parent that does, so that a walk up comes round.
    for k in 1 .. cardinality(cycle_of.parents) loop
        if reached[cycle_of.children[k]] is null and reached[cycle_of.parents[k]] is null then
            parent_of[cycle_of.children[k]] := cycle_of.parents[k];
            here := coalesce(here, cycle_of.children[k]);
        end if;
    end loop;
    while at[here] is null loop
        path := path || here;
        at[here] := cardinality(path);
        here := parent_of[here];
    end loop;
    path := path[at[here]:];
    first := array_position(path, (select min(p.job) from unnest(path) p(job)));
    return path[first:] || path[:first - 1] || path[first];
end $$;
comment on function cycle_of is
    'One cycle among jobs that wait for one another, each followed by '
    'a parent of its, from the first in the call and back to it.';

create or replace function order_graph(jobs int, children int[], parents int[]) returns int[]
language plpgsql immutable
set search_path from current
as $$
declare
    waits int[] := array_fill(0, array[order_graph.jobs]);
    walk record;
    path int[];
begin
    for k in 1 .. cardinality(order_graph.parents) loop
        waits[order_graph.children[k]] := waits[order_graph.children[k]] + 1;
    end loop;
    walk := spread(waits, order_graph.children, order_graph.parents);
    if cardinality(walk.sorted) < order_graph.jobs then
        path := cycle_of(walk.origins, order_graph.children, order_graph.parents);
        perform refuse(
            'RL422', format('depends_on of job %s is part of a cycle', path[1]),
            format(
                'each waits for the next: %s%s', array_to_string(path[:20], ' -> '),
                case when cardinality(path) > 20 then
                    format(' -> ... (%s jobs)', cardinality(path) - 1)
                else '' end
            ),
            'Take one of these edges away.'
        );
    end if;
    return walk.sorted;
end $$;
comment on function order_graph is
    'The jobs of a call, parents before children. Raises RL422 when there is a cycle.';

create or replace function inherit_priorities(
    priorities int[],
    children int[],
    parents int[],
    given int[]
) returns int[]
language plpgsql immutable
set search_path from current
as $$
declare
    -- given: the most urgent priority among parents outside the call, by child; null for none.
    result int[] := inherit_priorities.priorities;
    inherited int[] := inherit_priorities.given;
    spot int[];
    by_child int[];
    child int;
    parent int;
    k int;
begin
    spot := order_graph(
        cardinality(result), inherit_priorities.children, inherit_priorities.parents
    );
    -- Edges in the order of their parents: a parent is final before it is read.
    by_child := array(
        select x.k
        from unnest(spot) with ordinality s(job, at)
        join unnest(inherit_priorities.parents) with ordinality x(parent, k) on x.parent = s.job
        order by s.at, x.k
    );
    foreach k in array by_child loop
        child := inherit_priorities.children[k];
        parent := inherit_priorities.parents[k];
        if inherit_priorities.priorities[child] is null then
            inherited[child] := least(
                inherited[child], coalesce(result[parent], inherited[parent], default_priority())
            );
        end if;
    end loop;
    for i in 1 .. cardinality(result) loop
        result[i] := coalesce(result[i], inherited[i], default_priority());
    end loop;
    return result;
end $$;
comment on function inherit_priorities is
    'Priorities of the jobs of a call: their own, else their most urgent parent''s, else 5.';
