-- UUIDv7 (RFC 9562): time in milliseconds, the place inside the call, then chance.

create or replace function new_ids(how_many int) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    millis bigint := date_part('epoch', clock_timestamp()) * 1000;
    prefix text := lpad(to_hex(millis), 12, '0');
    ids uuid[] := '{}';
begin
    -- A loop: for the few of most calls it costs less than the start of a query.
    for n in 0 .. coalesce(new_ids.how_many, 0) - 1 loop
        -- 28672 is 7000 in hex: the version. Hyphens may stand between any groups of four.
        ids[n + 1] := (prefix || to_hex(28672 + (n & 4095))
            || substr(gen_random_uuid()::text, 19))::uuid;
    end loop;
    return ids;
end $$;
comment on function new_ids is 'Fresh ids, in order inside a call (the first 4,096).';

create or replace function id_at(moment timestamptz) returns uuid
language sql immutable parallel safe
return (
    lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '70008000000000000000'
)::uuid;
comment on function id_at is 'The smallest UUIDv7 of a moment: ids made before it are smaller.';

create or replace function fingerprint_of(
    kind text,
    args jsonb,
    queue text,
    priority int,
    run_at timestamptz,
    max_attempts int,
    timeout interval,
    unique_key text
) returns uuid
language sql stable
set timezone = 'UTC'
begin atomic
    select md5(
        jsonb_build_array(
            kind, args, queue, priority, extract(epoch from run_at), max_attempts,
            extract(epoch from timeout), unique_key
        )::text
    )::uuid;
end;
comment on function fingerprint_of is
    'A digest of what was asked for: a repeated id must bring the same.';

create or replace function with_edges(
    prints uuid[],
    ids uuid[],
    children int[],
    parents int[],
    outside uuid[],
    policies text[],
    wait_for_any boolean[]
) returns uuid[]
language sql immutable parallel safe
return array(
    select case when e.asked is null then g.print else md5(g.print::text || e.asked)::uuid end
    from unnest(with_edges.prints) with ordinality g(print, n)
    left join (
        -- A parent without an id of the caller's is known by its place alone.
        select x.child, string_agg(distinct x.edge, ',' order by x.edge) as asked
        from (
            select y.child,
                concat(
                    coalesce(with_edges.ids[y.parent]::text, y.outside::text, y.parent::text),
                    ' ',
                    y.policy,
                    case when with_edges.wait_for_any[y.child] then ' any' end
                ) as edge
            from unnest(
                with_edges.children, with_edges.parents, with_edges.outside, with_edges.policies
            ) y(child, parent, outside, policy)
        ) x
        group by x.child
    ) e on e.child = g.n
    order by g.n
);
comment on function with_edges is
    'Fingerprints of a call that cover the edges as they were asked for, in any order.';
