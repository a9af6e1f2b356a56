-- Executions: as many as attempts, each closed once, the last one as the job ended.
select format('job %s (%s) has attempt %s and %s executions', f.n, f.job, f.attempt, x.n)
from chaos.found f
cross join lateral (
    select count(*) as n, max(e.attempt) as last from chaos.executions e where e.job = f.job
) x
where f.attempt <> x.n or f.attempt <> coalesce(x.last, 0)
union all
select format('execution %s of %s is open', e.attempt, e.job)
from chaos.executions e
where e.outcome is null
union all
select format('execution %s of %s was closed %s times', r.attempt, r.job, count(*))
from chaos.runs r
where r.outcome is not null and r.was is null
group by r.job, r.attempt
having count(*) > 1
union all
select format('job %s (%s) is %s and its last execution %s', f.n, f.job, f.state, e.outcome)
from chaos.found f
join chaos.executions e on e.job = f.job and e.attempt = f.attempt
where case f.state
    when 'completed' then e.outcome <> 'completed'
    when 'discarded' then e.outcome not in ('failed', 'lost', 'timed_out')
    when 'cancelled' then e.outcome = 'completed'
    else false
end
