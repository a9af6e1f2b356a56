-- Changes that no rule allows.
select format('%s went from %s to %s', h.job, coalesce(h.was, 'nothing'),
    coalesce(h.state, 'nothing'))
from chaos.history h
where (coalesce(h.was, '-'), coalesce(h.state, '-')) not in (
        ('-', 'ready'), ('-', 'scheduled'), ('-', 'blocked'),
        ('blocked', 'ready'), ('blocked', 'scheduled'), ('blocked', 'cancelled'),
        ('scheduled', 'ready'), ('scheduled', 'cancelled'),
        ('ready', 'running'), ('ready', 'cancelled'),
        ('running', 'ready'), ('running', 'scheduled'), ('running', 'completed'),
        ('running', 'cancelled'), ('running', 'discarded')
    )
union all
select format('%s went from attempt %s to %s as it became %s', h.job, h.was_attempt, h.attempt,
    h.state)
from chaos.history h
where h.was is not null
    and h.attempt is distinct from h.was_attempt + (h.state = 'running')::int
union all
select format('%s was %s and then came from %s', x.job, x.last, x.was)
from (
    select h.job, h.was, lag(h.state) over (partition by h.job order by h.step) as last
    from chaos.history h
) x
where x.last is distinct from x.was
union all
select format('job %s (%s) is cancelled, and neither an operator nor a parent did it', f.n, f.job)
from chaos.found f
where f.state = 'cancelled'
    and f.job not in (select a.job from chaos.asked_to_cancel a)
    and not exists (
        select from chaos.edges e
        join chaos.found p on p.job = e.parent
        where e.child = f.job and not e.goes_on and p.state in ('cancelled', 'discarded')
    )
union all
select format('job %s (%s) is discarded, and its handler did not ask for it', f.n, f.job)
from chaos.found f
join chaos.planned p on p.n = f.n
where f.state = 'discarded' and not p.discards
