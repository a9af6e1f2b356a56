-- Lane floors: places below which the lanes of a queue hold nothing and never will. While an old
-- snapshot anywhere keeps dead rows in place, acquire starts above them.
--
-- A floor may pass a number only when whoever could still insert below it has ended. Such a
-- transaction holds RowExclusiveLock on ready from before it drew its number: so read the
-- sequence, then note who holds that lock, wait until those are gone, and look in a new statement.

create or replace function ready_mark() returns bigint
language plpgsql volatile
set search_path from current
as $$
begin
    return (
        select case when s.is_called then s.last_value else s.last_value - 1 end from ready_seq s
    );
end $$;
comment on function ready_mark is 'The highest number that ready_seq has given.';

create or replace function server_life() returns text
language plpgsql stable
set search_path from current
as $$
begin
    return (
        select extract(epoch from pg_postmaster_start_time()) || ' '
            || extract(epoch from b.stats_reset)
        from pg_stat_bgwriter b
    );
end $$;
comment on function server_life is
    'Changes when the server has started or recovered from a crash (which resets its statistics): '
    'names of transactions are then given again, and a sequence may have fallen back.';

create or replace function ready_holders(own boolean) returns text[]
language plpgsql volatile
set search_path from current
as $$
begin
    return array(
        -- A prepared transaction has no process.
        select distinct case when l.pid is null then 'prepared ' else '' end || l.virtualtransaction
        from pg_locks l
        where l.locktype = 'relation'
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
            and l.relation = 'ready'::regclass
            and l.mode = 'RowExclusiveLock'
            and l.granted
            and (ready_holders.own or l.pid is distinct from pg_backend_pid())
    );
end $$;
comment on function ready_holders is
    'The transactions, prepared ones too, that may have inserted into ready.';

create or replace function standing_holders(noted text[]) returns text[]
language plpgsql volatile
set search_path from current
as $$
declare
    -- What this transaction has inserted itself, it sees.
    present text[] := ready_holders(false);
begin
    -- A noted transaction that is gone may have been PREPAREd: then it goes on under another name,
    -- and for a moment before under none (n/0).
    return array(
        select p.name
        from unnest(present) p(name)
        where p.name = any(standing_holders.noted)
            or (p.name like 'prepared %' or p.name like '%/0')
                and exists (
                    select from unnest(standing_holders.noted) n(name)
                    where n.name not like 'prepared %' and n.name <> all(present)
                )
    );
end $$;
comment on function standing_holders is
    'Those of the noted transactions that have not ended, under the names that they now have.';

create or replace function note_floors(
    out mark bigint,
    out holders text[],
    out server text
)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    perform need_read_committed('note_floors');
    server := server_life();
    mark := ready_mark();
    -- Not before the sequence was read: who comes later draws a higher number.
    holders := ready_holders(true);
end $$;
comment on function note_floors is
    'What has to have ended before floors may rise above mark; for raise_floors, a moment later.';

create or replace function raise_floors(
    mark bigint,
    holders text[],
    server text,
    max_rows int,
    out standing text[],
    out done bigint
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
begin
    perform need_read_committed('raise_floors');
    standing := '{}';
    done := 0;
    -- Notes of another life of the server say nothing; nor do those of a sequence set back since.
    if raise_floors.server is distinct from server_life() or raise_floors.mark > ready_mark() then
        return;
    end if;
    standing := standing_holders(raise_floors.holders);
    if standing <> '{}' then
        return;
    end if;
    perform drop_floors();
    -- A new statement: it sees all that those have left behind.
    with asked as (
        select u.queue
        from workers w
        cross join lateral unnest(w.queues) u(queue)
        where w.lease_ends_at > clock_timestamp()
        group by u.queue
        order by random() limit raise_floors.max_rows
    ),
    raised as (
        select a.queue, f.id, f.mark, f.floors as old, n.floors as new
        from asked a
        left join lateral (
            select x.id, x.mark, x.floors
            from lane_floors x
            where x.queue = a.queue
            order by x.id desc limit 1
        ) f on true
        cross join lateral (
            select array_agg(
                greatest(p.lane_floor, coalesce(r.seq, raise_floors.mark + 1)) order by p.priority
            ) as floors
            from unnest(
                '{0,1,2,3,4,5,6,7,8,9}'::smallint[], coalesce(f.floors, '{0,0,0,0,0,0,0,0,0,0}')
            ) p(priority, lane_floor)
            left join lateral (
                select x.seq
                from ready x
                where x.queue = a.queue
                    and x.priority = p.priority
                    and x.seq between p.lane_floor and raise_floors.mark
                order by x.seq limit 1
            ) r on true
        ) n
    ),
    worthy as (
        select r.*
        from raised r
        where exists (
            select from unnest(r.old, r.new) u(old, new)
            where u.new - coalesce(u.old, 0) >= limit_of('floor_step')
        )
    ),
    gone as (
        delete from lane_floors f using worthy w where f.queue = w.queue and f.id = w.id
    )
    insert into lane_floors (mark, queue, floors)
    select greatest(w.mark, raise_floors.mark), w.queue, w.new
    from worthy w;
    get diagnostics done = row_count;
    if random() < 0.01 then
        perform tidy_floors(raise_floors.max_rows);
    end if;
end $$;
comment on function raise_floors is
    'Raises the floors of the queues that live workers asked for, as far as mark (of '
    'note_floors) allows; while noted transactions stand, it names them and does nothing.';

create or replace function drop_floors() returns void
language plpgsql volatile
set search_path from current
as $$
declare
    reached bigint := ready_mark();
begin
    if reached < (select f.mark from lane_floors f order by f.mark desc, f.id desc limit 1) then
        delete from lane_floors f where f.mark > reached;
    end if;
end $$;
comment on function drop_floors is
    'Deletes floors noted above the sequence, which has then fallen back '
    '(restored, replicated, reset): what it gives now would lie below them.';

create or replace function tidy_floors(max_rows int) returns void
language plpgsql volatile
set search_path from current
set enable_hashjoin = on
as $$
begin
    delete from lane_floors f
    using (
        select x.queue, x.id
        from (
            select y.id, y.queue, max(y.id) over (partition by y.queue) as newest
            from lane_floors y
        ) x
        where x.id < x.newest
            or x.queue not in (select u.queue from workers w, unnest(w.queues) u(queue))
        limit tidy_floors.max_rows
    ) old
    where f.queue = old.queue and f.id = old.id;
end $$;
comment on function tidy_floors is
    'Deletes floors that no longer count, and those of queues for which there are no workers.';

create or replace function floors(max_rows int) returns table (done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
as $$
declare
    notes record;
    tries int := 0;
begin
    notes := note_floors();
    loop
        select r.standing, r.done into notes.holders, done
        from raise_floors(notes.mark, notes.holders, notes.server, floors.max_rows) r;
        exit when notes.holders = '{}' or tries = 5;
        -- Most transactions end within milliseconds; the others stop the floors for now.
        tries := tries + 1;
        perform pg_sleep(0.01);
    end loop;
    more := false;
    return next;
end $$;
comment on function floors is
    'The duty that raises lane floors, in one call; it waits 50 ms '
    'at most for transactions that may still insert below.';

create or replace function try_floors(
    mark bigint,
    holders text[],
    server text,
    max_rows int,
    out mark_after bigint,
    out holders_after text[],
    out server_after text,
    out done bigint,
    out ran boolean
)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    mark_after := try_floors.mark;
    holders_after := try_floors.holders;
    server_after := try_floors.server;
    done := 0;
    ran := pg_try_advisory_xact_lock(duty_key('floors'));
    if not ran then
        return;
    end if;
    if mark_after is null then
        select n.* into mark_after, holders_after, server_after from note_floors() n;
    end if;
    select r.standing, r.done into holders_after, done
    from raise_floors(mark_after, holders_after, server_after, try_floors.max_rows) r;
    if holders_after = '{}' then
        select n.* into mark_after, holders_after, server_after from note_floors() n;
    end if;
end $$;
comment on function try_floors is
    'A step of the floors duty for who keeps the notes between two steps (null at first), unless '
    'another server is at it: raises if what was noted has ended, and then notes anew.';
