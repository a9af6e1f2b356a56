-- Maintenance. Each duty is idempotent, bounded, and takes every job
-- row SKIP LOCKED. A server runs each in a transaction of its own under
-- its lock; maintain() does them all in one, for where no server runs.
-- A recent round looks only at what can have become due since a moment ago. It
-- finds nearly all, and does not walk over what lies dead under an old snapshot; a
-- full one, now and then, finds the rest: what was committed late, ids not UUIDv7.

create or replace function duty_key(duty text) returns bigint
language plpgsql stable
set search_path from current
as $$
begin
    return hashtextextended('duty ' || duty_key.duty, hashtext(current_schema()));
end $$;
comment on function duty_key is 'The advisory lock of a maintenance duty.';

create or replace function promote(max_rows int, recent boolean default false)
returns table (done bigint, more boolean)
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
    due uuid[];
    free uuid[];
    -- In variables: an index knows no bound that is a volatile function.
    clock timestamptz := clock_timestamp();
    since timestamptz := case
        when promote.recent then clock - default_of('recent')
        else '-infinity'
    end;
begin
    perform need_read_committed('promote');
    due := array(
        select s.job_id
        from scheduled s
        where s.run_at between since and clock
        order by s.run_at limit promote.max_rows for update skip locked
    );
    free := array(
        select j.id
        from jobs j
        where j.id = any(due)
        order by j.id for no key update skip locked
    );
    delete from scheduled s where s.job_id = any(free);
    perform place(free);
    done := cardinality(free);
    more := done > 0 and cardinality(due) = promote.max_rows;
    return next;
end $$;
comment on function promote is 'The duty that makes due jobs ready.';

create or replace function run_duty(duty text, max_rows int, recent boolean)
returns table (done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    case run_duty.duty
        when 'link' then return query select * from link(run_duty.max_rows, run_duty.recent);
        when 'promote' then return query select * from promote(run_duty.max_rows, run_duty.recent);
        when 'rescue' then return query select * from rescue(run_duty.max_rows, run_duty.recent);
        when 'prune' then return query select * from prune(run_duty.max_rows);
        when 'floors' then return query select * from floors(run_duty.max_rows);
        else
            perform refuse(
                'RL422', 'duty is not valid', run_duty.duty,
                'Use link, promote, rescue, prune or floors.'
            );
    end case;
end $$;
comment on function run_duty is 'Runs one duty once, at most max_rows rows of it.';

create or replace function try_duty(duty text, max_rows int, recent boolean default false)
returns table (done bigint, more boolean, ran boolean)
language plpgsql volatile security definer
set search_path from current
as $$
begin
    if pg_try_advisory_xact_lock(duty_key(try_duty.duty)) then
        return query
            select r.done, r.more, true
            from run_duty(try_duty.duty, try_duty.max_rows, try_duty.recent) r;
    else
        return query select 0::bigint, false, false;
    end if;
end $$;
comment on function try_duty is
    'Runs one duty once unless another server is at it; a recent '
    'round is cheap under an old snapshot, and may leave something over.';

create or replace function maintain(max_rows int default 1000)
returns table (duty text, done bigint, more boolean)
language plpgsql volatile security definer
set search_path from current
set lock_timeout = '5s'
as $$
declare
    name text;
    deadline timestamptz := clock_timestamp() + interval '5 seconds';
    patience int;
begin
    perform need_read_committed('maintain');
    if maintain.max_rows is null or maintain.max_rows not between 1 and limit_of('maintain_rows')
    then
        perform refuse(
            'RL422', 'max_rows is not valid', maintain.max_rows::text,
            format('Use 1 to %s.', limit_of('maintain_rows'))
        );
    end if;
    foreach name in array array['link', 'promote', 'rescue', 'prune', 'floors'] loop
        -- One patience for all of them; nought would be no limit.
        patience := extract(epoch from deadline - clock_timestamp()) * 1000;
        perform set_config('lock_timeout', greatest(patience, 1)::text, true);
        begin
            perform pg_advisory_xact_lock(duty_key(name));
        exception when lock_not_available then
            return query select name, 0::bigint, true;
            continue;
        end;
        -- What is left of that patience is no bound on what the duty itself waits for.
        perform set_config('lock_timeout', '5s', true);
        return query select name, r.done, r.more from run_duty(name, maintain.max_rows, false) r;
    end loop;
end $$;
comment on function maintain is
    'Runs every maintenance duty once, each at most max_rows rows; '
    'more says that there is work left. Waits 5 s at most, in all, for servers that are at it.';
