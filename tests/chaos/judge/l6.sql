-- Effects: one in the database for a job that completed with one, none for any other.
select format('job %s (%s, by %s) has %s effects instead of %s', x.n, x.state, x.worker, x.there,
    x.wanted)
from (
    select f.n, f.state, e.worker,
        (
            select count(*) from chaos.effects c where c.job = f.job
        ) as there,
        (f.state = 'completed' and f.n % 2 = 0 and e.trade <> 'http')::int as wanted
    from chaos.found f
    left join chaos.executions e on e.job = f.job and e.attempt = f.attempt
) x
where x.there is distinct from x.wanted
union all
select format('the effect of %s is one of execution %s, which did not complete it', c.job,
    c.attempt)
from chaos.effects c
left join chaos.executions e on e.job = c.job and e.attempt = c.attempt
where e.outcome is distinct from 'completed'
