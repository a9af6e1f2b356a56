-- What the ids and unique keys of a call stand for: a job that exists, or a fresh one.
-- Lock order: unique_keys by key.

create or replace function resolve_jobs(
    ids uuid[],
    given uuid[],
    prints uuid[],
    unique_keys text[]
) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    owners uuid[];
    result uuid[];
    wrong record;
begin
    owners := array(
        select case when j.id is not null or g.n > min(g.n) over (partition by g.id) then g.id end
        from unnest(resolve_jobs.ids) with ordinality g(id, n)
        left join jobs j on j.id = g.id
        order by g.n
    );
    -- After that look: one that was stored in between is compared, too.
    select g.n, g.given into wrong
    from (
        select
            x.n,
            x.given,
            x.print,
            first_value(x.print) over (partition by x.given order by x.n) as first_print
        from unnest(resolve_jobs.given, resolve_jobs.prints) with ordinality x(given, print, n)
        where x.given is not null
    ) g
    left join jobs j on j.id = g.given
    where g.print
        is distinct from case when j.id is null then g.first_print else j.fingerprint end
    order by g.n limit 1;
    if found then
        perform refuse(
            'RL409', format('id of job %s belongs to another job', wrong.n), wrong.given::text,
            'Repeat a call with the same content, or choose a fresh id.'
        );
    end if;
    if resolve_jobs.unique_keys is null then
        return owners;
    end if;
    result := take_keys(resolve_jobs.ids, owners, resolve_jobs.unique_keys);
    if exists (
        select from unnest(resolve_jobs.given, owners) g(given, owner)
        join jobs j on j.id = g.given
        where g.owner is null
    ) then
        -- Stored while a key was waited for, and perhaps over by now.
        perform untake_keys(resolve_jobs.ids);
        return resolve_jobs(
            resolve_jobs.ids, resolve_jobs.given, resolve_jobs.prints, resolve_jobs.unique_keys
        );
    end if;
    select g.n, g.key into wrong
    from unnest(
        resolve_jobs.given, owners, result, resolve_jobs.unique_keys
    ) with ordinality g(given, before, owner, key, n)
    where g.given is not null and g.before is null and g.owner is not null
    order by g.n limit 1;
    if found then
        perform refuse(
            'RL409', format('unique_key of job %s belongs to another job', wrong.n), wrong.key,
            'Leave the id out to be given the job that has the key.'
        );
    end if;
    return result;
end $$;
comment on function resolve_jobs is
    'For each job of a call the job that it already is, or null '
    'for a fresh one. Takes the unique keys of the fresh ones.';

-- It refused, once, and wanted the ids that were given.
drop function if exists take_keys(uuid[], uuid[], uuid[], text[]);
create or replace function take_keys(
    ids uuid[],
    owners uuid[],
    unique_keys text[]
) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    keys text[];
    won text[] := '{}';
    firsts uuid[];
    holders uuid[];
begin
    select array_agg(x.key order by x.key), array_agg(x.id order by x.key) into keys, firsts
    from (
        select distinct on (g.key) g.key, g.id
        from unnest(
            take_keys.ids, take_keys.owners, take_keys.unique_keys
        ) with ordinality g(id, owner, key, n)
        where g.key is not null and g.owner is null
        order by g.key, g.n
    ) x;
    if keys is null then
        return take_keys.owners;
    end if;
    -- An open transaction with the same key is waited
    -- for; a key that vanished meanwhile is tried again.
    loop
        with taken as (
            insert into unique_keys as u (key, job_id)
            select x.key, x.id
            from unnest(keys, firsts) x(key, id)
            where x.key <> all (won)
            order by x.key
            on conflict on constraint unique_keys_pkey do nothing
            returning u.key
        )
        select won || coalesce(array_agg(t.key), '{}') into won
        from taken t;
        -- Beside a key that is ours now, an old snapshot still shows who had it before.
        holders := array(
            select case when x.key = any(won) then x.id else u.job_id end
            from unnest(keys, firsts) with ordinality x(key, id, n)
            left join unique_keys u on u.key = x.key and x.key <> all (won)
            order by x.n
        );
        exit when array_position(holders, null) is null;
    end loop;
    return array(
        select coalesce(g.owner, case when h.holder <> g.id then h.holder end)
        from unnest(
            take_keys.ids, take_keys.owners, take_keys.unique_keys
        ) with ordinality g(id, owner, key, n)
        left join unnest(keys, holders) h(key, holder) on h.key = g.key
        order by g.n
    );
end $$;
comment on function take_keys is
    'Takes unique keys for fresh jobs; a job whose key is held becomes its holder.';

create or replace function untake_keys(ids uuid[]) returns void
language plpgsql volatile
set search_path from current
as $$
begin
    -- That of a live job is its own; any other one was free for a moment.
    delete from unique_keys u
    where u.job_id = any(untake_keys.ids)
        and not exists (select from jobs j where j.id = u.job_id and j.finished_at is null);
end $$;
comment on function untake_keys is
    'Gives back the keys that this call took for jobs that are to be made '
    'anew, or that turn out to have ended.';
