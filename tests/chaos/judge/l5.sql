-- Stale and accepted: an end or a heartbeat that was answered well, and should not have been.
select format('%s was told "%s" for execution %s of %s, whose outcome is %s', t.worker, t.word,
    t.attempt, t.job, coalesce(e.outcome, 'none'))
from chaos.told t
left join chaos.executions e on e.job = t.job and e.attempt = t.attempt and e.token = t.token
where t.e = 'told'
    and case t.word
        when 'completed' then e.outcome is distinct from 'completed'
        when 'retrying' then e.outcome is distinct from 'failed'
        when 'discarded' then e.outcome is distinct from 'failed'
        when 'snoozed' then e.outcome is distinct from 'snoozed'
        when 'cancelled' then e.outcome is distinct from 'cancelled'
        when 'repeated' then coalesce(e.outcome not in ('completed', 'failed', 'snoozed'), true)
        else false
    end
union all
select format('%s was told that it holds execution %s of %s, which had ended %s before', t.worker,
    t.attempt, t.job, t.begin - e.closed)
from chaos.told t
join chaos.executions e on e.job = t.job and e.attempt = t.attempt
where t.e = 'beat' and t.word in ('held', 'cancel')
    -- Others see a commit a moment after its time: when it is on disk.
    and e.closed < t.begin - interval '2 seconds'
union all
select format('%s got execution %s of %s with another token than is there', t.worker, t.attempt,
    t.job)
from chaos.told t
left join chaos.executions e on e.job = t.job and e.attempt = t.attempt and e.token = t.token
where t.e = 'got' and e.job is null
union all
select format('executions of %s have the same token', e.job)
from chaos.executions e
group by e.job, e.token
having count(*) > 1
union all
select format('%s asked for %s jobs and got %s', l.worker, l.asked, l.got)
from chaos.looks l
where l.got > l.asked
union all
select format('the operator was told "%s" of job %s (%s), which is %s and ended at %s', c.verdict,
    f.n, c.job, f.state, e.at)
from chaos.cancels c
join chaos.found f on f.job = c.job
left join chaos.ends e on e.job = c.job
where case c.verdict
    when 'finished' then e.at is null or e.at > c.at
    when 'cancelled' then f.state <> 'cancelled' or e.at > c.at
    -- Whatever its handler does: a request is on record before it is answered.
    when 'cancelling' then f.state <> 'cancelled'
    else false
end
union all
select format('job %s was begun %s after the operator was told "%s"', c.job,
    chaos.committed(h.xid) - c.at, c.verdict)
from chaos.cancels c
join chaos.history h on h.job = c.job and h.state = 'running'
where c.verdict in ('cancelled', 'cancelling', 'finished') and chaos.committed(h.xid) > c.at
union all
select format('the operator was told of job %s that it is finished or there, and it is not', c.job)
from chaos.cancels c
left join chaos.found f on f.job = c.job
where c.verdict <> 'unknown' and f.job is null
