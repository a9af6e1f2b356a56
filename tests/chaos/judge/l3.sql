-- Enqueued twice: one number of the plan, two jobs.
select format('job %s is there %s times', f.n, count(*))
from chaos.found f
group by f.n
having count(*) > 1
