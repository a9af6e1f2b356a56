-- Overlapping leases: an execution was opened while another one of its job was open.
select format('execution %s of %s was opened before execution %s was closed', x.attempt, x.job,
    x.before)
from (
    select
        r.job,
        r.attempt,
        r.outcome,
        lag(r.attempt) over same as before,
        lag(r.outcome is null) over same as was_open
    from chaos.runs r
    where r.was is null
    window same as (partition by r.job order by r.step)
) x
where x.outcome is null and x.was_open
