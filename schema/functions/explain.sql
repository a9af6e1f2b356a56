-- "Why is it not running?", answered for one job. Reads a bounded part of the graph and of the
-- queue, locks nothing.

create or replace function waits_on(job uuid)
returns table (job_id uuid, state text, policy text, is_holding boolean)
language sql stable
set search_path from current
begin atomic
    -- By the edges of this one job, whatever statistics say of jobs and edges.
    select p.id, p.state, d.policy, p.finished_at is not null
    from (
        select y.parent, y.policy from dependencies y where y.child = waits_on.job offset 0
    ) d
    cross join lateral (
        select x.id, x.state, x.finished_at from jobs x where x.id = d.parent offset 0
    ) p
    where p.finished_at is null or d.policy = 'hold' and p.state <> 'completed'
    union all
    select l.parent, (select x.state from jobs x where x.id = l.parent), l.policy, false
    from links l
    where l.child = waits_on.job;
end;
comment on function waits_on is
    'The parents that a blocked job waits for: unfinished ones, those that '
    'hold it, and those not attached yet.';

create or replace function roots_of(job uuid, most int)
returns table (job_id uuid, state text, queue text)
language plpgsql stable
set search_path from current
as $$
declare
    seen uuid[] := array[roots_of.job];
    here uuid[] := seen;
    roots uuid[] := '{}';
begin
    -- Level by level, so that the nearest come first and the reading has a bound.
    while here <> '{}' and cardinality(seen) < limit_of('explain_jobs') loop
        select
            coalesce(array_agg(x.id order by x.id) filter (where not x.is_root), '{}'),
            roots || coalesce(array_agg(x.id order by x.id) filter (where x.is_root), '{}')
        into here, roots
        from (
            select distinct w.job_id as id, w.state <> 'blocked' as is_root
            from unnest(here) h(id)
            cross join lateral waits_on(h.id) w
            where w.job_id <> all (seen)
            order by 1 limit limit_of('explain_jobs')
        ) x;
        seen := seen || here;
        exit when cardinality(roots) >= roots_of.most;
    end loop;
    return query
        select j.id, j.state, j.queue
        from unnest(roots) with ordinality r(id, n)
        join jobs j on j.id = r.id
        order by r.n limit roots_of.most;
end $$;
comment on function roots_of is
    'What a blocked job waits for in the end: the nearest of its ancestors that are not blocked '
    'themselves. Looks at so many jobs as limit_of(''explain_jobs'') says.';

create or replace function ahead_of(queue text, priority int, seq bigint) returns int
language sql stable
set search_path from current
begin atomic
    select count(*)::int
    from (
        (
            select
            from unnest('{0,1,2,3,4,5,6,7,8,9}'::smallint[]) p(priority)
            cross join lateral (
                select
                from ready r
                where r.queue = ahead_of.queue and r.priority = p.priority
                order by r.seq limit limit_of('explain_ahead') + 1
            ) r
            where p.priority < ahead_of.priority
            limit limit_of('explain_ahead') + 1
        )
        union all
        (
            select
            from ready r
            where r.queue = ahead_of.queue
                and r.priority = ahead_of.priority
                and r.seq < ahead_of.seq
            order by r.seq limit limit_of('explain_ahead') + 1
        )
        limit limit_of('explain_ahead') + 1
    ) x;
end;
comment on function ahead_of is
    'How many ready jobs of a queue come before this place, age left aside: '
    'exact up to limit_of(''explain_ahead''), then one more than that.';

create or replace function explain_waiting(job jobs, out summary text, out waits_for jsonb)
language plpgsql stable
set search_path from current
as $$
declare
    parents bigint;
    root record;
begin
    select
        count(*),
        jsonb_agg(
            jsonb_build_object('job_id', w.job_id, 'state', w.state, 'on_parent_failure', w.policy)
            order by w.is_holding desc, w.job_id
        ) filter (where w.n <= limit_of('explain_parents'))
    into parents, waits_for
    from (
        select x.*, row_number() over (order by x.is_holding desc, x.job_id) as n
        from waits_on((explain_waiting.job).id) x
        -- Where any parent is enough, one that would hold is out of the race until it is alone.
        where not x.is_holding or (explain_waiting.job).cause is not null
        limit limit_of('parents')
    ) w;
    if (explain_waiting.job).cause is not null then
        summary := format(
            'Held: parent %s was %s. Retry that job, or retry this one to let it go.',
            waits_for -> 0 ->> 'job_id', waits_for -> 0 ->> 'state'
        );
        return;
    end if;
    select * into root from roots_of((explain_waiting.job).id, 1);
    summary := format(
        'Waits for %s%s %s%s.',
        case when (explain_waiting.job).wait_for_any then 'any of ' else '' end,
        parents,
        case when parents = 1 then 'parent' else 'parents' end,
        case when root.job_id is not null then format(
            '; in the end for job %s, which is %s in queue %s', root.job_id, root.state, root.queue
        ) else '' end
    );
end $$;
comment on function explain_waiting is
    'What a blocked job waits for: in words, and the first of its parents.';

create or replace function listeners(queue text, kind text, out on_queue int, out for_kind int)
language sql stable
set search_path from current
begin atomic
    select
        count(*)::int,
        (count(*) filter (where w.kinds is null or listeners.kind = any(w.kinds)))::int
    from workers w
    where w.lease_ends_at > clock_timestamp() and listeners.queue = any(w.queues);
end;
comment on function listeners is
    'Workers with a lease that ask for a queue, and those of them that can run a kind.';

create or replace function explain_ready(
    job jobs,
    paused_at timestamptz,
    on_queue int,
    for_kind int,
    ahead int
) returns text
language sql stable
set search_path from current
return case
    when paused_at is not null
        then format('Queue %s is paused since %s. Resume it.', (job).queue, paused_at)
    when on_queue = 0
        then format('No worker listens on queue %s. Start one, or look for a misspelt name.',
            (job).queue)
    when for_kind = 0
        then format('No worker that listens on queue %s runs kind %s; %s listen.', (job).queue,
            (job).kind, on_queue)
    when ahead = 0 then 'Next in its queue: a worker with a free slot takes it.'
    when ahead > limit_of('explain_ahead')
        then format('More than %s jobs are before it.', limit_of('explain_ahead'))
    when ahead = 1 then '1 job is before it.'
    else format('%s jobs are before it.', ahead)
end;
comment on function explain_ready is 'Why a ready job has not been acquired yet, in words.';

create or replace function explain(job_id uuid)
returns table (
    state text,
    since timestamptz,
    summary text,
    queue text,
    kind text,
    priority int,
    attempt int,
    due_at timestamptz,
    queue_paused_at timestamptz,
    waits_for jsonb,
    first_cause uuid,
    ahead int,
    workers_on_queue int,
    workers_for_kind int,
    worker uuid,
    lease_ends_at timestamptz
)
language plpgsql stable security definer
set search_path from current
set enable_seqscan = off
set jit = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    job jobs;
    run record;
    waiting record;
begin
    select j.* into job from jobs j where j.id = explain.job_id;
    if not found then
        return;
    end if;
    state := job.state;
    queue := job.queue;
    kind := job.kind;
    priority := job.priority;
    attempt := job.attempt;
    first_cause := job.cause;
    queue_paused_at := (select q.paused_at from queues q where q.name = job.queue);
    select l.on_queue, l.for_kind into workers_on_queue, workers_for_kind
    from listeners(job.queue, job.kind) l;
    select e.worker, e.started_at, e.finished_at, e.outcome, w.lease_ends_at into run
    from executions e
    left join workers w on w.id = e.worker
    where e.job_id = job.id and e.attempt = job.attempt;
    since := coalesce(job.finished_at, run.finished_at, job.created_at);
    case job.state
        when 'blocked' then
            since := job.created_at;
            waiting := explain_waiting(job);
            summary := waiting.summary;
            waits_for := waiting.waits_for;
        when 'scheduled' then
            due_at := job.run_at;
            summary := format(
                'Due at %s%s.', job.run_at,
                case when run.outcome is not null
                    then format(', since attempt %s ended %s', job.attempt, run.outcome)
                    else '' end
            );
        when 'ready' then
            since := coalesce(
                (
                    select r.ready_at
                    from ready r
                    where r.queue = job.queue and r.priority = job.priority and r.seq = job.seq
                ),
                since
            );
            ahead := ahead_of(job.queue, job.priority, job.seq);
            summary := explain_ready(
                job, queue_paused_at, workers_on_queue, workers_for_kind, ahead
            );
        when 'running' then
            since := run.started_at;
            worker := run.worker;
            lease_ends_at := run.lease_ends_at;
            summary := format(
                'Attempt %s runs at worker %s%s.', job.attempt, run.worker,
                case
                    when job.cancel_requested_at is not null then ', which was asked to stop'
                    when run.lease_ends_at is null or run.lease_ends_at < clock_timestamp()
                        then ', which is lost; rescue takes it back'
                    else ''
                end
            );
        else
            summary := format(
                'It is %s%s.%s', job.state, ': ' || job.reason,
                case when job.cause is not null and job.attempt = 0
                    then format(' Retry job %s, and this one comes back.', job.cause)
                    else '' end
            );
    end case;
    return next;
end $$;
comment on function explain is
    'Where a job stands, since when, and what it waits for; no row for an unknown id.';
