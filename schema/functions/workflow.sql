-- What becomes of a workflow, read from its jobs: at most so many as one call may bring.

create or replace function went_on_without(job uuid) returns boolean
language sql stable
set search_path from current
return (
    -- Children that are gone were pruned, which the failed are last.
    select coalesce(
        bool_and(c.state = 'completed'),
        (select j.has_dependents from jobs j where j.id = went_on_without.job)
    )
    from dependencies d
    cross join lateral (select x.state from jobs x where x.id = d.child offset 0) c
    where d.parent = went_on_without.job
);
comment on function went_on_without is
    'Whether a job has children and all of them completed, as those do that '
    'wait for any of several or continue.';

create or replace function workflow_status(id uuid)
returns table (
    workflow uuid,
    name text,
    state text,
    created_at timestamptz,
    finished_at timestamptz,
    jobs int,
    done int,
    blocked int,
    held int,
    scheduled int,
    ready int,
    running int,
    completed int,
    cancelled int,
    discarded int,
    pruned int
)
language plpgsql stable security definer
rows 1
set search_path from current
set enable_seqscan = off
set jit = off
as $$
declare
    present int;
    ended_at timestamptz;
begin
    select w.id, w.name, w.created_at, w.jobs into workflow, name, created_at, jobs
    from workflows w
    where w.id = workflow_status.id;
    if not found then
        return;
    end if;
    select
        count(*),
        count(*) filter (where j.state = 'blocked'),
        count(*) filter (where j.state = 'blocked' and j.cause is not null),
        count(*) filter (where j.state = 'scheduled'),
        count(*) filter (where j.state = 'ready'),
        count(*) filter (where j.state = 'running'),
        count(*) filter (where j.state = 'completed'),
        count(*) filter (where j.state = 'cancelled'),
        count(*) filter (where j.state = 'discarded'),
        max(j.finished_at)
    into
        present, blocked, held, scheduled, ready, running, completed, cancelled, discarded,
        ended_at
    from jobs j
    where j.workflow = workflow_status.id;
    pruned := jobs - present;
    done := jobs - blocked - scheduled - ready - running;
    state := case
        when done < jobs then 'running'
        when exists (
            select
            from jobs j
            where j.workflow = workflow_status.id
                and j.state = 'discarded'
                and not went_on_without(j.id)
        )
            then 'failed'
        when cancelled = 0 then 'completed'
        when exists (
            select
            from jobs j
            where j.workflow = workflow_status.id
                and j.state = 'cancelled'
                and (select c.state from jobs c where c.id = j.cause) = 'discarded'
        )
            then 'failed'
        else 'cancelled'
    end;
    if done = jobs then
        finished_at := ended_at;
    end if;
    return next;
end $$;
comment on function workflow_status is
    'Where a workflow stands: running while a job is unfinished, else failed if one was discarded '
    '(but for one whose children all completed without it) or fell with one that was, cancelled if '
    'one was cancelled, or completed. done is '
    'how many of its jobs have ended, pruned ones too; held ones are blocked until a person acts. '
    'No row for an unknown id.';

create or replace function workflow_jobs(id uuid)
returns table (
    job_id uuid,
    kind text,
    queue text,
    state text,
    is_held boolean,
    parents uuid[]
)
language sql stable security definer
set search_path from current
set enable_seqscan = off
set jit = off
begin atomic
    select
        j.id,
        j.kind,
        j.queue,
        j.state,
        j.state = 'blocked' and j.cause is not null,
        array(select d.parent from dependencies d where d.child = j.id order by d.parent)
    from jobs j
    where j.workflow = workflow_jobs.id
    order by j.id;
end;
comment on function workflow_jobs is
    'The jobs of a workflow, each with the jobs that it waits or waited for.';
