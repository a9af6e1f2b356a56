-- Executions that did not end their job, and that nothing explains.
select format('execution %s of %s on %s ended %s at %s, %s after its start', c.attempt, c.job,
    coalesce(c.worker, 'nobody known'), c.outcome, c.closed, c.closed - c.opened)
from chaos.causes c
where c.cause is null
