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
    wanted text;
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
    elsif check_acquire.metadata is not null
        and json_fault(check_acquire.metadata, limit_of('args_bytes')) is not null
    then
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
    foreach wanted in array check_acquire.queues loop
        if not is_queue_name(wanted) then
            perform check_queue(wanted);
        end if;
    end loop;
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
    took record;
    own_token uuid := gen_random_uuid();
    suspects uuid[];
    left_out uuid[];
    began constant timestamptz := clock_timestamp();
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
        where w.id = acquire.worker and is_current(w, acquire.lease, acquire.queues)
    ) then
        perform renew(
            acquire.worker, acquire.lease, null, null, acquire.name, acquire.capacity,
            acquire.queues, acquire.kinds, acquire.metadata
        );
    end if;
    for round in 1 .. limit_of('acquire_jobs') loop
        took := pick(acquire.queues, acquire.kinds, acquire.max_jobs);
        if took.ids is null then
            return;
        end if;
        suspects := grant_jobs(
            took.ids, took.ready_ats, null, array[acquire.worker], array[own_token],
            array[acquire.call_number]
        );
        exit when suspects is null;
        left_out := quarantine(suspects);
        exit when cardinality(left_out) < cardinality(took.ids);
        -- What was quarantined stays so, and the next call goes on: a statement has its time-out.
        if clock_timestamp() > began + interval '1 second' then
            return;
        end if;
    end loop;
    return query
        select
            j.id, j.attempt, own_token, j.queue, j.kind, j.priority::int, j.args, j.timeout,
            j.run_at, j.created_at
        from unnest(took.ids) with ordinality g(id, n)
        join jobs j on j.id = g.id
        where left_out is null or g.id <> all(left_out)
        order by g.n;
end $$;
comment on function acquire is
    'Takes ready jobs for a worker, most urgent first, and opens an execution of each. The worker '
    'is one incarnation of one process: a fresh UUID at every start.';
