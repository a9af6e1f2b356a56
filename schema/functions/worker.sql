-- A worker's own row, and what happens to what it held when its lease has ended.
-- Lock order: worker -> executions by (job, attempt) -> job rows -> the cascade.

create or replace function is_current(known workers, lease interval, queues text[]) returns boolean
language sql volatile
return (is_current.known).lease_ends_at > clock_timestamp() + is_current.lease * 2 / 3
    and (is_current.known).queues @> is_current.queues;
comment on function is_current is
    'Whether an acquire need not renew: two thirds of the lease are left, and the row has the '
    'queues. To be inlined.';

create or replace function renew(
    worker uuid,
    lease interval,
    kept_ids uuid[],
    kept_attempts int[],
    name text default null,
    capacity int default null,
    queues text[] default null,
    kinds text[] default null,
    metadata jsonb default null
) returns void
language plpgsql volatile
set search_path from current
as $$
declare
    clock timestamptz;
    ends timestamptz;
begin
    loop
        select w.lease_ends_at into ends
        from workers w
        where w.id = renew.worker
        for update;
        exit when found;
        -- Who makes the row knows that there was none. Whoever makes it meanwhile has acquired with
        -- it, and nothing of that is lost.
        insert into workers (id, started_at, heartbeat_at, lease_ends_at, queues)
        values (
            renew.worker, clock_timestamp(), clock_timestamp(), clock_timestamp() + renew.lease,
            '{}'
        )
        on conflict on constraint workers_pkey do nothing;
        exit when found;
    end loop;
    clock := clock_timestamp();
    -- Not to revive what rescue has not seen yet: what it held under the old lease is lost first.
    if ends is null or ends < clock then
        perform lose(renew.worker, kept_ids, kept_attempts, null, true);
    end if;
    insert into workers as w (
        id, name, capacity, started_at, heartbeat_at, lease_ends_at, queues, kinds, metadata
    )
    values (
        renew.worker, renew.name, renew.capacity, clock, clock, clock + renew.lease,
        coalesce(renew.queues, '{}'), renew.kinds, renew.metadata
    )
    on conflict on constraint workers_pkey do update set
        status = 'live',
        heartbeat_at = excluded.heartbeat_at,
        -- An acquire for another queue does not shorten what an earlier one was given, unless a
        -- clock gave it that has been set back since.
        lease_ends_at = case
            when renew.queues is null or w.heartbeat_at > clock + interval '1 second'
                then excluded.lease_ends_at
            else greatest(excluded.lease_ends_at, w.lease_ends_at)
        end,
        name = coalesce(excluded.name, w.name),
        capacity = coalesce(excluded.capacity, w.capacity),
        -- A worker may ask for its queues in separate calls, and each keeps its floors.
        queues = array(
            select u.queue
            from unnest(excluded.queues || w.queues) with ordinality u(queue, n)
            group by u.queue
            order by min(u.n) limit limit_of('acquire_queues')
        ),
        kinds = case when renew.queues is null then w.kinds else excluded.kinds end,
        metadata = coalesce(excluded.metadata, w.metadata);
    -- Here too, for workers that never send a heartbeat.
    perform tidy_grants(renew.worker);
end $$;
comment on function renew is
    'Extends a worker''s lease, making its row if need be; what it '
    'held under an ended lease and does not list is lost first.';

create or replace function unlisted(
    worker uuid,
    seen_call bigint,
    job_ids uuid[],
    attempts int[],
    out ids uuid[],
    out attempts_of_ids int[]
)
language plpgsql stable
set search_path from current
as $$
begin
    select
        array_agg(e.job_id order by e.job_id, e.attempt),
        array_agg(e.attempt order by e.job_id, e.attempt)
    into ids, attempts_of_ids
    from grants g
    cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
    join executions e on e.job_id = u.job_id and e.attempt = u.attempt
    where g.worker = unlisted.worker
        and (unlisted.seen_call is null or g.call_number <= unlisted.seen_call)
        and e.finished_at is null;
    if ids is null or coalesce(cardinality(unlisted.job_ids), 0) = 0 then
        return;
    end if;
    -- EXCEPT hashes whatever the caller's plan settings are; a join would compare all with all.
    select
        array_agg(x.job_id order by x.job_id, x.attempt),
        array_agg(x.attempt order by x.job_id, x.attempt)
    into ids, attempts_of_ids
    from (
        select u.job_id, u.attempt from unnest(ids, attempts_of_ids) u(job_id, attempt)
        except
        select k.job_id, k.attempt
        from unnest(unlisted.job_ids, unlisted.attempts) k(job_id, attempt)
    ) x;
end $$;
comment on function unlisted is
    'A worker''s open executions, granted by calls up to seen_call (null for '
    'all), but for those that it lists; nulls when there is none.';

create or replace function lose(
    worker uuid,
    kept_ids uuid[],
    kept_attempts int[],
    max_rows int,
    patient boolean
) returns int
language plpgsql volatile
set search_path from current
as $$
declare
    ids uuid[];
    attempts int[];
    done int := 0;
begin
    if patient then
        select u.ids, u.attempts_of_ids into ids, attempts
        from unlisted(lose.worker, null, lose.kept_ids, lose.kept_attempts) u;
    else
        -- What others hold does not use up the rows of a pass.
        select
            array_agg(x.job_id order by x.job_id, x.attempt),
            array_agg(x.attempt order by x.job_id, x.attempt)
        into ids, attempts
        from (
            select e.job_id, e.attempt
            from grants g
            cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
            join executions e on e.job_id = u.job_id and e.attempt = u.attempt
            join jobs j on j.id = e.job_id
            where g.worker = lose.worker and e.finished_at is null
            limit lose.max_rows
            for update of e skip locked for no key update of j skip locked
        ) x;
    end if;
    if ids is not null then
        done := take_back(ids, attempts, 'lost', 1, 'the worker''s lease ended', patient);
    end if;
    perform tidy_grants(lose.worker);
    return done;
end $$;
comment on function lose is
    'Closes a worker''s open executions as lost: patient, all but those it '
    'keeps; impatient, at most so many, and none that others hold.';

create or replace function tidy_grants(worker uuid) returns void
language sql volatile
set search_path from current
begin atomic
    delete from grants g
    where g.worker = tidy_grants.worker
        and not exists (
            select from unnest(g.job_ids, g.attempts) u(job_id, attempt)
            join executions e on e.job_id = u.job_id and e.attempt = u.attempt
            where e.finished_at is null
        );
end;
comment on function tidy_grants is 'Deletes the grants of a worker of which nothing is open.';
