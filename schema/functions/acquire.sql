-- Acquire: worker upsert, pick, job update, execution insert, one transaction.
-- Lock order: worker -> ready rows (skip locked) -> job rows by id.

create or replace function check_acquire(
    worker uuid,
    queues text[],
    max_jobs int,
    lease interval,
    name text,
    capacity int,
    metadata jsonb
) returns void
language plpgsql stable
set search_path from current
as $$
declare
    wrong text;
begin
    perform need_read_committed('acquire');
    if check_acquire.worker is null then
        perform refuse(
            'RL422', 'worker is null', null,
            'Make a UUID when the process starts and use it for all of its calls.'
        );
    elsif check_acquire.max_jobs is null
        or check_acquire.max_jobs not between 1 and limit_of('acquire_jobs')
    then
        perform refuse(
            'RL422', 'max_jobs is not valid', check_acquire.max_jobs::text,
            format('Use 1 to %s.', limit_of('acquire_jobs'))
        );
    elsif coalesce(cardinality(check_acquire.queues), 0) = 0 then
        perform refuse(
            'RL422', 'queues is empty', check_acquire.queues::text, 'Name at least one queue.'
        );
    elsif length(check_acquire.name) not between 1 and limit_of('name_length') then
        perform refuse(
            'RL422', 'name is not valid', check_acquire.name,
            format('Use 1 to %s characters.', limit_of('name_length'))
        );
    elsif check_acquire.capacity < 1 then
        perform refuse(
            'RL422', 'capacity is not valid', check_acquire.capacity::text,
            'Use 1 or more, or null.'
        );
    elsif json_fault(check_acquire.metadata, limit_of('args_bytes')) is not null then
        perform refuse(
            case json_fault(check_acquire.metadata, limit_of('args_bytes'))
                when 'size' then 'RL413'
                else 'RL422'
            end,
            'metadata is too large or too deep',
            format('%s bytes', pg_column_size(check_acquire.metadata)),
            format('Keep it under %s bytes as text.', limit_of('args_bytes'))
        );
    end if;
    perform check_lease(check_acquire.lease);
    perform check_count(
        'acquire', 'queues', cardinality(check_acquire.queues), limit_of('acquire_queues')
    );
    select u.queue into wrong
    from unnest(check_acquire.queues) u(queue)
    where not is_queue_name(u.queue)
    limit 1;
    if found then
        perform check_queue(wrong);
    end if;
end $$;
comment on function check_acquire is
    'Raises RL422 or RL413 for arguments of acquire that are not valid.';

create or replace function check_kinds(kinds text[]) returns void
language plpgsql stable
set search_path from current
as $$
declare
    wrong record;
begin
    perform check_count(
        'acquire', 'kinds', cardinality(check_kinds.kinds), limit_of('acquire_kinds')
    );
    select g.kind, g.n into wrong
    from unnest(check_kinds.kinds) with ordinality g(kind, n)
    where g.kind is null or length(g.kind) not between 1 and limit_of('name_length')
    order by g.n limit 1;
    if found then
        perform refuse(
            'RL422', format('kind %s of kinds is not valid', wrong.n), wrong.kind,
            format('Use 1 to %s characters, or null kinds for all.', limit_of('name_length'))
        );
    end if;
end $$;
comment on function check_kinds is 'Raises RL422 or RL413 for kinds that are not valid.';

create or replace function acquire(
    worker uuid,
    queues text[],
    max_jobs int default 1,
    lease interval default '30 seconds',
    kinds text[] default null,
    name text default null,
    capacity int default null,
    metadata jsonb default null,
    call_number bigint default null
) returns table (
    job_id uuid,
    attempt int,
    token uuid,
    queue text,
    kind text,
    priority int,
    args jsonb,
    timeout interval,
    run_at timestamptz,
    created_at timestamptz
)
language plpgsql volatile security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    lane record;
    took record;
    own_token uuid := gen_random_uuid();
    clock timestamptz;
    picked uuid[];
    ready_ats timestamptz[];
    sorted uuid[];
    attempts int[];
    expires timestamptz;
    for_age int;
    room bigint := limit_of('acquire_bytes');
begin
    perform check_acquire(
        acquire.worker, acquire.queues, acquire.max_jobs, acquire.lease, acquire.name,
        acquire.capacity, acquire.metadata
    );
    if acquire.kinds is not null then
        perform check_kinds(acquire.kinds);
    end if;
    if not exists (
        select from workers w
        where w.id = acquire.worker
            and w.lease_ends_at > clock_timestamp() + acquire.lease * 2 / 3
    ) then
        perform renew(
            acquire.worker, acquire.lease, null, null, acquire.name, acquire.capacity,
            acquire.queues, acquire.kinds, acquire.metadata
        );
    end if;
    lane := lanes(acquire.queues, acquire.kinds);
    if lane.lane_queues is null then
        return;
    end if;
    -- Age buys a share, not the whole.
    for_age := floor(acquire.max_jobs * lane.share + random());
    if for_age > 0
        and (lane.lane_queues, lane.lane_priorities)
            is distinct from (lane.aged_queues, lane.aged_priorities)
    then
        if lane.least_share = lane.share then
            took := take(
                lane.aged_queues, lane.aged_priorities, lane.aged_starts, lane.aged_ends,
                acquire.kinds, for_age, room, true
            );
        else
            took := take_by_share(
                lane.lane_queues, lane.lane_priorities, lane.aged_queues, lane.aged_priorities,
                lane.aged_starts, lane.aged_ends, lane.aged_shares, acquire.kinds,
                acquire.max_jobs, room
            );
        end if;
        picked := took.ids;
        ready_ats := took.ready_ats;
        room := room - took.bytes;
    end if;
    if coalesce(cardinality(picked), 0) < acquire.max_jobs and room > 0 then
        took := take(
            lane.lane_queues,
            lane.lane_priorities,
            lane.lane_starts,
            lane.lane_ends,
            acquire.kinds,
            acquire.max_jobs - coalesce(cardinality(picked), 0),
            room,
            picked is null
        );
        picked := picked || took.ids;
        ready_ats := ready_ats || took.ready_ats;
    end if;
    if picked is null then
        return;
    end if;
    select array_agg(u.id order by u.id), array_agg(u.ready_at order by u.id)
    into sorted, ready_ats
    from unnest(picked, ready_ats) u(id, ready_at);
    clock := clock_timestamp();
    with taken as (
        update jobs j set state = 'running', seq = null, attempt = j.attempt + 1
        where j.id = any(sorted)
        returning j.id, j.attempt, j.timeout
    )
    select array_agg(t.attempt order by t.id), min(clock + t.timeout) into attempts, expires
    from taken t;
    insert into executions (job_id, attempt, token, worker, ready_at, started_at)
    select g.id, g.attempt, own_token, acquire.worker, g.ready_at, clock
    from unnest(sorted, attempts, ready_ats) g(id, attempt, ready_at);
    insert into grants (worker, call_number, expires_at, job_ids, attempts)
    values (acquire.worker, acquire.call_number, expires, sorted, attempts);
    return query
        select
            j.id, j.attempt, own_token, j.queue, j.kind, j.priority::int, j.args, j.timeout,
            j.run_at, j.created_at
        from unnest(picked) with ordinality g(id, n)
        join jobs j on j.id = g.id
        order by g.n;
end $$;
comment on function acquire is
    'Takes ready jobs for a worker, most urgent first, and opens an execution of each. The worker '
    'is one incarnation of one process: a fresh UUID at every start.';
