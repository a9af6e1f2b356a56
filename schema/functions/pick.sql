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
    out aged_shares real[],
    out least_share real,
    out share real
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
        array_agg(h.aging_share order by h.effective, h.ready_at),
        min(h.aging_share),
        coalesce(max(h.aging_share), 0)
    into
        lane_queues, lane_priorities, lane_starts, aged_queues, aged_priorities, aged_starts,
        aged_shares, least_share, share
    from (
        select
            q.queue,
            p.priority,
            r.seq,
            r.ready_at,
            q.aging_share,
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
                    else s.aging_interval
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

create or replace function take_by_share(
    lane_queues text[],
    lane_priorities smallint[],
    aged_queues text[],
    aged_priorities smallint[],
    aged_starts bigint[],
    aged_shares real[],
    kinds text[],
    max_jobs int,
    max_bytes bigint,
    out ids uuid[],
    out ready_ats timestamptz[],
    out bytes bigint
)
language plpgsql volatile
set search_path from current
as $$
declare
    tier record;
    took record;
    for_age int;
begin
    bytes := 0;
    -- A tier is the lanes that age moved forward, of queues with one
    -- share. It claims that share of what the tiers above have left.
    for tier in
        select
            l.share,
            array_agg(l.queue order by l.aged) as queues,
            array_agg(l.priority order by l.aged) as priorities,
            array_agg(l.walk_start order by l.aged) as starts
        from (
            select
                x.queue,
                x.priority,
                max(x.walk_start) as walk_start,
                max(x.share) as share,
                max(x.aged) as aged
            from (
                select a.*, null as nominal
                from unnest(
                    take_by_share.aged_queues, take_by_share.aged_priorities,
                    take_by_share.aged_starts, take_by_share.aged_shares
                ) with ordinality a(queue, priority, walk_start, share, aged)
                union all
                select b.queue, b.priority, null, null, null, b.n
                from unnest(
                    take_by_share.lane_queues, take_by_share.lane_priorities
                ) with ordinality b(queue, priority, n)
            ) x
            group by x.queue, x.priority
            having max(x.aged) < max(x.nominal)
        ) l
        group by l.share
        order by l.share desc
    loop
        for_age := floor(
            (take_by_share.max_jobs - coalesce(cardinality(ids), 0)) * tier.share + random()
        );
        exit when bytes >= take_by_share.max_bytes;
        continue when for_age = 0;
        took := take(
            tier.queues, tier.priorities, tier.starts, take_by_share.kinds, for_age,
            take_by_share.max_bytes - bytes, ids is null
        );
        ids := ids || took.ids;
        ready_ats := ready_ats || took.ready_ats;
        bytes := bytes + took.bytes;
    end loop;
end $$;
comment on function take_by_share is
    'What age claims where queues of one acquire have '
    'different shares: each queue''s own, and no more.';

create or replace function pick(
    queues text[], kinds text[], max_jobs int, out ids uuid[], out ready_ats timestamptz[]
)
language plpgsql volatile
set search_path from current
as $$
declare
    lane record;
    took record;
    for_age int;
    room bigint := limit_of('acquire_bytes');
begin
    lane := lanes(pick.queues);
    if lane.lane_queues is null then
        return;
    end if;
    -- Age buys a share, not the whole.
    for_age := floor(pick.max_jobs * lane.share + random());
    if for_age > 0
        and (lane.lane_queues, lane.lane_priorities)
            is distinct from (lane.aged_queues, lane.aged_priorities)
    then
        if lane.least_share = lane.share then
            took := take(
                lane.aged_queues, lane.aged_priorities, lane.aged_starts, pick.kinds, for_age,
                room, true
            );
        else
            took := take_by_share(
                lane.lane_queues, lane.lane_priorities, lane.aged_queues, lane.aged_priorities,
                lane.aged_starts, lane.aged_shares, pick.kinds, pick.max_jobs, room
            );
        end if;
        ids := took.ids;
        ready_ats := took.ready_ats;
        room := room - took.bytes;
    end if;
    if coalesce(cardinality(ids), 0) < pick.max_jobs and room > 0 then
        took := take(
            lane.lane_queues,
            lane.lane_priorities,
            lane.lane_starts,
            pick.kinds,
            pick.max_jobs - coalesce(cardinality(ids), 0),
            room,
            ids is null
        );
        ids := ids || took.ids;
        ready_ats := ready_ats || took.ready_ats;
    end if;
end $$;
comment on function pick is
    'Takes ready jobs out of their lanes, most urgent first, age having its share.';
