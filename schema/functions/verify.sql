-- Every invariant of the model, each as one statement (one
-- snapshot), in sets. Clean at any moment under load.

create or replace function verify() returns table (invariant text, violations bigint, sample text)
language plpgsql stable security definer
set search_path from current
as $$
begin
    return query
        select
            'a ready job has exactly its row in ready',
            count(*),
            min(coalesce(j.id, r.job_id)::text)
        from (select * from jobs x where x.state = 'ready') j
        full join ready r on r.job_id = j.id
            and r.seq = j.seq
            and r.queue = j.queue
            and r.priority = j.priority
            and r.kind = j.kind
        where j.id is null or r.job_id is null;
    return query
        select
            'a scheduled job has exactly its row in scheduled',
            count(*),
            min(coalesce(j.id, s.job_id)::text)
        from (select * from jobs x where x.state = 'scheduled') j
        full join scheduled s on s.job_id = j.id
            and s.run_at = j.run_at
            and s.queue = j.queue
            and s.priority = j.priority
        where j.id is null or s.job_id is null;
    return query
        select
            'a blocked job has exactly its row in blocked',
            count(*),
            min(coalesce(j.id, b.job_id)::text)
        from (select * from jobs x where x.state = 'blocked') j
        full join blocked b on b.job_id = j.id
            and b.queue = j.queue
            and b.priority = j.priority
            and b.wait_for_any = j.wait_for_any
        where j.id is null or b.job_id is null;
    return query
        select
            'remaining counts the unfinished parents, and one for links',
            count(*),
            min(c.job_id::text)
        from (
            select b.job_id, b.remaining, coalesce(e.n, 0) + coalesce(l.n, 0) as waits
            from blocked b
            left join (
                select d.child, count(*) as n
                from dependencies d
                join jobs p on p.id = d.parent
                where p.finished_at is null or d.policy = 'hold' and p.state <> 'completed'
                group by d.child
            ) e on e.child = b.job_id
            left join (
                select x.child, 1 as n from links x group by x.child
            ) l on l.child = b.job_id
        ) c
        where c.remaining <> c.waits or c.remaining = 0;
    return query
        select
            'nothing ready, scheduled or running has an unfinished parent',
            count(*),
            min(j.id::text)
        from jobs j
        join dependencies d on d.child = j.id
        join jobs p on p.id = d.parent
        where j.state in ('ready', 'scheduled', 'running')
            and p.finished_at is null
            and not j.wait_for_any;
    return query
        select
            'no blocked job waits for any of its parents after one has ended well',
            count(*),
            min(b.job_id::text)
        from blocked b
        where b.wait_for_any and has_its_parent(b.job_id);
    return query
        select
            'a blocked job that waits for any of its parents has one left',
            count(*),
            min(b.job_id::text)
        from blocked b
        where b.wait_for_any and lifelines_of(b.job_id) = 0;
    return query
        select
            'a blocked job has a cause exactly while it is held',
            count(*),
            min(b.job_id::text)
        from blocked b
        join jobs j on j.id = b.job_id
        where (j.cause is null) <> (holder_of(j.id, j.wait_for_any) is null);
    return query
        select
            'no blocked job has a parent that should have cancelled it',
            count(*),
            min(b.job_id::text)
        from blocked b
        join dependencies d on d.child = b.job_id and d.policy = 'cancel'
        join jobs p on p.id = d.parent
        where p.state in ('cancelled', 'discarded') and not b.wait_for_any;
    return query
        select 'no child is stranded by a lost link', count(*), min(l.child::text)
        from links l
        left join blocked b on b.job_id = l.child
        where b.job_id is null;
    return query
        select 'no ticket outlives its transaction', count(*), min(t.xid::text) from tickets t;
    return query
        select 'an edge joins two jobs', count(*), min(d.child::text)
        from dependencies d
        left join jobs p on p.id = d.parent
        left join jobs c on c.id = d.child
        where p.id is null or c.id is null;
    return query
        select 'a parent knows that it has dependents', count(*), min(p.id::text)
        from dependencies d
        join jobs p on p.id = d.parent
        where not p.has_dependents and p.state <> 'completed';
    return query
        select
            'a running job has one open execution, its newest; no other job has one',
            count(*),
            min(coalesce(j.id, e.job_id)::text)
        from (select * from jobs x where x.state = 'running') j
        full join (select * from executions y where y.finished_at is null) e on e.job_id = j.id
            and e.attempt = j.attempt
        where j.id is null or e.job_id is null;
    return query
        select 'an open execution has a worker, and a grant of it', count(*), min(e.job_id::text)
        from executions e
        left join workers w on w.id = e.worker
        left join (
            select g.worker, u.job_id, u.attempt
            from grants g, unnest(g.job_ids, g.attempts) u(job_id, attempt)
        ) g on g.worker = e.worker
            and g.job_id = e.job_id
            and g.attempt = e.attempt
        where e.finished_at is null and (w.id is null or g.job_id is null);
    return query
        select 'attempts have no gaps', count(*), min(c.id::text)
        from (
            select j.id, j.attempt, count(e.attempt) as n, coalesce(max(e.attempt), 0) as last
            from jobs j
            left join executions e on e.job_id = j.id
            group by j.id
        ) c
        where c.attempt <> c.n or c.attempt <> c.last;
    return query
        select 'an execution belongs to a job', count(*), min(e.job_id::text)
        from executions e
        left join jobs j on j.id = e.job_id
        where j.id is null;
    return query
        select 'a completed job ended with a completed execution', count(*), min(j.id::text)
        from jobs j
        left join executions e on e.job_id = j.id and e.attempt = j.attempt
        where j.state = 'completed' and e.outcome is distinct from 'completed';
    return query
        select
            'one live job has a unique key, and that job',
            count(*),
            min(coalesce(u.key, j.unique_key))
        from unique_keys u
        full join (
            select *
            from jobs x
            where x.unique_key is not null and x.finished_at is null
        ) j on j.unique_key = u.key
            and j.id = u.job_id
        where u.key is null or j.id is null;
    return query
        select 'only running and cancelled jobs were asked to stop', count(*), min(j.id::text)
        from jobs j
        where j.cancel_requested_at is not null and j.state not in ('running', 'cancelled');
    return query
        select 'no lane floor is more than one above the sequence', count(*), min(f.queue)
        from lane_floors f
        cross join lateral unnest(f.floors) u(lane_floor)
        where u.lane_floor > ready_mark() + 1;
    return query
        select 'no ready job lies below its lane''s floor', count(*), min(r.job_id::text)
        from (
            select distinct on (x.queue) x.queue, x.floors
            from lane_floors x
            order by x.queue, x.id desc
        ) f
        join ready r on r.queue = f.queue and r.seq < f.floors[r.priority + 1];
    return query
        select 'failures never exceed attempts', count(*), min(j.id::text)
        from jobs j
        where j.failures > j.attempt;
end $$;
comment on function verify is
    'Checks every invariant; a healthy database has zero '
    'violations. Reads all of it: for tests and for a quiet hour.';
