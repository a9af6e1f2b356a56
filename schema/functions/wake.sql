-- Wake-ups. A sleeper holds a shared advisory lock on its queue; whoever
-- makes a job ready tries the exclusive one: if it cannot have it,
-- somebody sleeps and is notified. A hint; polling is the guarantee.

create or replace function wake_key(queue text) returns bigint
language plpgsql stable
set search_path from current
as $$
begin
    return hashtextextended(wake_key.queue, hashtext(current_schema()));
end $$;
comment on function wake_key is 'The advisory lock that sleepers on a queue share.';

-- No search_path of its own: it is on every producer's commit, and only pinned functions call it.
create or replace function wake(queues text[]) returns void
language plpgsql volatile
as $$
declare
    channel text := current_schema();
    seed bigint := hashtext(channel);
    woken text;
    key bigint;
begin
    if current_setting('rowlock.notify', true) = 'off' then
        return;
    end if;
    foreach woken in array coalesce(wake.queues, '{}') loop
        key := hashtextextended(woken, seed);
        -- One expression: a cancel between the two calls would leak the lock.
        perform case
            when pg_try_advisory_lock(key) then pg_advisory_unlock(key)
            else pg_notify(channel, woken) is null
        end;
    end loop;
end $$;
comment on function wake is
    'Notifies the sleepers on these queues, if there are any, when the transaction commits.';

create or replace function watch(queues text[]) returns pg_snapshot
language plpgsql volatile security definer
set search_path from current
set lock_timeout = '2s'
as $$
declare
    watched text;
    own bigint;
begin
    perform need_read_committed('watch');
    perform check_count('watch', 'queues', cardinality(watch.queues), limit_of('watch_queues'));
    -- All names first: these locks outlive an error.
    perform check_queue(u.queue) from unnest(watch.queues) u(queue);
    for watched in select distinct u.queue from unnest(watch.queues) u(queue) loop
        perform pg_advisory_lock_shared(wake_key(watched));
    end loop;
    -- An xid drawn after the lock: whoever looked before the lock has a smaller one.
    own := pg_current_xact_id()::text::bigint;
    return format('%s:%s:', own, own + 1)::pg_snapshot;
end $$;
comment on function watch is
    'Registers this session as a sleeper on the queues (LISTEN on the '
    'schema''s name first). Commit, then look for jobs until settled() '
    'says true; only then wait. One watch a queue a session.';

create or replace function settled(since pg_snapshot) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
begin
    perform need_read_committed('settled');
    if settled.since is null then
        perform refuse('RL422', 'since is null', null, 'Pass what watch() returned.');
    end if;
    return pg_snapshot_xmin(pg_current_snapshot()) >= pg_snapshot_xmax(settled.since);
end $$;
comment on function settled is
    'True once every transaction that may have looked for sleepers before that watch has ended.';

create or replace function unwatch(queues text[]) returns boolean
language plpgsql volatile security definer
set search_path from current
as $$
declare
    wanted bigint[];
    held bigint[];
begin
    perform check_count('unwatch', 'queues', cardinality(unwatch.queues), limit_of('watch_queues'));
    perform check_queue(u.queue) from unnest(unwatch.queues) u(queue);
    wanted := array(select distinct wake_key(u.queue) from unnest(unwatch.queues) u(queue));
    -- Looked up first: letting go of a lock that is not held is a warning in the server's log.
    held := array(
        select (l.classid::bigint << 32) | l.objid::bigint
        from pg_locks l
        where l.pid = pg_backend_pid()
            and l.locktype = 'advisory'
            and l.objsubid = 1
            and l.mode = 'ShareLock'
            and l.granted
            and ((l.classid::bigint << 32) | l.objid::bigint) = any(wanted)
    );
    perform pg_advisory_unlock_shared(k.key) from unnest(held) k(key);
    return cardinality(held) = cardinality(wanted);
end $$;
comment on function unwatch is
    'Takes this session off the sleepers of the queues. False if it was not one of them.';
