-- Views for people and dashboards: stable, and without args, results and errors. None costs more as
-- history grows: they read what waits and runs, and a bounded sample of the newest executions.

create or replace view recent_executions as
select
    e.job_id,
    e.attempt,
    e.worker,
    e.ready_at,
    e.started_at,
    e.finished_at,
    e.outcome,
    -- Not a join: the planner would rather read all jobs than look so many up.
    (select j.queue from jobs j where j.id = e.job_id) as queue
from executions e
where e.job_id < (select id_at(clock_timestamp() + interval '1 day'))
order by e.job_id desc, e.attempt desc limit limit_of('sample');
comment on view recent_executions is
    'The newest 10,000 executions, by the time their jobs were enqueued (UUIDv7 order).';

create or replace view running as
select
    e.job_id,
    e.attempt,
    j.queue,
    j.kind,
    j.priority,
    e.worker,
    w.name as worker_name,
    e.started_at,
    clock_timestamp() - e.started_at as running_for,
    e.started_at + j.timeout as times_out_at,
    w.lease_ends_at,
    j.cancel_requested_at is not null as cancelling
from grants g
cross join lateral unnest(g.job_ids, g.attempts) u(job_id, attempt)
join executions e on e.job_id = u.job_id and e.attempt = u.attempt and e.finished_at is null
join jobs j on j.id = e.job_id
left join workers w on w.id = e.worker;
comment on view running is 'What runs now, and who runs it.';

create or replace view queue_stats as
select
    s.queue,
    s.state,
    s.priority,
    s.jobs,
    s.oldest_at,
    extract(epoch from clock_timestamp() - s.oldest_at)::float8 as oldest_seconds,
    q.paused_at is not null as paused
from (
    select
        r.queue,
        'ready' as state,
        r.priority::int,
        count(*) as jobs,
        min(r.ready_at) as oldest_at
    from ready r
    group by r.queue, r.priority
    union all
    select s.queue, 'scheduled', s.priority::int, count(*), min(s.run_at)
    from scheduled s
    group by s.queue, s.priority
    union all
    select b.queue, 'blocked', b.priority::int, count(*), null
    from blocked b
    group by b.queue, b.priority
    union all
    select r.queue, 'running', r.priority::int, count(*), min(r.started_at)
    from running r
    group by r.queue, r.priority
) s
left join queues q on q.name = s.queue;
comment on view queue_stats is
    'How many jobs wait or run, by queue, state and priority; '
    'oldest_at is when the oldest became ready, starts or was started.';

create or replace view longest_waits as
select
    l.queue,
    l.priority::int as priority,
    l.ready_at,
    extract(epoch from clock_timestamp() - l.ready_at)::float8 as seconds,
    q.paused_at is not null as paused
from (
    -- From lane to lane by the primary key: one probe each, however many jobs they hold.
    with recursive head as (
        (
            select r.queue, r.priority, r.ready_at
            from ready r
            order by r.queue, r.priority, r.seq limit 1
        )
        union all
        select n.*
        from head h
        cross join lateral (
            select r.queue, r.priority, r.ready_at
            from ready r
            where (r.queue, r.priority) > (h.queue, h.priority)
            order by r.queue, r.priority, r.seq limit 1
        ) n
    )
    select h.*
    from head h limit limit_of('sample')
) l
left join queues q on q.name = l.queue;
comment on view longest_waits is
    'How long the first job of each queue and priority has been ready and was '
    'not acquired, whether its queue is paused or not; of 10,000 lanes at most.';

create or replace view acquire_latency as
select
    e.queue,
    count(*) as executions,
    avg(extract(epoch from e.started_at - e.ready_at))::float8 as average_seconds,
    percentile_cont(0.95) within group (
        order by extract(epoch from e.started_at - e.ready_at)::float8
    ) as p95_seconds,
    percentile_cont(0.99) within group (
        order by extract(epoch from e.started_at - e.ready_at)::float8
    ) as p99_seconds
from recent_executions e
where e.started_at > clock_timestamp() - interval '1 hour'
group by grouping sets ((e.queue), ());
comment on view acquire_latency is
    'From ready to acquired, over the last hour, in seconds; a null queue stands for all of them.';

create or replace view outcome_stats as
select
    e.queue,
    e.outcome,
    count(*) as executions,
    count(*)::float8 / sum(count(*)) over (partition by e.queue) as share,
    avg(extract(epoch from e.finished_at - e.started_at))::float8 as average_seconds
from recent_executions e
where e.finished_at > clock_timestamp() - interval '1 hour'
group by e.queue, e.outcome;
comment on view outcome_stats is
    'How executions of the last hour ended, by queue; share is of that queue''s.';

create or replace view worker_stats as
select
    w.id,
    w.name,
    w.status,
    w.kinds,
    w.queues,
    w.capacity,
    coalesce(l.load, 0) as load,
    w.started_at,
    w.heartbeat_at,
    extract(epoch from clock_timestamp() - w.heartbeat_at)::float8 as heartbeat_age_seconds,
    w.lease_ends_at,
    r.executions as recent_executions,
    r.succeeded as recent_success_share,
    case
        when w.lease_ends_at < clock_timestamp() then 'lost'
        when r.succeeded < 0.5 then 'failing'
        else 'healthy'
    end as health
from workers w
left join (select x.worker, count(*) as load from running x group by x.worker) l on l.worker = w.id
left join (
    select
        e.worker,
        count(*) as executions,
        avg(
            (e.outcome in ('completed', 'snoozed', 'released', 'cancelled'))::int
        )::float8 as succeeded
    from recent_executions e
    where e.finished_at > clock_timestamp() - interval '1 hour'
    group by e.worker
) r on r.worker = w.id;
comment on view worker_stats is
    'Workers with their load and health: whether their recent '
    'executions ended well, and whether they are heard of.';

create or replace view job_details as
select
    j.id,
    j.state,
    j.queue,
    j.kind,
    j.priority::int as priority,
    j.attempt,
    j.failures,
    j.max_attempts,
    j.created_at,
    j.run_at,
    r.ready_at,
    e.started_at,
    j.finished_at,
    j.timeout,
    j.unique_key,
    j.args_bytes,
    j.has_dependents,
    b.remaining as waits_for,
    j.reason,
    j.cause,
    j.cancel_requested_at,
    e.worker,
    e.outcome as last_outcome,
    j.workflow
from jobs j
left join ready r on r.queue = j.queue and r.priority = j.priority and r.seq = j.seq
left join blocked b on b.job_id = j.id
left join executions e on e.job_id = j.id and e.attempt = j.attempt;
comment on view job_details is 'A job with what it waits for and its newest execution.';

create or replace view workflow_details as
select
    w.id,
    w.name,
    s.state,
    w.created_at,
    s.finished_at,
    w.jobs,
    s.done,
    s.blocked,
    s.held,
    s.scheduled,
    s.ready,
    s.running,
    s.completed,
    s.cancelled,
    s.discarded,
    s.pruned
from workflows w
cross join lateral workflow_status(w.id) s;
comment on view workflow_details is
    'Workflows with their states and progress; each line reads all jobs '
    'of one: ask for the newest twenty (order by id desc limit 20).';
