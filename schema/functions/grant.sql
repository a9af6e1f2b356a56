-- What an acquire writes for the jobs that it picked: the new
-- attempt on the job, its execution, and one grant a call.
-- Lock order: job rows by id.

-- Under the same arguments it gave nothing once.
drop function if exists grant_jobs(uuid[], timestamptz[], int[], uuid[], uuid[], bigint[]);
create or replace function grant_jobs(
    ids uuid[],
    ready_ats timestamptz[],
    places int[],
    workers uuid[],
    tokens uuid[],
    call_numbers bigint[]
) returns uuid[]
language plpgsql volatile
set search_path from current
as $$
declare
    suspects uuid[];
    sorted uuid[];
    started uuid[];
    attempts int[];
    expires timestamptz[];
    first_expires timestamptz;
    clock timestamptz;
begin
    select
        array_agg(u.id order by u.id),
        array_agg(u.ready_at order by u.id),
        case when grant_jobs.places is not null then array_agg(u.place order by u.id) end
    into sorted, ready_ats, places
    from unnest(grant_jobs.ids, grant_jobs.ready_ats, grant_jobs.places) u(id, ready_at, place);
    clock := clock_timestamp();
    with taken as (
        update jobs j set state = 'running', seq = null, attempt = j.attempt + 1
        where j.id = any(sorted)
        returning
            j.id,
            j.attempt,
            clock + least(j.timeout, default_of('longest_timeout')) as expires,
            is_suspect(j.args) as is_suspect
    )
    select
        array_agg(t.id order by t.id),
        array_agg(t.attempt order by t.id),
        case when places is not null then array_agg(t.expires order by t.id) end,
        min(t.expires),
        array_agg(t.id) filter (where t.is_suspect)
    into started, attempts, expires, first_expires, suspects
    from taken t;
    if sorted <> started or started is null then
        -- What waits without a job to it was picked, and is gone with that.
        select
            array_agg(u.ready_at order by u.id),
            case when places is not null then array_agg(u.place order by u.id) end
        into ready_ats, places
        from unnest(sorted, ready_ats, places) u(id, ready_at, place)
        where u.id = any(started);
        sorted := started;
        if sorted is null then
            return null;
        end if;
    end if;
    insert into executions (job_id, attempt, token, worker, ready_at, started_at)
    select
        g.id, g.attempt, grant_jobs.tokens[coalesce(g.place, 1)],
        grant_jobs.workers[coalesce(g.place, 1)], g.ready_at, clock
    from unnest(sorted, attempts, ready_ats, places) g(id, attempt, ready_at, place);
    if places is null then
        insert into grants (worker, call_number, expires_at, job_ids, attempts)
        values (
            grant_jobs.workers[1], grant_jobs.call_numbers[1], first_expires, sorted, attempts
        );
    else
        insert into grants (worker, call_number, expires_at, job_ids, attempts)
        select
            grant_jobs.workers[g.place],
            grant_jobs.call_numbers[g.place],
            min(g.expires),
            array_agg(g.id order by g.id),
            array_agg(g.attempt order by g.id)
        from unnest(sorted, attempts, places, expires) g(id, attempt, place, expires)
        group by g.place
        order by g.place;
    end if;
    return suspects;
end $$;
comment on function grant_jobs is
    'Starts picked jobs: each goes to the worker, with the token, of the '
    'call at its place; null places mean that there is one call. Gives those whose args are to be '
    'looked at; null for none.';
