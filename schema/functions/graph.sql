-- Edges inside a call, as places (1 is the first job): no
-- cycles, what each child waits for, what it inherits.

create or replace function order_graph(jobs int, children int[], parents int[]) returns int[]
language plpgsql immutable
set search_path from current
as $$
declare
    waits int[] := array_fill(0, array[order_graph.jobs]);
    first_edge int[] := array_fill(0, array[order_graph.jobs]);
    next_edge int[] := array_fill(0, array[cardinality(order_graph.parents)]);
    sorted int[] := '{}';
    here int;
    e int;
    i int := 0;
    last int := 0;
begin
    for k in 1 .. cardinality(order_graph.parents) loop
        waits[order_graph.children[k]] := waits[order_graph.children[k]] + 1;
        next_edge[k] := first_edge[order_graph.parents[k]];
        first_edge[order_graph.parents[k]] := k;
    end loop;
    for k in 1 .. order_graph.jobs loop
        if waits[k] = 0 then
            last := last + 1;
            sorted[last] := k;
        end if;
    end loop;
    while i < last loop
        i := i + 1;
        here := sorted[i];
        e := first_edge[here];
        while e > 0 loop
            waits[order_graph.children[e]] := waits[order_graph.children[e]] - 1;
            if waits[order_graph.children[e]] = 0 then
                last := last + 1;
                sorted[last] := order_graph.children[e];
            end if;
            e := next_edge[e];
        end loop;
    end loop;
    if last < order_graph.jobs then
        here := (
            select min(k) from generate_series(1, order_graph.jobs) k where waits[k] > 0
        );
        perform refuse(
            'RL422', format('depends_on of job %s is part of a cycle', here),
            format('%s jobs wait for one another', order_graph.jobs - last),
            'Take one of the edges between them away.'
        );
    end if;
    return sorted;
end $$;
comment on function order_graph is
    'The jobs of a call, parents before children (Kahn, 1962). Raises RL422 when there is a cycle.';

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
