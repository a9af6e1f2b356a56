-- What was told and what is there, side by side. Moments of the ledgers become timestamps.
create function chaos.moment(micros text) returns timestamptz
language sql immutable
return 'epoch'::timestamptz + micros::bigint * interval '1 microsecond';

create function chaos.committed(xid xid8) returns timestamptz
language sql stable
return pg_xact_commit_timestamp(xid::xid);

create table chaos.found as
select j.id as job, (j.args ->> 'n')::bigint as n, j.state, j.attempt
from rowlock.jobs j;
create index on chaos.found (n);
create index on chaos.found (job);

create table chaos.answers as
select
    (l.line ->> 'call')::bigint as call,
    bool_or(l.e = 'begin') as begun,
    bool_or(l.e = 'ack') as acked,
    bool_or(l.e = 'refused') as refused,
    bool_or(l.e = 'rolled_back') as rolled_back,
    count(*) filter (where l.e = 'unknown') as unknowns
from chaos.lines l
where l.ledger like 'producer-%' and l.line ? 'call'
group by 1;
create index on chaos.answers (call);

create table chaos.acked_ids as
select (l.line ->> 'call')::bigint as call, u.id::uuid as id, u.place
from chaos.lines l
cross join lateral jsonb_array_elements_text(l.line -> 'ids') with ordinality u(id, place)
where l.e = 'ack';

create table chaos.told as
select
    l.ledger as worker,
    l.e,
    (l.line ->> 'job')::uuid as job,
    (l.line ->> 'attempt')::int as attempt,
    (l.line ->> 'token')::uuid as token,
    coalesce(l.line ->> 'verdict', l.line ->> 'as') as word,
    chaos.moment(l.line ->> 'begin') as begin,
    chaos.moment(l.line ->> 'at') as at
from chaos.lines l
where l.ledger like 'worker-%' and l.e in ('got', 'start', 'end', 'told', 'beat');
create index on chaos.told (job, attempt);

create table chaos.looks as
select
    l.ledger as worker,
    l.e,
    chaos.moment(l.line ->> 'begin') as begin,
    chaos.moment(l.line ->> 'at') as at,
    (l.line ->> 'asked')::int as asked,
    (l.line ->> 'got')::int as got
from chaos.lines l
where l.e in ('acquire', 'slept');
create index on chaos.looks (begin);

create table chaos.faults as
select
    l.line ->> 'kind' as kind,
    string_to_array(l.line ->> 'target', ' ') as targets,
    chaos.moment(l.line ->> 'begin') as begin,
    chaos.moment(l.line ->> 'at') as ends
from chaos.lines l
where l.ledger = 'faults' and l.e = 'fault';

-- What was not planned: a process that was kept from running, and a database that took long.
insert into chaos.faults
select x.kind, x.targets, x.begin, x.ends
from (
    select
        case l.ledger when 'canary' then 'slow_database' else 'stall' end as kind,
        array[l.ledger] as targets,
        chaos.moment(l.line ->> 'begin') as begin,
        chaos.moment(l.line ->> 'at') as ends
    from chaos.lines l
    where l.e = 'stall'
) x
where not exists (
    select from chaos.faults f
    where f.kind = 'pause_worker' and f.targets && x.targets
        and f.begin < x.ends and f.ends > x.begin
);

-- The stretches of the run in which no fault that strikes all, and none of its consequences, was
-- under way. What two processes note at once was the machine.
create table chaos.stretches as
select lower(x.r) as begin, upper(x.r) as ends
from (
    select tstzmultirange(tstzrange(min(h.at), max(h.at))) as whole from chaos.history h
) run
cross join lateral unnest(
    run.whole - coalesce(
        (
            select range_agg(tstzrange(f.begin, f.ends + s.slack))
            from chaos.faults f, chaos.slack s
            where f.kind in (
                    'restart_database', 'kill_backend', 'exhaust_connections', 'step_clock',
                    'slow_database'
                )
                or f.kind = 'stall' and exists (
                    select from chaos.faults o
                    where o.kind = 'stall' and o.targets <> f.targets
                        and o.begin < f.ends and o.ends > f.begin
                )
        ),
        '{}'
    )
) x(r);

create table chaos.cancels as
select
    (l.line ->> 'job')::uuid as job,
    l.line ->> 'verdict' as verdict,
    chaos.moment(l.line ->> 'at') as at
from chaos.lines l
where l.ledger = 'operator' and l.e = 'cancelled';

create table chaos.asked_to_cancel as
select distinct c.job from chaos.cancels c where c.verdict in ('cancelled', 'cancelling');

create table chaos.edges as
select c.job as child, p.job as parent, c.n as child_n, p.n as parent_n, pc.goes_on,
    pp.call <> pc.call as is_late
from chaos.planned_edges e
join chaos.found c on c.n = e.child
join chaos.found p on p.n = e.parent
join chaos.planned pc on pc.n = e.child
join chaos.planned pp on pp.n = e.parent;
create index on chaos.edges (child);
create index on chaos.edges (parent);

create index on chaos.history (job, step);
create index on chaos.runs (job, attempt);
create index on chaos.effects (job);

create table chaos.ends as
select h.job, h.xid, h.step, chaos.committed(h.xid) as at, h.state
from chaos.history h
where h.state in ('completed', 'cancelled', 'discarded');
create index on chaos.ends (job);

-- Executions, who ran each, and when their opening and closing was committed.
create table chaos.executions as
select
    e.job_id as job,
    e.attempt,
    e.token,
    e.outcome,
    w.name as worker,
    t.trade,
    (
        select min(chaos.committed(r.xid)) from chaos.runs r
        where r.job = e.job_id and r.attempt = e.attempt
    ) as opened,
    (
        select max(chaos.committed(r.xid)) from chaos.runs r
        where r.job = e.job_id and r.attempt = e.attempt and r.outcome is not null
    ) as closed
from rowlock.executions e
left join rowlock.workers w on w.id = e.worker
left join (
    select l.ledger, min(l.line ->> 'trade') as trade from chaos.lines l
    where l.e = 'life' group by l.ledger
) t on t.ledger = w.name;
create index on chaos.executions (job, attempt);

create index on chaos.lines (ledger) where e = 'let_go';

-- Why an execution did not end its job: a fault in the ledger, or what its handler did.
create table chaos.causes as
select
    e.job,
    e.attempt,
    e.outcome,
    e.worker,
    e.opened,
    e.closed,
    case
        when e.outcome in ('failed', 'snoozed') and e.ended_as = any(
            case e.outcome when 'snoozed' then '{snooze}' else '{fail,discard}' end::text[]
        ) then 'handler: ' || e.ended_as
        -- It had no slot free in time. Where a handler had begun, only a lease that was over by
        -- the worker's own clock lets go of it, and that has a fault as its reason.
        when e.outcome = 'released' and e.trade = 'library' and not exists (
            select from chaos.told t
            where t.job = e.job and t.attempt = e.attempt and t.worker = e.worker and t.e = 'start'
        ) then 'given back before its start'
        when e.outcome in ('lost', 'released') or e.ended_as = 'broken' then coalesce((
            select f.kind from chaos.faults f
            where f.begin <= e.closed
                -- Whoever was killed loses all it had; others are back soon after the fault.
                and (
                    f.kind = 'kill_worker'
                    or f.ends + s.slack >= e.closed
                    or f.kind in ('cut_commit', 'cut_answer', 'black_hole')
                        and f.ends + s.silence >= e.closed
                )
                -- A dead worker and a wrong clock give nothing back; one lost session is no lease.
                and f.kind <> all(
                    case e.outcome
                        when 'lost' then '{terminate_backend}'
                        when 'released' then '{kill_worker,step_clock}'
                        else '{kill_worker}'
                    end::text[]
                )
                and case
                    when f.kind in ('kill_worker', 'pause_worker', 'stall')
                        then e.worker = any(f.targets)
                    when f.kind = 'kill_service' then e.trade = 'http'
                    when f.kind = 'terminate_backend'
                        then e.worker = any(f.targets)
                            or e.trade = 'http' and 'service' = any(f.targets)
                    when f.kind in (
                        'cut_commit', 'cut_answer', 'black_hole', 'slow_wire', 'reset_wire'
                    )
                        then split_part(e.worker, '.', 1) = any(f.targets)
                    else f.kind in (
                        'restart_database', 'kill_backend', 'exhaust_connections', 'step_clock',
                        'slow_database'
                    )
                end
            order by f.begin desc
            limit 1
        ), (
            -- A worker of ours on a starved machine; the report counts them.
            select 'no heartbeat was answered for a lease' from chaos.lines l
            where l.e = 'let_go' and l.ledger = e.worker and e.outcome = 'released'
                and chaos.moment(l.line ->> 'at') between e.opened and e.closed
            limit 1
        ))
    end as cause
from (
    select
        x.*,
        (
            select t.word from chaos.told t
            where t.job = x.job and t.attempt = x.attempt and t.worker = x.worker and t.e = 'end'
            limit 1
        ) as ended_as
    from chaos.executions x
    where x.outcome not in ('completed', 'cancelled')
) e
cross join chaos.slack s;
create index on chaos.causes (job, attempt);
analyze;
