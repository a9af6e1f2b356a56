-- Which ready jobs an acquire takes. Lanes are walked
-- in an order; inside a lane it is first in, first out.

create or replace function lanes(
    queues text[],
    out lane_queues text[],
    out lane_priorities smallint[],
    out lane_starts bigint[],
    out aged_queues text[],
    out aged_priorities smallint[],
    out aged_starts bigint[],
    out aged_ranks float8[],
    out aged_shares real[],
    out shares real[]
)
language plpgsql volatile
set search_path from current
as $$
begin
    -- Age counts from greatest(ready_at, resumed_at); a walk starts at the head.
    select
        array_agg(h.queue order by h.priority, h.ready_at),
        array_agg(h.priority order by h.priority, h.ready_at),
        array_agg(h.seq order by h.priority, h.ready_at),
        array_agg(h.queue order by h.effective, h.ready_at),
        array_agg(h.priority order by h.effective, h.ready_at),
        array_agg(h.seq order by h.effective, h.ready_at),
        array_agg(h.effective order by h.effective, h.ready_at),
        array_agg(h.aging_share order by h.effective, h.ready_at),
        array_agg(distinct h.aging_share order by h.aging_share)
            filter (where h.aging_share is not null)
    into
        lane_queues, lane_priorities, lane_starts, aged_queues, aged_priorities, aged_starts,
        aged_ranks, aged_shares, shares
    from (
        select
            q.queue,
            p.priority,
            r.seq,
            r.ready_at,
            case when q.aging_interval is not null then q.aging_share end as aging_share,
            p.priority - case
                when q.aging_interval is null then 0
                -- As float8: the numeric of extract() costs several times as much.
                else floor(
                    date_part('epoch', clock_timestamp() - greatest(r.ready_at, q.resumed_at))
                    / date_part('epoch', q.aging_interval)
                )
            end as effective
        from (
            select
                a.queue,
                s.resumed_at,
                coalesce(s.aging_share, default_aging_share()) as aging_share,
                case
                    when s.name is null then default_of('aging_interval')
                    when s.aging_share > 0 then s.aging_interval
                end as aging_interval
            from (select distinct u.queue from unnest(lanes.queues) u(queue)) a
            left join queues s on s.name = a.queue
            where s.paused_at is null
        ) q
        -- Below its floor a lane holds nothing but dead rows.
        left join lateral (
            select x.floors
            from lane_floors x
            where x.queue = q.queue
            order by x.id desc limit 1
        ) f on true
        cross join unnest(
            '{0,1,2,3,4,5,6,7,8,9}'::smallint[], coalesce(f.floors, '{0,0,0,0,0,0,0,0,0,0}')
        ) p(priority, lane_floor)
        cross join lateral (
            select x.seq, x.ready_at
            from ready x
            where x.queue = q.queue and x.priority = p.priority and x.seq >= p.lane_floor
            order by x.seq limit 1
        ) r
    ) h;
end $$;
comment on function lanes is
    'The lanes of these queues that hold jobs, in '
    'nominal order and in the order that age gives them.';

create or replace function take(
    lane_queues text[],
    lane_priorities smallint[],
    lane_starts bigint[],
    kinds text[],
    max_jobs int,
    max_bytes bigint,
    first boolean,
    out ids uuid[],
    out ready_ats timestamptz[],
    out bytes bigint
)
language plpgsql volatile
set search_path from current
as $$
begin
    -- Found first and locked one by one: kinds that this worker cannot run are
    -- not locked, and of each lane only so many rows are looked at.
    with picked as materialized (
        select x.tid, x.job_id, x.ready_at, x.args_bytes, x.n
        from (
            select
                r.tid,
                r.job_id,
                r.ready_at,
                r.args_bytes,
                sum(r.args_bytes) over (rows unbounded preceding) as total,
                row_number() over () as n
            from (
                select f.tid, r.*
                from unnest(
                    take.lane_queues, take.lane_priorities, take.lane_starts
                ) l(queue, priority, walk_start)
                cross join lateral (
                    select y.ctid as tid, y.kind
                    from ready y
                    where y.queue = l.queue and y.priority = l.priority and y.seq >= l.walk_start
                    order by y.seq
                    limit case when take.kinds is not null then limit_of('acquire_walk') end
                ) f
                cross join lateral (
                    select z.job_id, z.ready_at, z.args_bytes
                    from ready z
                    where z.ctid = f.tid
                    for update skip locked
                ) r
                where take.kinds is null or f.kind = any(take.kinds)
                limit take.max_jobs
            ) r
        ) x
        where x.total <= take.max_bytes or take.first and x.n = 1
    ),
    gone as (
        delete from ready r where r.ctid = any(array(select p.tid from picked p))
    )
    select
        array_agg(p.job_id order by p.n),
        array_agg(p.ready_at order by p.n),
        coalesce(sum(p.args_bytes), 0)
    into ids, ready_ats, bytes
    from picked p;
end $$;
comment on function take is
    'Takes ready jobs out of lanes in their order, at most so many and at most so many bytes of '
    'args; the first of a reply whatever its size.';

create or replace function lanes_of_band(
    aged_queues text[],
    aged_priorities smallint[],
    aged_starts bigint[],
    aged_ranks float8[],
    aged_shares real[],
    share real,
    out queues text[],
    out priorities smallint[],
    out starts bigint[]
)
language plpgsql volatile
set search_path from current
as $$
begin
    select
        array_agg(a.queue order by a.rank, a.n),
        array_agg(a.priority order by a.rank, a.n),
        array_agg(a.walk_start order by a.rank, a.n)
    into queues, priorities, starts
    from (
        select
            x.queue,
            x.priority,
            x.walk_start,
            x.n,
            case when x.share >= lanes_of_band.share then x.rank else x.priority end as rank
        from unnest(
            lanes_of_band.aged_queues, lanes_of_band.aged_priorities, lanes_of_band.aged_starts,
            lanes_of_band.aged_ranks, lanes_of_band.aged_shares
        ) with ordinality x(queue, priority, walk_start, rank, share, n)
    ) a;
end $$;
comment on function lanes_of_band is
    'The order of the lanes where only queues with this share or a greater one age.';

create or replace function pick(
    queues text[], kinds text[], max_jobs int, out ids uuid[], out ready_ats timestamptz[]
)
language plpgsql volatile
set search_path from current
as $$
declare
    lane record;
    took record;
    walk_queues text[];
    walk_priorities smallint[];
    walk_starts bigint[];
    bands int := 1;
    claims int[];
    claimed int := 0;
    draw float8 := random();
    upto int;
    most_bytes bigint;
    bytes bigint := 0;
    room constant bigint := limit_of('acquire_bytes');
begin
    lane := lanes(pick.queues);
    if lane.lane_queues is null then
        return;
    end if;
    -- Age buys a share, not the whole. The slots are cut at the shares into bands: in those below
    -- its queue's share a lane stands where age puts it, in those above at its priority.
    if (lane.lane_queues, lane.lane_priorities)
        is distinct from (lane.aged_queues, lane.aged_priorities)
    then
        bands := cardinality(lane.shares) + 1;
    end if;
    for round in 1..2 loop
        for n in 1..bands loop
            most_bytes := room;
            if round = 1 then
                upto := pick.max_jobs;
                if n < bands then
                    upto := floor(pick.max_jobs * lane.shares[n] + draw);
                    -- Bytes are cut like slots, or large args would claim more than a share. What
                    -- a band has to leave for that it takes in the second round, if there is room.
                    most_bytes := room * upto / pick.max_jobs;
                end if;
                claims[n] := upto - claimed;
                claimed := upto;
            end if;
            continue when claims[n] = 0 or bytes >= most_bytes;
            if n = bands then
                walk_queues := lane.lane_queues;
                walk_priorities := lane.lane_priorities;
                walk_starts := lane.lane_starts;
            elsif n = 1 then
                walk_queues := lane.aged_queues;
                walk_priorities := lane.aged_priorities;
                walk_starts := lane.aged_starts;
            else
                select b.queues, b.priorities, b.starts
                into walk_queues, walk_priorities, walk_starts
                from lanes_of_band(
                    lane.aged_queues, lane.aged_priorities, lane.aged_starts, lane.aged_ranks,
                    lane.aged_shares, lane.shares[n]
                ) b;
            end if;
            took := take(
                walk_queues, walk_priorities, walk_starts, pick.kinds, claims[n],
                most_bytes - bytes, ids is null
            );
            ids := ids || took.ids;
            ready_ats := ready_ats || took.ready_ats;
            bytes := bytes + took.bytes;
            claims[n] := claims[n] - coalesce(cardinality(took.ids), 0);
            -- Short, though any job would have had room: the lanes are empty.
            if claims[n] > 0 and most_bytes - bytes >= limit_of('args_bytes') then
                return;
            end if;
        end loop;
        exit when room - bytes < limit_of('args_bytes');
    end loop;
end $$;
comment on function pick is
    'Takes ready jobs out of their lanes, most urgent first, age having its share.';
