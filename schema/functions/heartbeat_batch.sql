-- Heartbeats of several workers in one statement, for the common case:
-- a lease that stands, and nothing to give back. The others go by heartbeat.
-- Lock order: worker rows by id.

create or replace function check_heartbeat_batch(
    workers uuid[],
    leases interval[],
    seen_calls bigint[],
    sizes int[],
    entries int
) returns void
language plpgsql stable
set search_path from current
as $$
declare
    n int := cardinality(check_heartbeat_batch.workers);
begin
    if cardinality(check_heartbeat_batch.leases) is distinct from n
        or cardinality(check_heartbeat_batch.seen_calls) is distinct from n
        or cardinality(check_heartbeat_batch.sizes) is distinct from n
        or n is null
        or exists (
            select from unnest(check_heartbeat_batch.sizes) s(size)
            where s.size is null or s.size < 0
        )
        or check_heartbeat_batch.entries is distinct from (
            select coalesce(sum(s.size), 0) from unnest(check_heartbeat_batch.sizes) s(size)
        )
    then
        perform refuse(
            'RL422', 'the arrays differ in length', format('%s workers', n),
            'Pass one lease, seen_call and size for each worker, and as many entries as sizes say.'
        );
    end if;
    perform check_count('heartbeat_batch', 'workers', n, limit_of('acquire_calls'));
    perform check_lease(l.lease) from unnest(check_heartbeat_batch.leases) l(lease);
end $$;
comment on function check_heartbeat_batch is
    'Raises RL422 or RL413 for arguments of heartbeat_batch that are not valid.';

create or replace function heartbeat_batch(
    workers uuid[],
    leases interval[],
    seen_calls bigint[],
    sizes int[],
    job_ids uuid[],
    attempts int[],
    tokens uuid[]
) returns table (beaten boolean[], verdicts text[])
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
    n int := cardinality(heartbeat_batch.workers);
    -- Which call, and which worker, each entry belongs to.
    places int[];
    owners uuid[];
    clock timestamptz;
    locked record;
    live uuid[];
    ended int := 0;
begin
    perform check_heartbeat_batch(
        heartbeat_batch.workers, heartbeat_batch.leases, heartbeat_batch.seen_calls,
        heartbeat_batch.sizes, cardinality(heartbeat_batch.job_ids)
    );
    places := array(
        select s.place
        from unnest(heartbeat_batch.sizes) with ordinality s(size, place),
            generate_series(1, s.size)
        order by s.place
    );
    owners := array(
        select heartbeat_batch.workers[p.place]
        from unnest(places) with ordinality p(place, n)
        order by p.n
    );
    perform check_finish(
        'heartbeat_batch', owners, heartbeat_batch.job_ids, heartbeat_batch.attempts,
        heartbeat_batch.tokens
    );
    select array_agg(x.id order by x.id) as ids, array_agg(x.ends order by x.id) as ends
    into locked
    from (
        select w.id, w.lease_ends_at as ends
        from workers w
        where w.id = any(heartbeat_batch.workers)
        order by w.id for no key update
    ) x;
    -- Not before the rows are held: a lease may end while another has one of them.
    clock := clock_timestamp();
    live := array(
        select l.id from unnest(locked.ids, locked.ends) l(id, ends) where l.ends >= clock
    );
    beaten := array_fill(false, array[n]);
    for place in 1 .. n loop
        -- Its worker once only; and what it was granted and does not list goes the long way.
        beaten[place] := heartbeat_batch.workers[place] = any(live)
            and array_position(heartbeat_batch.workers, heartbeat_batch.workers[place]) = place
            and (
                heartbeat_batch.seen_calls[place] is null
                or (
                    unlisted(
                        heartbeat_batch.workers[place],
                        heartbeat_batch.seen_calls[place],
                        heartbeat_batch.job_ids[ended + 1 : ended + heartbeat_batch.sizes[place]],
                        heartbeat_batch.attempts[ended + 1 : ended + heartbeat_batch.sizes[place]]
                    )
                ).ids is null
            );
        ended := ended + heartbeat_batch.sizes[place];
    end loop;
    update workers w
    set status = 'live', heartbeat_at = clock, lease_ends_at = clock + b.lease
    from unnest(heartbeat_batch.workers, heartbeat_batch.leases, beaten) b(worker, lease, beaten)
    where b.beaten and w.id = b.worker;
    perform tidy_grants(b.worker)
    from unnest(heartbeat_batch.workers, beaten) b(worker, beaten)
    where b.beaten;
    verdicts := array(
        select case when beaten[h.place] then h.verdict end
        from rows from (
            held(
                owners, heartbeat_batch.job_ids, heartbeat_batch.attempts, heartbeat_batch.tokens
            ),
            unnest(places)
        ) with ordinality h(job_id, verdict, place, n)
        order by h.n
    );
    return next;
end $$;
comment on function heartbeat_batch is
    'The heartbeats of several workers as one: sizes says how many of the entries are each one''s. '
    'beaten is false for one whose lease had ended or who has something to give back: '
    'heartbeat is for that one. One verdict an entry, null where the worker was not beaten.';
