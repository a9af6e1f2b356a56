-- Phantoms: there, and never asked for, rolled back, or refused.
select format('job %s (%s) was never enqueued', f.n, f.job)
from chaos.found f
left join chaos.planned p on p.n = f.n
left join chaos.answers a on a.call = p.call
where not coalesce(a.begun, false)
union all
select format('job %s (%s) is there, though its call was rolled back', f.n, f.job)
from chaos.found f
join chaos.planned p on p.n = f.n
where p.manner = 'RolledBack'
union all
select format('job %s (%s) is there, though it had to be refused', f.n, f.job)
from chaos.found f
join chaos.planned p on p.n = f.n
where p.manner = 'Refused'
union all
select format('there is an order of call %s, which was rolled back', o.call)
from chaos.orders o
join chaos.planned p on p.call = o.call and p.place = 1
where p.manner = 'RolledBack'
union all
select format('there is an order of call %s without its jobs', o.call)
from chaos.orders o
join chaos.planned p on p.call = o.call and p.place = 1
left join chaos.found f on f.n = p.n
where f.job is null
union all
select format('execution %s of %s has no job', e.attempt, e.job)
from chaos.executions e
left join chaos.found f on f.job = e.job
where f.job is null
